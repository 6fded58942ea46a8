"""Near-duplicates: the index excludes no pair that comparing everything with everything would find."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.near import HeldOut, Neighbours, SharedRuns, similarity

universal = settings(deadline=None, derandomize=True, max_examples=150)
WORDS = re.compile(r"[a-z0-9]+")
ANY_SCRIPT = re.compile(r"[a-z0-9]+|[^\W_]")
Found = tuple[int, float] | None


def lcs(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by the table of the textbook."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            row[j], diagonal = (diagonal + 1 if x == y else max(row[j], row[j - 1])), row[j]
    return row[-1]


def rouge_l(a: list[str], b: list[str]) -> float:
    """F1 as the rouge-score package multiplies and divides it."""
    if not a or not b:
        return 0.0
    precision, recall = lcs(a, b) / len(a), lcs(a, b) / len(b)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def indel(a: list[str], b: list[str]) -> float:
    """The loop's number: 1 minus the insertions and deletions as a share of all words."""
    return 1 - (len(a) + len(b) - 2 * lcs(a, b)) / (len(a) + len(b)) if a and b else 0.0


def by_hand(texts: list[str], threshold: float, as_rouge: bool) -> list[Found]:
    """Every text against every kept one; the nearest, the first of equals."""
    kept: list[tuple[int, list[str]]] = []
    found: list[Found] = []
    for i, text in enumerate(texts):
        words = (WORDS if as_rouge else ANY_SCRIPT).findall(text.lower())
        near = [((rouge_l if as_rouge else indel)(words, other), -j) for j, other in kept]
        best = max(near, default=(0.0, 0))
        if best[0] >= threshold:
            found.append((-best[1], best[0]))
        else:
            found.append(None)
            kept.append((i, words))
    return found


def by_index(texts: list[str], threshold: float, as_rouge: bool) -> list[Found]:
    kept = Neighbours(threshold, rouge_score=as_rouge)
    found: list[Found] = []
    for i, text in enumerate(texts):
        near = kept.nearest(text)
        found.append((int(near[0]), near[1]) if near else None)
        if near is None:
            kept.add(text, str(i))
    return found


few = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g7", "é", "я", "-", "A"]), max_size=12)
texts_of_few_words = st.lists(few.map(" ".join), max_size=14)


@st.composite
def families(draw: st.DrawFn) -> list[str]:
    """Texts made from a few others by taking words out, putting words in and moving them."""
    vocabulary = [f"w{i}" for i in range(30)]
    parents = draw(
        st.lists(st.lists(st.sampled_from(vocabulary), min_size=3, max_size=25), min_size=1, max_size=3)
    )
    made = []
    for _ in range(draw(st.integers(1, 14))):
        words = list(draw(st.sampled_from(parents)))
        for _ in range(draw(st.integers(0, 6))):
            at = draw(st.integers(0, len(words)))
            if draw(st.booleans()):
                words.insert(at, draw(st.sampled_from(vocabulary)))
            elif words:
                del words[min(at, len(words) - 1)]
        made.append(" ".join(words))
    return made


@given(
    texts=st.one_of(texts_of_few_words, families()),
    threshold=st.sampled_from([0.05, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.95, 1.0]),
    as_rouge=st.booleans(),
)
@universal
def test_the_index_decides_as_comparing_everything_does(
    texts: list[str], threshold: float, as_rouge: bool
) -> None:
    assert by_index(texts, threshold, as_rouge) == by_hand(texts, threshold, as_rouge)


def test_a_tie_with_the_threshold_is_decided_by_each_ones_own_arithmetic() -> None:
    """21 common words of 23 and 37: 42/60 is 0.7, and 2·p·r/(p + r) of 21/23 and 21/37 is a bit less."""
    common = [f"c{i}" for i in range(21)]
    first = " ".join([*common, "x1", "x2"])
    second = " ".join([*common, *(f"y{i}" for i in range(16))])
    assert rouge_l(first.split(), second.split()) == 0.6999999999999998
    assert by_index([first, second], 0.7, True) == [None, None]
    assert by_index([first, second], 0.7, False) == [None, (0, 0.7)]


def test_only_the_loop_counts_letters_outside_a_to_z() -> None:
    """rouge-score has no words for Russian, so that it finds no twins there; of `café` it sees `caf`."""
    twins = ["Напиши короткое стихотворение о море"] * 2
    assert by_index(twins, 0.7, True) == [None, None]
    assert by_index(twins, 0.7, False) == [None, (0, 1.0)]
    assert by_index(["café crème", "caf cr me"], 0.9, True)[1] == (0, 1.0)
    assert by_index(["café crème", "caf cr me"], 0.9, False)[1] is None


def test_a_repeated_word_counts_as_often_as_both_have_it() -> None:
    """`a` is in `a a a a` four times and in the other once: LCS 1, 2·1/(4 + 1) = 0.4."""
    assert by_index(["a a a a", "a"], 0.5, True) == [None, None]
    assert by_index(["a a a a", "a"], 0.4, True) == [None, (0, pytest.approx(0.4))]


def test_the_nearest_is_told_and_the_first_of_equals() -> None:
    near = Neighbours(0.5)
    for name, text in (("half", "a b x y"), ("first", "a b c x"), ("second", "a b c y"), ("far", "p q r s")):
        near.add(text, name)
    assert near.nearest("a b c d") == ("first", pytest.approx(0.75))


def test_texts_without_words_are_near_nothing() -> None:
    near = Neighbours(0.1)
    near.add("?!", "marks")
    near.add("", "empty")
    assert near.nearest("?!") is None and near.nearest("") is None and near.nearest("word") is None


def test_similarity_of_two_texts_is_the_same_number() -> None:
    assert similarity("A b, c d!", "a x c d e") == pytest.approx(2 / 3)
    assert similarity("", "") == 0 and similarity("a", "b") == 0 and similarity("Да", "да!") == 1


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


def test_a_held_out_text_may_be_neither_copied_nor_quoted() -> None:
    """An accepted prompt may be quoted: only what measures is kept out word for word."""
    question = "A train leaves the coast at noon and climbs for three hours. How far?"
    held = HeldOut(0.7)
    held.hold_out(question)
    quoted = "Name five birds that cannot fly at all and say for each of them where it lives today."
    held.add(quoted, "seed")
    around = "word " * 20 + "{}" + " word" * 20
    assert held.reason(question.lower()) == "near_held_out"
    assert held.reason(around.format(question)) == "shares_held_out"
    assert (
        held.reason("Name five birds that cannot fly at all and say for each of them where it lives.")
        == "near_seed"
    )
    quoted = "Name five birds that cannot fly at all and say for each of them where it lives today."
    assert held.reason(around.format(quoted)) is None
