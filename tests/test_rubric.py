"""Reading the judge: one clear score within the scale, or a fault; a false score is worse than a fault."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.errors import BadInput
from selfreward.files import packaged
from selfreward.rubric import LOW_MASS, Rubric, expectation, parse, read, render, transcript

FIVE = Rubric("five", "additive", 1, 5, "Q {{request}} A {{answer}} R {{reference}}")
TEN = Rubric("ten", "direct", 1, 10, "Q {{request}} A {{answer}}")
ZERO_FIVE = Rubric("zero", "additive", 0, 5, "Q {{request}} A {{answer}}")
FAULTS = {"cut_off", "no_score", "ambiguous", "out_of_scale"}
DATA = Path(os.environ.get("SELFREWARD_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
REPLIES = DATA / "srlm_runs" / "judge_replies_M1.jsonl"

universal = settings(deadline=None, derandomize=True, max_examples=200)
pieces = st.sampled_from(
    ["Score:", "score =", "Score", " 4", " 5", "10", "/5", "/10", " out of 5", "-", " or ", ",", ".", "\n",
     "\n\n", "**", "½", "+", " good", "%", "−3", "N", "９", "\u2028", "1e9", "(", ")"]
)  # fmt: skip
replies = st.one_of(st.text(max_size=60), st.lists(pieces, max_size=12).map("".join))


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 4", 4), ("score=4", 4), ("Good work.\n\nScore: 4\n", 4), ("**Score:** 4", 4),
        ("**Score: 4**", 4), ("Final score: `4`", 4), ("### Score: 4", 4), ("- Score: 4.", 4),
        ("Score: 4/5", 4), ("Score: 4 / 5.", 4), ("Score: 4 out of 5", 4), ("Overall score: 4/5", 4),
        ("Ｓｃｏｒｅ：４", 4), ("Score: ④", 4), ("Score: 3.5", 3.5), ("Score: 3,5", 3.5),
        ("Score: 4<|im_end|>", 4), ("Score: 4 - the third statement fails", 4),
        ("It is right. Score: 1", 1), ("Score: 5 (five)", 5),
    ],
)  # fmt: skip
def test_one_clear_statement_is_read(reply: str, score: float) -> None:
    assert read(FIVE, reply, "stop") == (score, None)


def test_a_ten_is_a_ten() -> None:
    """Guards: "10" read as "1" or "0"."""
    assert read(TEN, "Score: 10", "stop") == (10, None)
    assert read(TEN, "Score: 10/10", "stop") == (10, None)
    assert read(ZERO_FIVE, "Score: 10", "stop") == (None, "out_of_scale")


def test_blank_lines_shift_nothing() -> None:
    """Guards: a rating list shifted by a blank line."""
    assert read(FIVE, "\n\nOn the subject.\n\n\nScore: 2\n\n\n", "stop") == (2, None)


@pytest.mark.parametrize(
    "reply",
    ["", "\n", "A fine answer.", "Score:", "Score: N", "Score: high", "4", "Rating 4", "underscore: 4"],
)
def test_a_reply_without_a_score_is_a_fault_and_no_number(reply: str) -> None:
    """Guards: a parse failure that becomes −1, 0, 0.5 or a random score."""
    assert read(FIVE, reply, "stop") == (None, "no_score")


@given(reply=replies)
@universal
def test_a_cut_off_judgement_has_no_score_even_where_one_stands(reply: str) -> None:
    """Guards: the judgement cut before the score that comes last, with an earlier number taken instead."""
    for finish in ("length", ""):
        assert read(FIVE, reply, finish) == (None, "cut_off")
        assert read(FIVE, f"So far Score: 5 {reply}", finish) == (None, "cut_off")


@pytest.mark.parametrize(
    "reply", ["Score: 0", "Score: 6", "Score: -1", "Score: 5.5", "Score: 0/5", "Score: " + "9" * 400]
)
def test_a_score_outside_the_scale_is_a_fault_and_never_clipped(reply: str) -> None:
    assert read(FIVE, reply, "stop") == (None, "out_of_scale")


@pytest.mark.parametrize(
    "reply",
    [
        "Score: 3-4", "Score: 3 – 4", "Score: 3 or 4", "Score: 3 to 4", "Score: 3 and 4", "Score: 3, 4",
        "Score: 4/10", "Score: 4 out of 10", "Score: 4%", "Score: 4th", "Score: 3 Score: 4",
        "Score: 4/5 or 3/5", "Score: 3/4/5", "Score: 3...4", "Score: 3 or maybe 4", "Score: 3 (or 4)",
        "Score: 3 to a 4", "Score: 3; 4", "Score: 3 vs 4", "Score: 3 → 4", "Score: 3 ± 1", "Score: ½",
        "Score: 1 2 3 4 5", "Score: 1 | 2 | 3 | 4 | 5", "Score: 5 if complete, else 2", "Score: 5 %",
        "Score: 4 (out of 10)", "Score: 4 of 10", "Score: 4 points out of 10", "Score: 1,000",
    ],
)  # fmt: skip
def test_an_alternative_a_range_or_another_scale_is_never_a_score(reply: str) -> None:
    assert read(FIVE, reply, "stop")[0] is None


@pytest.mark.parametrize(
    "reply", ["Score: 1 + 1 + 1 + 1 = 4", "Score: 1+1+1=3", "Score: 5 − 2 = 3", "Score: 2 x 2 = 4"]
)
def test_the_first_term_of_a_sum_is_not_the_score(reply: str) -> None:
    first = float(reply[7])
    assert read(FIVE, reply, "stop")[0] != first


def test_an_increment_is_not_the_score() -> None:
    assert read(FIVE, "Score: +1 for relevance\n+1 for substance\n+1 for being right", "stop")[0] is None


@pytest.mark.parametrize(
    "reply",
    ["It is off the subject. Maximum score: 5", "Useless (max score: 5).", "Highest possible score: 5"],
)
def test_the_top_of_the_scale_is_not_the_verdict(reply: str) -> None:
    assert read(FIVE, reply, "stop")[0] is None


def test_a_part_score_is_not_the_verdict() -> None:
    assert read(FIVE, "Relevance score: 1\nClarity score: 1\nTotal: 4", "stop")[0] is None


@pytest.mark.parametrize("last", ["Score: four", "Score: N/A", "Final score:\n4", "Score: [4]", "Score: −3"])
def test_an_unreadable_last_statement_does_not_bring_an_earlier_one_back(last: str) -> None:
    assert read(FIVE, f"Score: 2\nOn second thought.\n{last}", "stop")[0] != 2


def test_a_score_quoted_from_the_candidate_is_not_the_verdict() -> None:
    """Guards: the score searched where the answer's own words stand, so that "Score: 5" scores itself 5."""
    assert read(FIVE, 'It ends with the words "Score: 5".\nScore: 1', "stop")[0] != 5
    assert read(FIVE, 'The answer claims "Score: 5", which counts for nothing.', "stop")[0] is None


@given(reply=replies, rubric=st.sampled_from([FIVE, TEN, ZERO_FIVE]))
@universal
def test_any_reply_gives_a_score_within_the_scale_or_a_fault_never_both(reply: str, rubric: Rubric) -> None:
    score, fault = read(rubric, reply, "stop")
    if fault is None:
        assert score is not None and rubric.low <= score <= rubric.high
    else:
        assert score is None and fault in FAULTS


@given(
    value=st.integers(-50, 200),
    before=st.text("abc .\n*#", max_size=30),
    after=st.sampled_from(["", ".", "\n", "**\n"]),
)
@universal
def test_a_stated_whole_number_is_read_as_itself_or_out_of_scale(value: int, before: str, after: str) -> None:
    expected = (value, None) if 1 <= value <= 10 else (None, "out_of_scale")
    assert read(TEN, f"{before}\nScore: {value}{after}", "stop") == expected


def test_the_expected_score_is_the_mean_over_the_mass_there_is() -> None:
    """Guards: floored means. (1·0.2 + 5·0.6) / 0.8 = 4; (1·0.3 + 2·0.3) / 0.6 = 1.5, not 1."""
    assert expectation(FIVE, [0.2, 0, 0, 0, 0.6]) == (pytest.approx(4.0), None)
    assert expectation(FIVE, [0.3, 0.3, 0, 0, 0]) == (pytest.approx(1.5), None)


@pytest.mark.parametrize("mass", [0.0, LOW_MASS / 2, math.nan])
def test_a_model_that_was_not_about_to_score_is_a_fault(mass: float) -> None:
    assert expectation(FIVE, [0, 0, mass, 0, 0]) == (None, "no_score")


@given(weights=st.lists(st.floats(0, 0.2), min_size=5, max_size=5))
@universal
def test_an_expected_score_lies_within_the_scale_or_is_a_fault(weights: list[float]) -> None:
    score, fault = expectation(FIVE, weights)
    assert (fault == "no_score") if score is None else (fault is None and 1 <= score <= 5)


def test_what_a_candidate_contains_is_never_taken_for_a_place_holder() -> None:
    (turn,) = render(FIVE, [{"role": "user", "content": "{{answer}}?"}], "{{request}} {{reference}}", "42")
    assert turn == {"role": "user", "content": "Q {{answer}}? A {{request}} {{reference}} R 42"}


def test_a_missing_reference_is_said_to_be_missing() -> None:
    assert render(FIVE, [{"role": "user", "content": "q"}], "a")[0]["content"] == "Q q A a R none given"


def test_several_turns_are_shown_with_their_speakers() -> None:
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "1+1"},
    ]
    assert transcript(chat) == "User: Hi\n\nAssistant: Yes?\n\nUser: 1+1"
    assert transcript(chat[:1]) == "Hi"


def test_the_hash_follows_what_decides_a_score_and_not_the_name() -> None:
    assert FIVE.sha256 == Rubric("other", "additive", 1, 5, FIVE.text).sha256
    assert FIVE.sha256 != Rubric("five", "additive", 1, 6, FIVE.text).sha256
    assert FIVE.sha256 != Rubric("five", "additive", 1, 5, FIVE.text + ".").sha256


def test_the_whole_numbers_of_a_scale_lie_within_it() -> None:
    assert TEN.scores == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert Rubric("half", "direct", 0.5, 2.5, "").scores == (1, 2)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("no head", "no front matter"),
        ("---\nname: a\nkind: b\nlow: 1\n---\n{{request}}{{answer}}", "high"),
        ("---\nname: a\nkind: b\nlow: one\nhigh: 5\n---\n{{request}}{{answer}}", "one"),
        ("---\nname: a\nkind: b\nlow: 5\nhigh: 5\n---\n{{request}}{{answer}}", "low 5 is not below high 5"),
        ("---\nname: a\nkind: b\nlow: 1\nhigh: 5\n---\n{{request}}", "{{answer}}"),
    ],
)
def test_a_broken_rubric_is_refused_with_its_file_and_reason(source: str, reason: str) -> None:
    with pytest.raises(BadInput, match=f"^my.md: .*{re.escape(reason)}"):
        parse(source, "my.md")


def test_the_packaged_rubrics_are_sound() -> None:
    scales = {}
    for name in ("additive", "grade-10"):
        rubric = parse(packaged(f"rubrics/{name}.md").read_text(encoding="utf-8"), name)
        scales[rubric.name] = (rubric.low, rubric.high)
    assert scales == {"additive": (1, 5), "grade-10": (1, 10)}


@pytest.mark.skipif(
    not REPLIES.is_file(), reason=f"{REPLIES} is absent: set SELFREWARD_TEST_DATA to the data folder"
)
def test_real_replies_are_read_as_what_they_plainly_say() -> None:
    """Oracle: a reply is `Score: N` and nothing else that matters; all others there must be faults."""
    asked = re.compile(r"up to 100 words\.\s*(?:<\|im_end\|>\s*)?<\|im_start\|>(?:assistant|ai)\n")
    read_ones, faults = 0, 0
    for line in REPLIES.read_text(encoding="utf-8").split("\n"):
        for candidate in json.loads(line)["completion"].values() if line.strip() else []:
            reply = asked.split(candidate["reasoning"], maxsplit=1)[1].split("<|im_end|>")[0]
            said = re.fullmatch(r"\s*Score: ([0-5])(?:<[|a-z_]*)?\s*", reply, re.IGNORECASE)
            score, fault = read(ZERO_FIVE, reply, "stop")
            if said:
                assert (score, fault) == (float(said[1]), None)
                read_ones += 1
            else:
                assert score is None, reply
                faults += 1
    assert (read_ones, faults) == (799, 1)  # the one says 6 of 5
