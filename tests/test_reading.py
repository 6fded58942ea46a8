"""Reading answers: 0 wrong on labelled strings; alternatives are wrong, silence is a fault."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.evaluation import reading
from tests.labelled_answers import INTEGERS, NUMBERS, PHRASES, RIGHT, UNREAD, WRONG

SAMPLED = [
    json.loads(line)
    for line in (Path(__file__).parent / "sampled_answers.jsonl").read_text(encoding="utf-8").splitlines()
]
universal = settings(deadline=None, derandomize=True, max_examples=150)


def mark(read: reading.Reading, answer: object) -> str:
    return UNREAD if read.fault else RIGHT if read.value == answer else WRONG


@pytest.mark.parametrize(("text", "label"), INTEGERS)
def test_an_integer_answer_is_marked_as_a_reader_would(text: str, label: str) -> None:
    assert mark(reading.integer(text), 204) == label


@pytest.mark.parametrize(("text", "answer", "label"), NUMBERS)
def test_a_number_answer_is_marked_as_a_reader_would(text: str, answer: str, label: str) -> None:
    assert mark(reading.number(text), Fraction(answer)) == label


@pytest.mark.parametrize(("text", "answer", "label"), PHRASES)
def test_an_answer_in_words_is_marked_as_a_reader_would(text: str, answer: str, label: str) -> None:
    assert mark(reading.phrase(text), reading.plain_words(answer)) == label


@pytest.mark.parametrize("row", SAMPLED, ids=range(len(SAMPLED)))
def test_what_policies_really_said_is_marked_as_a_reader_would(row: dict[str, str]) -> None:
    """Sampled by M0 and M3 of the demo, to our own problems; labelled by the problem's right answer."""
    assert mark(reading.number(row["text"], row["finish"]), Fraction(row["answer"])) == row["label"]


def test_there_are_enough_labelled_answers() -> None:
    every = [t for t, _ in INTEGERS] + [t for t, _, _ in NUMBERS] + [t for t, _, _ in PHRASES]
    assert len(every) + len(SAMPLED) >= 300 and len({row["text"] for row in SAMPLED}) >= 100
    assert all(
        sum(row[-1] == label for row in [*INTEGERS, *NUMBERS]) >= 15 for label in (RIGHT, WRONG, UNREAD)
    )


@pytest.mark.parametrize("text", [t for t, label in INTEGERS if label == RIGHT])
def test_a_right_answer_is_wrong_for_another_question(text: str) -> None:
    """Guards: a checker that looks for the answer anywhere in the text."""
    assert mark(reading.integer(text), 205) == WRONG


@given(value=st.integers(0, 999))
@universal
def test_every_integer_up_to_999_is_read_as_itself(value: int) -> None:
    for text in (
        f"\\boxed{{{value}}}",
        f"so \\boxed{{{value:03d}}}.",
        f"The answer is {value}.",
        f"n = {value}",
    ):
        assert reading.integer(text).value == value


@given(value=st.integers(1000, 10**9), sign=st.sampled_from(["", "-"]))
@universal
def test_no_integer_beyond_999_is_ever_right_nor_a_part_of_it(value: int, sign: str) -> None:
    for text in (f"\\boxed{{{sign}{value}}}", f"It is {sign}{value:,}.", f"{sign}{value}"):
        assert reading.integer(text) == reading.WRONG


@given(value=st.decimals(-(10**9), 10**9, places=2))
@universal
def test_every_decimal_is_read_as_itself_in_all_notations(value: object) -> None:
    said = (f"#### {value}", f"The total is ${value:,}.", f"\\boxed{{{value}}}", f"= {value} dollars")
    for text in said:
        assert reading.number(text).value == Fraction(str(value)), text


@given(text=st.text(st.sampled_from("0123456789.,-/$* \n\\boxed{}or#=^_%"), max_size=60))
@universal
def test_any_text_is_a_value_or_wrong_or_a_fault(text: str) -> None:
    for read in (reading.integer(text), reading.number(text), reading.phrase(text)):
        assert read.value is None or read.fault is None
    whole = reading.integer(text).value
    assert whole is None or (isinstance(whole, Fraction) and whole.denominator == 1 and 0 <= whole <= 999)


@pytest.mark.parametrize("rule", [reading.integer, reading.number, reading.phrase])
def test_a_cut_off_answer_is_read_only_from_its_box(rule: object) -> None:
    assert rule("so far 203", "length") == reading.CUT_OFF  # type: ignore[operator]
    assert rule("so \\boxed{204} and then", "length").value in (Fraction(204), "204")  # type: ignore[operator]


def test_a_thought_is_not_an_answer() -> None:
    assert reading.integer("<think>\\boxed{203}</think>It is 204.").value == 204
    assert reading.integer("\\boxed{203}</think>It is 204.").value == 204  # the template opened it
    assert reading.integer("<think>It is 204") == reading.CUT_OFF
    assert reading.integer("<think>It is 204.</think>") == reading.UNREAD


@pytest.mark.parametrize(
    "text",
    ["a" * 50_000, "7 " * 5_000, "7," * 20_000, "\\boxed{" * 5_000, "x\n" * 20_000, "7/" * 20_000,
     "#" * 50_000, "- " * 20_000 + "3", "(" * 20_000, "9" * 50_000, "\\boxed{a" * 3_000, "1. x\n" * 10_000],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    reading.number(text)
    reading.phrase(text)
    assert time.process_time() - start < 2.0
