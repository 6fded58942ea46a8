"""Self-instruct: a request is made of its arguments alone, a reply is read by its lines, twins are found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.files import packaged
from selfreward.invent import Neighbours, SharedRuns, form_fault, read, request

universal = settings(deadline=None, derandomize=True, max_examples=200)


def test_a_request_lists_the_tasks_and_opens_with_the_next_number() -> None:
    text, opening = request("Do:\n{{tasks}}\n{{wanted}} more", ["Name a\n  tree.", "Add 2 and 3."], 4)
    assert text == "Do:\n1. Name a tree.\n2. Add 2 and 3.\n4 more"
    assert opening == "3."


def test_asking_again_gives_the_same_request_and_leaves_the_tasks_as_they_were() -> None:
    """Guards: few-shot text that grows with each call."""
    template, tasks = (
        packaged("self_instruct.md").read_text(encoding="utf-8"),
        ["Name a tree.", "Add 2 and 3."],
    )
    first = request(template, tasks, 4)
    assert [request(template, tasks, 4) for _ in range(3)] == [first] * 3
    assert tasks == ["Name a tree.", "Add 2 and 3."]


def test_a_place_holder_inside_a_task_stays_text() -> None:
    assert request("{{tasks}}", ["Say {{wanted}} and {{tasks}}"], 4)[0] == "1. Say {{wanted}} and {{tasks}}"


def test_the_first_task_needs_no_number_of_its_own() -> None:
    assert read(" Name a tree.\n10. Add 2 and 3.", "9.", True, 4) == [
        ("Name a tree.", None),
        ("Add 2 and 3.", None),
    ]


def test_blank_lines_between_tasks_shift_nothing() -> None:
    """Guards: a list shifted by a blank line."""
    plain = read(" Name a tree.\n8. Add 2 and 3.\n9. Sing a song.", "7.", True, 4)
    spaced = read(" Name a tree.\n\n8. Add 2 and 3.\n\n\n9. Sing a song.\n", "7.", True, 4)
    assert spaced == plain and [t for t, _ in plain] == ["Name a tree.", "Add 2 and 3.", "Sing a song."]


def test_a_number_without_a_task_is_no_task() -> None:
    assert [t for t, _ in read(" \n8.\n9. Sing a song.", "7.", True, 4)] == ["Sing a song."]


def test_a_task_may_go_on_over_lines_but_not_over_a_blank_one() -> None:
    found = read(" Sort these\nby size.\n\nI hope this helps!", "7.", True, 4)
    assert found == [("Sort these by size.", None)]


def test_numbers_of_two_digits_are_read_whole() -> None:
    """Guards: "10" read as "1" or "0"."""
    assert read(" Name a tree.\n10) Sing.\nTask 11: Dance.", "9.", True, 4) == [
        ("Name a tree.", None), ("Sing.", None), ("Dance.", None)
    ]  # fmt: skip


def test_a_decimal_at_the_start_of_a_line_starts_no_task() -> None:
    assert read(" Convert to cups:\n3.5 litres", "7.", True, 4) == [("Convert to cups: 3.5 litres", None)]


def test_the_task_that_was_cut_off_is_refused_and_the_ones_before_it_are_not() -> None:
    assert read(" Name a tree.\n8. Explain how the", "7.", False, 4) == [
        ("Name a tree.", None), ("Explain how the", "cut_off")
    ]  # fmt: skip


def test_more_tasks_than_wanted_are_not_read() -> None:
    assert [t for t, _ in read(" A\n2. B\n3. C", "1.", False, 2)] == ["A", "B"]


def test_a_reply_without_tasks_is_empty() -> None:
    assert read("", "7.", True, 4) == [] and read("\n\n", "7.", True, 4) == []


def test_quotes_around_a_task_go_and_quotes_inside_it_stay() -> None:
    assert read(' "Name a tree."', "7.", True, 4) == [("Name a tree.", None)]
    assert read(' Explain the meaning of "carpe diem"', "7.", True, 4) == [
        ('Explain the meaning of "carpe diem"', None)
    ]


@given(
    tasks=st.lists(
        st.text("abc xyz", min_size=1).map(lambda t: "Do " + " ".join(t.split())), min_size=1, max_size=6
    )
)
@universal
def test_what_was_listed_is_read_back(tasks: list[str]) -> None:
    tasks = [t.strip() for t in tasks]
    reply = f" {tasks[0]}\n" + "\n".join(f"{i}. {t}" for i, t in enumerate(tasks[1:], 8))
    assert read(reply, "7.", True, len(tasks)) == [(t, None) for t in tasks]


@given(reply=st.text('12.):\n abT"', max_size=60), finished=st.booleans(), wanted=st.integers(1, 4))
@universal
def test_any_reply_gives_at_most_what_was_wanted_and_no_empty_task(
    reply: str, finished: bool, wanted: int
) -> None:
    found = read(reply, "7.", finished, wanted)
    assert len(found) <= wanted and all(t and "\n" not in t for t, _ in found)
    assert finished is False or all(fault is None for _, fault in found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "form"), ("- list the planets now", "form"),
        ("Name three trees", "too_short"), ("Name three tall trees", None),
        ("Name " + "very " * 8 + "tall", None), ("Name " + "very " * 9 + "tall", "too_long"),
        ("Describe the Picture you see", "keyword"), ("Describe the picturesque old town", None),
        ("Draw, then describe a tree", "keyword"),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_a_prompt_is_told_why(text: str, fault: str | None) -> None:
    assert form_fault(text, min_words=4, max_words=10, keywords=["Picture", "draw"]) == fault


def test_similarity_is_rouge_l_on_words() -> None:
    """LCS of `a b c d` and `a x c d e` is `a c d`: 2·3 / (4 + 5) = 2/3."""
    near = Neighbours(0.6)
    near.add("A b, c d!", "one")
    found = near.nearest("a x c d e")
    assert found is not None and found[0] == "one" and found[1] == pytest.approx(2 / 3)


def test_the_threshold_itself_is_too_close() -> None:
    """7 of 10 words each: 2·7 / 20 = 0.7."""
    near = Neighbours(0.7)
    near.add("a b c d e f g h i j", "held_out")
    assert near.nearest("a b c d e f g x y z") == ("held_out", pytest.approx(0.7))
    assert near.nearest("a b c d e f w x y z") is None


def test_word_order_counts() -> None:
    """LCS of a text and its reverse is one word: 2 / 8."""
    near = Neighbours(0.3)
    near.add("one two three four", "x")
    assert near.nearest("four three two one") is None


@pytest.mark.parametrize(
    "text",
    [
        "Name a tall tree.",
        "Напиши короткое стихотворение о море",
        "写一首关于大海的短诗",
        "اكتب قصيدة قصيرة عن البحر",
    ],
)
def test_a_held_out_prompt_is_recognised_in_any_script(text: str) -> None:
    """Guards: evaluation prompts inside the training prompts."""
    near = Neighbours(0.7)
    near.add(text, "held_out")
    assert near.nearest(text) == ("held_out", pytest.approx(1.0))


def test_another_text_in_another_script_is_no_twin() -> None:
    near = Neighbours(0.7)
    near.add("Напиши короткое стихотворение о море", "held_out")
    assert near.nearest("Объясни ребёнку почему небо голубое") is None
    assert Neighbours(0.7).nearest("Name a tree") is None


@given(texts=st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), min_size=1, max_size=4))
@universal
def test_a_text_is_near_itself_whatever_else_was_added(texts: list[list[str]]) -> None:
    near = Neighbours(0.99)
    for words in texts:
        near.add(" ".join(words), "".join(words))
    assert near.nearest(" ".join(texts[0]).upper()) == ("".join(texts[0]), pytest.approx(1.0))


def test_a_long_question_inside_a_longer_prompt_is_found_word_for_word() -> None:
    """ROUGE-L of the whole is 2 · 14 / (14 + 54) = 0.41, below 0.7; fourteen words in a row are no chance."""
    question = "A train leaves the coast at noon and climbs for three hours. How far?"
    prompt = "word " * 20 + question.upper().replace("?", "!") + " word" * 20
    near, runs = Neighbours(0.7), SharedRuns()
    near.add(question, "held_out")
    runs.add(question, "held_out")
    found = runs.shared(prompt)
    assert near.nearest(prompt) is None and found is not None
    assert found == ("held_out", "a train leaves the coast at noon and climbs for three hours how")


def test_twelve_shared_words_in_a_row_or_thirteen_apart_are_no_run() -> None:
    words = [f"w{i}" for i in range(13)]
    runs = SharedRuns()
    runs.add(" ".join(words), "held_out")
    assert runs.shared(" ".join(words)) is not None
    assert (
        runs.shared(" ".join(words[:12])) is None
        and runs.shared(" ".join([*words[:12], "x", words[12]])) is None
    )
    short = SharedRuns()
    short.add("Too short.", "held_out")
    assert short.shared("Too short.") is None
