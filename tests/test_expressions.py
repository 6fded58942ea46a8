"""math-verify as a fallback: it makes equal expressions right, and nothing else; skipped where it is not."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from selfreward.errors import BadInput
from selfreward.evaluation import expressions, saved
from selfreward.evaluation.suites import KNOWN, Suite, items

there = pytest.mark.skipif(find_spec("math_verify") is None, reason="math-verify is not installed")


def marks(answer: object, *texts: str, suite: Suite | None = None, seconds: float = 30) -> list[Any]:
    """Of one question, after the fallback."""
    known = items([(1, {"id": "a", "problem": "?", "answer": answer})], suite or Suite("own", "own"), "f")
    said = {("a", i): {"response": text} for i, text in enumerate(texts)}
    (found,) = expressions.worked_out(saved.grade(known, said), seconds)
    assert all(
        (m is True) <= (r.value == found.item.answer)
        for m, r in zip(found.marks, found.readings, strict=True)
    )
    return list(found.marks)


@there
def test_an_equal_expression_in_a_box_is_right_and_an_unequal_one_is_not() -> None:
    texts = [r"\boxed{2^3}", r"\boxed{\sqrt{64}}", r"so \boxed{16/2}", r"\boxed{2^4}", r"\boxed{x}", "8"]
    assert [m is True for m in marks(8, *texts)] == [True, True, True, False, False, True]
    assert [m is True for m in marks("x+1", r"\boxed{1+x}", r"\boxed{x-1}")] == [True, False]


@there
def test_alternatives_lists_and_sentences_are_never_worked_out() -> None:
    r"""The library takes "203 or 204" for 204; our rules call it wrong."""
    texts = [
        r"\boxed{203 \text{ or } 204}",
        r"\boxed{203, 204}",
        "I get 203 or 204",
        r"\boxed{203} or \boxed{204}",
    ]
    assert not any(m is True for m in marks(204, *texts, suite=KNOWN["aime24"]))


@there
def test_an_expression_that_takes_too_long_is_left_and_the_next_is_looked_at() -> None:
    assert [m is True for m in marks(8, r"\boxed{9^{9^{9^{9}}}}", r"\boxed{2^3}", seconds=4)] == [False, True]


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "PACKAGE", "no-such-package")
    with pytest.raises(BadInput, match=r"selfreward\[eval\]"):
        expressions.installed()
