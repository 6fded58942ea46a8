r"""Answers that are expressions (`\sqrt{4}`, `2^3`, `x+1`), worked out by math-verify where our rules end.

A fallback and no more: it sees one box that our rules did not read as the right answer, alone, and never a
sentence, a list or alternatives, which it takes for their last part. It runs in processes of its own with a
limit: it needs a main thread, and some expressions do not end.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from selfreward.errors import BadInput
from selfreward.evaluation.reading import Reading, after_thought, last_box
from selfreward.evaluation.saved import Graded

PACKAGE = "math-verify"
SECONDS = 5  # for one expression
LONGEST = 200  # characters of a box that is an answer
_SEVERAL = re.compile(r"\bor\b|\band\b|[,;]|\\text|\\quad|\\pm|\\mp|=")


def installed() -> str:
    """Name and version for the protocol. Raises `BadInput` where the package is missing."""
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        raise BadInput(f"{PACKAGE} is not installed: `pip install 'selfreward[eval]'`") from None


def worked_out(graded: Sequence[Graded], seconds: float = SECONDS) -> list[Graded]:
    """The same marks, but right where the one box of an answer equals the right answer when worked out."""
    asked = [
        (g, i, box, str(graded[g].item.answer))
        for g, one in enumerate(graded)
        for i, mark in enumerate(one.marks)
        if not mark and (box := _box(one.responses[i])) is not None
    ]
    installed()
    equal = _all_equal([(box, answer) for _, _, box, answer in asked], seconds)
    found = list(graded)
    for (g, i, _, _), right in zip(asked, equal, strict=True):
        if right:
            one = found[g]
            readings = (*one.readings[:i], Reading(value=one.item.answer), *one.readings[i + 1 :])
            found[g] = replace(one, readings=readings, marks=(*one.marks[:i], True, *one.marks[i + 1 :]))
    return found


def _box(response: str | None) -> str | None:
    """What is worth working out: the one box of an answer, short, and neither a list nor alternatives."""
    said, fault = after_thought(response or "")
    box = None if fault else last_box(said)
    if box is None or len(box) > LONGEST or _SEVERAL.search(box) or said.count("boxed") != 1:
        return None
    return box


def _all_equal(asked: Sequence[tuple[str, str]], seconds: float) -> list[bool]:
    """Which pairs are equal; one that takes too long is not, and its process is ended."""
    found: list[bool] = []
    while len(found) < len(asked):
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        pool.submit(_equal, "1", "1").result()  # loading the library is not counted
        try:
            for box, answer in asked[len(found) :]:
                found.append(pool.submit(_equal, box, answer).result(seconds))
        except TookTooLong:
            found.append(False)
        finally:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(cancel_futures=True)
    return found


def _equal(box: str, answer: str) -> bool:
    """In a process of its own: whether both are the same when worked out."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${answer}$"), parse(f"${box}$")))
