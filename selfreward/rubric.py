"""Rubrics: the text a judge reads, and how the score is read from what the judge wrote.

Pure: text in, text or verdict out. Only the judge's own reply is ever read, never the prompt it was given. A
reply that does not say one clear score within the scale is a fault with its kind, never a guess.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

from selfreward.errors import BadInput
from selfreward.protocols import Message

OPENING = "Score:"
LOW_MASS = (
    0.01  # below this share of probability on the scale's numbers the model was not about to give a score
)

_NUMBER = r"[+-]?\d+(?:[.,]\d+)?"
_STATEMENT = re.compile(rf"\bscore\s*[:=]\s*(?P<value>{_NUMBER})(?P<rest>[^\n]*)", re.IGNORECASE)
_OUT_OF = re.compile(rf"^\s*(?:/|out of)\s*(?P<top>{_NUMBER})(?![\d.,]*\d)", re.IGNORECASE)
_CONTINUED = re.compile(r"^\s*(?:-|–|—|~|/|,|or|to|and|\.\.+|…)\s*[+-]?\d|^[\w%]", re.IGNORECASE)
_MARKUP = re.compile(r"[*_`#]")


@dataclass(frozen=True, slots=True)
class Rubric:
    """A rubric file: its scale and its text with `{{request}}`, `{{answer}}` and perhaps `{{reference}}`."""

    name: str
    kind: str
    low: float
    high: float
    text: str

    @property
    def sha256(self) -> str:
        """Of the text and the scale: what decides a score."""
        return hashlib.sha256(f"{self.kind}|{self.low}|{self.high}|{self.text}".encode()).hexdigest()

    @property
    def scores(self) -> tuple[int, ...]:
        """The whole numbers of the scale, ascending."""
        return tuple(range(int(self.low), int(self.high) + 1))


def parse(source: str, where: str) -> Rubric:
    """Reads a rubric with front matter `name`, `kind`, `low`, `high`.

    Raises `BadInput` naming file and reason.
    """
    match = re.match(r"---\n(?P<head>.*?)\n---\n(?P<body>.*)", source, re.DOTALL)
    if not match:
        raise BadInput(
            f"{where}: no front matter; a rubric starts with --- and the keys name, kind, low, high"
        )
    head = dict(line.split(":", 1) for line in match["head"].splitlines() if ":" in line)
    fields = {k.strip(): v.strip() for k, v in head.items()}
    try:
        rubric = Rubric(
            fields["name"], fields["kind"], float(fields["low"]), float(fields["high"]), match["body"].strip()
        )
    except (KeyError, ValueError) as error:
        raise BadInput(f"{where}: front matter is missing or wrong: {error}") from None
    if not rubric.low < rubric.high:
        raise BadInput(f"{where}: low {rubric.low:g} is not below high {rubric.high:g}")
    for slot in ("{{request}}", "{{answer}}"):
        if slot not in rubric.text:
            raise BadInput(f"{where}: the text has no {slot}")
    return rubric


def render(rubric: Rubric, chat: list[Message], answer: str, reference: str | None = None) -> list[Message]:
    """The judge's chat.

    Texts go in by one pass: what a candidate contains is never taken for a place-holder.
    """
    values = {"request": transcript(chat), "answer": answer, "reference": reference or "none given"}
    text = re.sub(r"\{\{(request|answer|reference)\}\}", lambda m: values[m[1]], rubric.text)
    return [{"role": "user", "content": text}]


def transcript(chat: list[Message]) -> str:
    """A chat as text: a single user turn as it stands, several with their speakers."""
    if len(chat) == 1:
        return chat[0]["content"]
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in chat)


def read(rubric: Rubric, reply: str, finish: str) -> tuple[float | None, str | None]:
    """The score the reply states, or the kind of fault: `cut_off`, `no_score`, `ambiguous`, `out_of_scale`.

    The last line with a `Score: N` decides; a range, an alternative or a second, different number on it is
    ambiguous.
    """
    if finish != "stop":
        return None, "cut_off"
    plain = _MARKUP.sub("", unicodedata.normalize("NFKC", reply))
    for line in reversed(plain.splitlines()):
        readings = [_value(rubric, m) for m in _statements(line)]
        if readings:
            return readings[0] if len(set(readings)) == 1 else (None, "ambiguous")
    return None, "no_score"


def _statements(line: str) -> list[re.Match[str]]:
    found = []
    at = 0
    while match := _STATEMENT.search(line, at):
        found.append(match)
        at = match.end("value")
    return found


def _value(rubric: Rubric, match: re.Match[str]) -> tuple[float | None, str | None]:
    rest = match["rest"]
    out_of = _OUT_OF.match(rest)
    if out_of:
        if _number(out_of["top"]) != rubric.high:
            return None, "ambiguous"
        rest = rest[out_of.end() :]
    if _CONTINUED.match(rest):
        return None, "ambiguous"
    value = _number(match["value"])
    return (value, None) if rubric.low <= value <= rubric.high else (None, "out_of_scale")


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def expectation(rubric: Rubric, probabilities: list[float]) -> tuple[float | None, str | None]:
    """Mean score under the probabilities of the scale's numbers, renormalised; a fault where they hold no mass.

    The result lies within the scale by construction, rounding included.
    """
    mass = sum(probabilities)
    if not mass >= LOW_MASS:  # also when it is not a number
        return None, "no_score"
    mean = sum(s * p for s, p in zip(rubric.scores, probabilities, strict=True)) / mass
    return min(max(mean, rubric.low), rubric.high), None
