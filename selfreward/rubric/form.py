"""The rubric file: front matter, text with place-holders, and the judge's chat made from them.

The front matter is YAML: `name`, `kind`, `low`, `high` for every rubric; `opening` where a scalar one states
its score under another word than `Score:`; `aspects` (name: weight) or `items` (a list) for the kinds so
named.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from selfreward.errors import BadInput
from selfreward.protocols import Message

OPENING = "Score:"
SCALAR = ("additive", "direct")  # one number, stated last after the opening
KINDS = (*SCALAR, "aspects", "checklist", "pairwise")
KEYS = ("name", "kind", "low", "high", "opening", "aspects", "items")

_SLOTS = {"pairwise": ("request", "answer_a", "answer_b"), "checklist": ("request", "answer", "items")}


@dataclass(frozen=True, slots=True)
class Rubric:
    """A rubric file: its scale, its text with place-holders, and what kind of reply it asks for."""

    name: str
    kind: str
    low: float
    high: float
    text: str
    opening: str = OPENING
    aspects: tuple[tuple[str, float], ...] = ()  # name and weight, in the order they were written
    items: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Of what decides a score. A key that is not used adds nothing, so that hashes outlive new keys."""
        decided = f"{self.kind}|{self.low}|{self.high}|{self.text}"
        more = [self.opening, self.aspects, self.items]
        if more != [OPENING, (), ()]:
            decided += f"|{json.dumps(more)}"
        return hashlib.sha256(decided.encode()).hexdigest()

    @property
    def scores(self) -> tuple[int, ...]:
        """The whole numbers of the scale, ascending."""
        return tuple(range(math.ceil(self.low), math.floor(self.high) + 1))


def parse(source: str, where: str) -> Rubric:
    """Reads a rubric file. Raises `BadInput` naming file and reason."""
    match = re.match(r"---\n(?P<head>.*?)\n---\n(?P<body>.*)", source.replace("\r\n", "\n"), re.DOTALL)
    if not match:
        raise BadInput(
            f"{where}: no front matter; a rubric starts with --- and the keys name, kind, low, high"
        )
    head = _head(match["head"], where)
    try:
        rubric = Rubric(
            str(head["name"]),
            str(head["kind"]),
            _number(head["low"]),
            _number(head["high"]),
            match["body"].strip(),
            str(head.get("opening", OPENING)),
            tuple((str(k), _number(v)) for k, v in dict(head.get("aspects") or {}).items()),
            tuple(str(item) for item in head.get("items") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{where}: front matter is missing or wrong: {error}") from None
    if fault := _fault(rubric):
        raise BadInput(f"{where}: {fault}")
    return rubric


def _head(text: str, where: str) -> dict[str, Any]:
    try:
        head = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{where}: front matter is not YAML: {reason}") from None
    if not isinstance(head, dict):
        raise BadInput(f"{where}: front matter should be lines of `key: value`")
    unknown = [str(key) for key in head if key not in KEYS]
    if unknown:
        raise BadInput(f"{where}: {unknown[0]!r} is no key of a rubric; there are {', '.join(KEYS)}")
    return head


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")
    return float(value)


def _fault(rubric: Rubric) -> str | None:
    """Why a rubric that was read cannot be used, or None."""
    if not rubric.low < rubric.high:
        return f"low {rubric.low:g} is not below high {rubric.high:g}"
    if not math.isfinite(rubric.high - rubric.low):
        return "low and high should be finite"
    if not re.fullmatch(r"[^\W\d_][^\W\d_ -]*(?:[ -][^\W\d_]+)*:", rubric.opening):
        return f"opening {rubric.opening!r} should be words and a colon, as in {OPENING!r}"
    for slot in _SLOTS.get(rubric.kind, ("request", "answer")):
        if f"{{{{{slot}}}}}" not in rubric.text:
            return f"the text has no {{{{{slot}}}}}"
    if rubric.kind not in KINDS:
        return f"kind {rubric.kind!r} is none of {', '.join(KINDS)}"
    if (rubric.kind == "aspects") != bool(rubric.aspects):
        return "`aspects` (name: weight) belongs to kind aspects, and to it alone"
    if (rubric.kind == "checklist") != bool(rubric.items):
        return "`items` (a list of statements) belongs to kind checklist, and to it alone"
    if rubric.kind == "pairwise" and (rubric.low, rubric.high) != (0, 1):
        return "a pairwise rubric has low 0 (B is better) and high 1 (A is better)"
    return _aspect_fault(rubric)


def _aspect_fault(rubric: Rubric) -> str | None:
    for name, weight in rubric.aspects:
        if not 0 < weight < math.inf:
            return f"aspect {name!r} has weight {weight:g}: weights are above 0"
        if name.casefold() not in rubric.text.casefold():
            return f"the text does not ask for aspect {name!r}"
    return None


def render(rubric: Rubric, chat: list[Message], answer: str, reference: str | None = None) -> list[Message]:
    """The judge's chat about one answer.

    Texts go in by one pass: what a candidate contains is never taken for a place-holder.
    """
    return _fill(rubric, {"answer": answer}, chat, reference)


def render_pair(
    rubric: Rubric, chat: list[Message], first: str, second: str, reference: str | None = None
) -> list[Message]:
    """The judge's chat about two answers: `first` is shown as A, `second` as B. Ask in both orders."""
    return _fill(rubric, {"answer_a": first, "answer_b": second}, chat, reference)


def _fill(
    rubric: Rubric, answers: dict[str, str], chat: list[Message], reference: str | None
) -> list[Message]:
    values = {"request": transcript(chat), "reference": reference or "none given", **answers}
    if rubric.items:
        values["items"] = "\n".join(f"{i}. {item}" for i, item in enumerate(rubric.items, 1))
    text = re.sub(rf"\{{\{{({'|'.join(values)})\}}\}}", lambda m: values[m[1]], rubric.text)
    return [{"role": "user", "content": text}]


def transcript(chat: list[Message]) -> str:
    """A chat as text: a single user turn as it stands, several with their speakers."""
    if len(chat) == 1:
        return chat[0]["content"]
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in chat)
