"""Checking integer answers: right, wrong, or unread; a right answer is never marked wrong for its form."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.evaluation.integers import check

RIGHT, WRONG, UNREAD = (1.0, None), (0.0, None), (None, "no_answer")
DATA = Path(os.environ.get("SELFREWARD_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
GSM8K = DATA / "gsm8k" / "test.jsonl"

universal = settings(deadline=None, derandomize=True, max_examples=200)


@pytest.mark.parametrize(
    "text",
    [
        "42", "The answer is 42.", "**42**", "$42$", "= 42", "42.0", "42.", "So 6 x 7 = 42", "$42 in all",
        "**Answer:** 42\n\nI hope so!", "6 or 7?\nNo: 42", r"\boxed{42}", r"so \boxed{ 42 } it is, not 43",
        r"\boxed{41}, no, \boxed{42}", "42 books", "First 3, then 4:\n42", r"It is \boxed{\text{42}}",
    ],
)  # fmt: skip
def test_the_last_stated_integer_is_the_answer(text: str) -> None:
    assert check(text, 42) == RIGHT
    assert check(text, 43) == WRONG


@pytest.mark.parametrize(
    "text", ["Half of 84 is 84/2 = 42", "84 / 2 = 42 books", "She had 1/2 of 84, so 42", "On 1/2 it was 42."]
)
def test_a_division_on_the_line_is_no_alternative(text: str) -> None:
    assert check(text, 42) == RIGHT


@pytest.mark.parametrize(
    "text",
    [
        "203 or 204", "either 203 or 204", r"\boxed{203, 204}", "It is 203 or 204.", "203, or 204", "203/204",
        "$203$ or $204$", "**203** or **204**", r"\boxed{203 \text{ or } 204}", "203-204", "203 – 204",
    ],
)  # fmt: skip
def test_alternatives_are_no_answer_whichever_of_them_is_right(text: str) -> None:
    assert check(text, 203)[0] != 1.0
    assert check(text, 204)[0] != 1.0


@pytest.mark.parametrize(
    "text", ["", "I do not know.", "x2", "3.5", "It is 0.75.", "3rd", "1e5", r"\boxed{x}"]
)
def test_a_text_without_an_integer_is_unread_and_not_wrong(text: str) -> None:
    """Guards: a parse failure that becomes a score."""
    assert check(text, 42) == UNREAD


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("It costs 1,234.56", 1234), ("It costs 1,234.50 in all", 1234), (r"\boxed{\frac{1}{2}}", 2),
        (r"\boxed{3.5}", 3), ("0.42", 42), ("−5", 5), ("-5", 5), (r"\boxed{1{,}234}", 234),
    ],
)  # fmt: skip
def test_a_part_of_a_number_is_not_the_answer(text: str, part: int) -> None:
    assert check(text, part)[0] != 1.0


@pytest.mark.parametrize("text", ["-5", "x = -5", r"\boxed{-5}", "−5", "$-5$", "It is −5 degrees"])
def test_a_minus_is_part_of_the_number(text: str) -> None:
    assert check(text, -5) == RIGHT


@given(value=st.integers(-(10**12), 10**12))
@universal
def test_every_integer_is_read_as_itself_with_or_without_separators(value: int) -> None:
    for text in (f"The answer is {value}.", f"The answer is {value:,}.", rf"\boxed{{{value:,}}}"):
        assert check(text, value) == RIGHT
        assert check(text, value + 1) == WRONG


def test_a_number_beyond_the_floats_is_exact() -> None:
    assert check("12345678901234567891", 12345678901234567891) == RIGHT


def test_a_runaway_of_digits_is_wrong_and_no_crash() -> None:
    assert check("9" * 400, 42) == WRONG


@given(
    text=st.text(st.sampled_from("0123456789.,-/$* \n\\boxed{}or"), max_size=40), answer=st.integers(-9, 9)
)
@universal
def test_any_text_is_right_wrong_or_unread(text: str, answer: int) -> None:
    assert check(text, answer) in (RIGHT, WRONG, UNREAD)


@pytest.mark.skipif(
    not GSM8K.is_file(), reason=f"{GSM8K} is absent: set SELFREWARD_TEST_DATA to the data folder"
)
def test_written_solutions_are_marked_right() -> None:
    """Every GSM8K solution is right; a few name another number after the answer."""
    marks = []
    for line in GSM8K.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            solution, _, answer = json.loads(line)["answer"].partition("#### ")
            marks.append(check(re.sub(r"<<.*?>>", "", solution), int(answer.replace(",", ""))))
    assert len(marks) == 1319
    assert sum(m == RIGHT for m in marks) / len(marks) > 0.93
