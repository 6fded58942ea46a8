"""The answer a text states, for scorers that compare answers: a number or a few words."""

from __future__ import annotations

from fractions import Fraction

from selfreward.evaluation.reading import Reading, number, phrase


def stated(kind: str, text: str, finish: str = "stop") -> Reading:
    """What the text states as its answer; `kind` is `number` or `text`. What stands in `<answer>` decides."""
    return (number if kind == "number" else phrase)(tagged(text), finish)


def tagged(text: str) -> str:
    """What stands between the last `<answer>` and its `</answer>`, or the whole text."""
    _, opened, rest = text.rpartition("<answer>")
    inside, closed, _ = rest.partition("</answer>")
    return inside if opened and closed and inside.strip() else text


def right_answer(kind: str, reference: str | None) -> Fraction | str | None:
    """The value of a reference; None where there is none, or it states none."""
    return stated(kind, reference).value if reference else None
