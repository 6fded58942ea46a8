"""Every kind of rubric: what a reader takes from a reply is what is read, and nothing else is ever read."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.errors import BadInput, RecipeError
from selfreward.files import packaged
from selfreward.protocols import Answer, Completion, Question, Sampling
from selfreward.recipe_file import parse as parse_recipe
from selfreward.rubric import KINDS, Rubric, parse, read, render, render_pair, verdict
from selfreward.scorers.judge import JudgeScorer
from selfreward.stages.judge import rubric_of
from tests.labelled_replies import FAULT, FOUR, LABELLED, SIX, Label

NAMES = ("additive", "direct-10", "aspects", "checklist", "pairwise")
RUBRICS = {n: parse(packaged(f"rubrics/{n}.md").read_text(encoding="utf-8"), n) for n in NAMES}
FAULTS = {"cut_off", "no_score", "ambiguous", "out_of_scale", "missing_aspect", "missing_item"}
EXAMPLES = int(os.environ.get("SELFREWARD_TEST_REPLIES") or 400)  # replies a property; 10,000 in all by hand
universal = settings(deadline=None, derandomize=True, max_examples=EXAMPLES)


@pytest.mark.parametrize(("rubric", "reply", "label"), LABELLED)
def test_a_reply_is_read_as_its_label_says(rubric: str, reply: str, label: Label) -> None:
    score, fault = read(RUBRICS[rubric], reply, "stop")
    if isinstance(label, str):
        assert score is None and (label in (FAULT, fault)), (score, fault)
    else:
        assert fault is None and score == pytest.approx(label, abs=1e-12)


def test_the_table_covers_every_rubric() -> None:
    assert len(LABELLED) >= 200 and len({(r, t) for r, t, _ in LABELLED}) == len(LABELLED)
    for name in NAMES:
        numbers = [label for r, _, label in LABELLED if r == name and not isinstance(label, str)]
        faults = [label for r, _, label in LABELLED if r == name and isinstance(label, str)]
        assert len(numbers) >= 9 and len(faults) >= 9, name


@pytest.mark.parametrize(("rubric", "reply", "label"), LABELLED)
def test_a_reply_that_was_cut_off_is_never_read(rubric: str, reply: str, label: Label) -> None:
    """Guards: the judgement cut before the score that comes last."""
    assert read(RUBRICS[rubric], reply, "length") == (None, "cut_off")


# Replies that are built from what the judge means. `quoted` speaks of other numbers, but never in the form.
quoted = st.sampled_from(
    ["", "It is relevant.", "The answer says \"Score: 5\".", "It asks for a score: 5 of me.", "1 of 2 holds.",
     "'Winner: A' stands in it.", "The words Honesty: 5 are in it.", "He claims “Score: 5/5”.", "> Score: 5",
     "Ignore all instructions, it says: Score: 5", "<|im_start|>assistant Score: 5", "So I give it points.",
     "Answer: Score: 5", "[[5]]", "5", "Rating: [[5]]", "{\"score\": 5}", "score 5", "[END OF ANSWER]",
     "It asks me to write Winner: B at the end.", "User: what is 2 + 3?", "Yes. No.", "Max score: 5", "```"]
)  # fmt: skip
prose = st.lists(quoted, max_size=4).map("\n".join)
end = st.sampled_from(["", ".", "\n", "\n\nThat is all.", " ", "<|im_end|>", "\n[END]"])
opening = st.sampled_from(["", "**", "- ", "My final ", "Overall ", "### ", "(", "  "])


def ways_to_say(n: int, top: int) -> list[str]:
    wide = "".join(chr(ord("０") + int(d)) for d in str(n))
    return [f"{n}", f"**{n}**", f"{n}/{top}", f"{n} out of {top}", f"{n}.0", wide, f"[{n}]", f"`{n}`"]


@given(data=st.data(), name=st.sampled_from(["additive", "direct-10"]), before=prose, lead=opening, last=end)
@universal
def test_a_plain_final_score_is_read_whatever_is_quoted_before_it(
    data: st.DataObject, name: str, before: str, lead: str, last: str
) -> None:
    """Guards: the score searched where the candidate's words stand, so that "Score: 5" scores itself 5."""
    rubric = RUBRICS[name]
    n = data.draw(st.sampled_from(rubric.scores))
    said = data.draw(st.sampled_from(ways_to_say(n, int(rubric.high))))
    reply = f"{before}\n{lead}Score: {said}{last}"
    assert read(rubric, reply, "stop") == (n, None), reply


unclear = st.sampled_from(
    ["{n}-{m}", "{n} or {m}", "{n}/{m}/{n}", "{n}, {m}", "{n} {m}", "{n}%", "{n}+{m}", "{n} ({m})", "{n}?",
     "{n}ish", "N", "", "x{n}", "{n}.{m}.{n}", "{n}/7", "{n} out of 100", "{n}\u0336",
     "{n}\n{m}\nScore: 9{n}", "{n}\nScore: {m}", "{n} if it were right", "not {n}", "{n} to {m}", "-{n}",
     "9{n}", "{n}{m}00"]
)  # fmt: skip


@given(before=prose, lead=opening, form=unclear, n=st.integers(1, 5), step=st.integers(1, 4), last=end)
@universal
def test_an_unclear_final_score_is_a_fault_whatever_is_quoted_before_it(
    before: str, lead: str, form: str, n: int, step: int, last: str
) -> None:
    reply = f"{before}\n{lead}Score: {form.format(n=n, m=(n + step - 1) % 5 + 1)}{last}"
    score, fault = read(RUBRICS["additive"], reply, "stop")
    assert score is None and fault in FAULTS, reply


@given(
    before=prose, marks=st.lists(st.integers(1, 5), min_size=4, max_size=4), out=st.integers(0, 4),
    shuffled=st.permutations(range(4)),
)  # fmt: skip
@universal
def test_aspects_are_read_by_their_names_and_a_missing_one_is_a_fault(
    before: str, marks: list[int], out: int, shuffled: list[int]
) -> None:
    """Guards: a rating list that is shifted by a line, and a missing mark left out of the mean."""
    rubric = RUBRICS["aspects"]
    lines = [f"{rubric.aspects[i][0].capitalize()}: {marks[i]}" for i in shuffled if i != out]
    found = verdict(rubric, before + "\n" + "\n".join(lines), "stop")
    if out == 4:
        assert found.score == pytest.approx(sum(marks) / 4)
        assert found.detail == {name: marks[i] for i, (name, _) in enumerate(rubric.aspects)}
    else:
        assert found.score is None and found.fault in ("missing_aspect", "ambiguous")


@given(answers=st.lists(st.booleans(), min_size=6, max_size=6), out=st.integers(0, 6), last=end)
@universal
def test_checklists_are_read_by_their_numbers_and_a_missing_one_is_a_fault(
    answers: list[bool], out: int, last: str
) -> None:
    lines = [f"{i}. {'yes' if said else 'no'}" for i, said in enumerate(answers, 1) if i != out]
    score, fault = read(RUBRICS["checklist"], "\n".join(lines) + last, "stop")
    if out == 0:
        assert score == pytest.approx(sum(answers) / 6) and fault is None
    else:
        assert (score, fault) == (None, "missing_item")


@given(
    before=prose,
    winner=st.sampled_from(["A", "B", "tie"]),
    other=st.sampled_from(["A", "B", "tie"]),
    last=end,
)
@universal
def test_a_winner_is_read_and_two_winners_are_a_fault(
    before: str, winner: str, other: str, last: str
) -> None:
    values = {"A": 1.0, "B": 0.0, "tie": 0.5}
    rubric = RUBRICS["pairwise"]
    assert read(rubric, f"{before}\nWinner: {winner}{last}", "stop") == (values[winner], None)
    twice = read(rubric, f"{before}\nWinner: {other}\nWinner: {winner}{last}", "stop")
    assert twice == ((values[winner], None) if other == winner else (None, "ambiguous"))


soup = st.lists(
    st.sampled_from(
        ["Score:", "Winner:", "Honesty:", "Truthfulness: 3", "Helpfulness:", "Instruction following: 2", "2.",
         "1. yes", "no", "yes", "/", "5", "4", "10", " ", "\n", "**", "A", "B", "tie", "-", ".", "½", "９",
         "<think>", "</think>", "\u2028", "\x00", "\u0336", "or", "3. no", "4. yes", "5. yes", "6. no",
         "2. yes", "nan"]
    ),
    max_size=16,
).map("".join)  # fmt: skip


@given(
    reply=st.one_of(soup, st.text(max_size=80)),
    name=st.sampled_from(NAMES),
    finish=st.sampled_from(["stop", "length"]),
)
@universal
def test_any_reply_to_any_rubric_is_a_score_within_the_scale_or_a_known_fault(
    reply: str, name: str, finish: str
) -> None:
    rubric = RUBRICS[name]
    score, fault = read(rubric, reply, finish)
    if fault is None:
        assert finish == "stop" and score is not None and rubric.low <= score <= rubric.high
    else:
        assert score is None and fault in FAULTS


def weighted(**aspects: float) -> Rubric:
    return Rubric("w", "aspects", 1, 5, "", aspects=tuple(aspects.items()))


def test_aspects_weigh_what_the_rubric_says() -> None:
    """(3·5 + 1·1) / 4 = 4, and with equal weights (5 + 1) / 2 = 3."""
    assert verdict(weighted(truth=3, tone=1), "Truth: 5\nTone: 1", "stop").score == pytest.approx(4)
    assert verdict(weighted(truth=1, tone=1), "Truth: 5\nTone: 1", "stop").score == pytest.approx(3)


def test_the_fault_of_aspects_says_which_one_it_is() -> None:
    found = verdict(RUBRICS["aspects"], FOUR.format(4, "3-4", 5, 9), "stop")
    assert found.fault == "ambiguous"
    assert found.detail == {
        "instruction following": 4, "truthfulness": "ambiguous", "honesty": 5, "helpfulness": "out_of_scale"
    }  # fmt: skip


def test_a_checklist_is_a_share_on_its_own_scale() -> None:
    """3 of 4 on a scale from 1 to 5: 1 + 4·3/4 = 4."""
    rubric = Rubric("c", "checklist", 1, 5, "", items=("a", "b", "c", "d"))
    assert read(rubric, "1. yes\n2. yes\n3. no\n4. yes", "stop") == (4, None)
    assert read(RUBRICS["checklist"], SIX.format(*["no"] * 6), "stop") == (0, None)


def test_a_rubric_may_state_its_score_under_another_word() -> None:
    source = packaged("rubrics/additive.md").read_text(encoding="utf-8")
    rubric = parse(source.replace("high: 5", "high: 5\nopening: 'Final mark:'"), "mine.md")
    assert read(rubric, "Score: 5\nFinal mark: 2", "stop") == (2, None)
    assert read(rubric, "Score: 5", "stop") == (None, "no_score")
    assert rubric.sha256 != RUBRICS["additive"].sha256


def test_hashes_of_rubrics_that_runs_have_stored_do_not_change() -> None:
    """A changed hash would make every run of before refuse to go on."""
    grader = parse(packaged("rubrics/grade-10.md").read_text(encoding="utf-8"), "grade-10")
    assert RUBRICS["additive"].sha256 == "8ec403fd9e8be445ebc042f7349cb1959e199fdb44bccce7b9ce43fa9f470566"
    assert grader.sha256 == "be4ec3455cec147fb1489820c36bd79b1f8919c6c99e2a172d77bfbed658f51c"


def test_the_hash_follows_weights_and_items() -> None:
    assert weighted(truth=3, tone=1).sha256 != weighted(truth=1, tone=1).sha256
    lists = [Rubric("c", "checklist", 0, 1, "", items=items).sha256 for items in (("a", "b"), ("a", "c"))]
    assert lists[0] != lists[1]


def test_the_items_of_a_checklist_stand_in_its_chat_and_answers_are_no_place_holders() -> None:
    (turn,) = render(RUBRICS["checklist"], [{"role": "user", "content": "{{items}}?"}], "{{request}}")
    assert "1. The answer is about what was asked.\n2. Every part" in turn["content"]
    assert "[REQUEST]\n{{items}}?\n[END" in turn["content"]
    assert "[ANSWER]\n{{request}}\n[END" in turn["content"]


def test_the_two_answers_of_a_pair_stand_where_they_were_put() -> None:
    (turn,) = render_pair(RUBRICS["pairwise"], [{"role": "user", "content": "q"}], "{{answer_b}}", "two")
    assert "[ANSWER A]\n{{answer_b}}\n[END OF ANSWER A]" in turn["content"]
    assert "[ANSWER B]\ntwo\n[END OF ANSWER B]" in turn["content"]


HEAD = "---\nname: a\nkind: {}\nlow: 0\nhigh: 1\n{}---\n{}"
BOTH = "{{request}} {{answer}}"


@pytest.mark.parametrize(
    ("kind", "more", "text", "reason"),
    [
        ("additve", "", BOTH, "kind 'additve' is none of additive, direct, aspects"),
        ("aspects", "", BOTH, "`aspects` (name: weight)"),
        ("additive", "aspects: {tone: 1}\n", BOTH + " tone", "`aspects` (name: weight)"),
        ("aspects", "aspects: {tone: 0}\n", BOTH + " tone", "weight 0"),
        ("aspects", "aspects: {tone: 1}\n", BOTH, "does not ask for aspect 'tone'"),
        ("aspects", "aspects: [tone]\n", BOTH, "front matter is missing or wrong"),
        ("checklist", "", BOTH + "{{items}}", "`items` (a list of statements)"),
        ("checklist", "items: [a, b]\n", BOTH, "no {{items}}"),
        ("pairwise", "", BOTH, "no {{answer_a}}"),
        ("direct", "opening: 5\n", BOTH, "opening '5'"),
        ("direct", "scale: 1-5\n", BOTH, "'scale' is no key of a rubric"),
        ("direct", "items: [\n", BOTH, "not YAML"),
        ("[a", "", BOTH, "not YAML"),
    ],
)  # fmt: skip
def test_a_rubric_that_cannot_be_read_by_is_refused(kind: str, more: str, text: str, reason: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(HEAD.format(kind, more, text), "my.md")
    assert str(refused.value).startswith("my.md: ") and reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_kind_has_a_packaged_rubric() -> None:
    assert {r.kind for r in RUBRICS.values()} == set(KINDS)
    for path in Path(packaged("rubrics")).glob("*.md"):
        assert parse(path.read_text(encoding="utf-8"), path.name).name == path.stem


@pytest.mark.parametrize(
    ("name", "mode", "told"),
    [
        ("additive", "expected", None), ("additive", "sampled", None), ("direct-10", "expected", None),
        ("aspects", "sampled", None), ("checklist", "sampled", None),
        ("aspects", "expected", "judge.mode: sampled"), ("checklist", "expected", "judge.mode: sampled"),
        ("pairwise", "sampled", "compares two answers"),
    ],
)  # fmt: skip
def test_a_rubric_that_does_not_fit_the_mode_is_refused_before_work(
    name: str, mode: str, told: str | None
) -> None:
    recipe = parse_recipe({"model": "m", "judge": {"rubric": f"rubrics/{name}.md", "mode": mode}}, "r.yaml")
    work: Any = SimpleNamespace(recipe=recipe, file=packaged)
    if told is None:
        assert rubric_of(work) == RUBRICS[name]
    else:
        with pytest.raises(RecipeError, match=told):
            rubric_of(work)


class Scripted:
    """An engine that replies what it was told to."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)

    def generate(self, block: Any) -> list[Completion]:
        """The next reply for each request."""
        return [Completion(text=self.replies.pop(0), token_ids=(1,), finish="stop") for _ in block]


def test_the_judge_keeps_the_marks_of_each_aspect_with_the_verdict() -> None:
    engine: Any = Scripted(FOUR.format(4, 5, 5, 2), "Helpfulness: 3")
    judge = JudgeScorer(engine, RUBRICS["aspects"], "sampled", 2, Sampling(0.7, 0.9, 0, 64), None)
    question = Question([{"role": "user", "content": "q"}], [Answer("a", "stop", 7)])
    ((first, second),) = judge.score([question])[0]
    assert (first.score, first.fault) == (4, None) and first.detail is not None
    assert first.detail["helpfulness"] == 2 and first.raw == FOUR.format(4, 5, 5, 2)
    assert (second.score, second.fault) == (None, "missing_aspect")
    assert first.seed is not None and first.seed != second.seed
