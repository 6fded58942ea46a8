"""Rubrics: the text a judge reads, and how the score is read from what the judge wrote.

Pure: text in, text or verdict out. Only the judge's own reply is ever read, never the prompt it was given. A
reply that does not say one clear score within the scale is a fault with its kind, never a guess.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from dataclasses import dataclass

from selfreward.errors import BadInput
from selfreward.protocols import Message

OPENING = "Score:"
LOW_MASS = (
    0.01  # below this share of probability on the scale's numbers the model was not about to give a score
)

_NUMBER = r"-?\d+(?:[.,]\d{1,2})?(?![.,]?\d)"
_STATEMENT = re.compile(r"\bscore\s*(?:[:=]|$)\s*", re.IGNORECASE)
# A statement opens its line or a sentence: "Relevance score: 1" and 'it claims "Score: 5"' are about
# something else.
_OPENS = re.compile(
    r"(?:^|[.!?;:]\s)[^\w'\"“”‘’«»]*(?:(?:my|the|final|overall|total|so|thus|therefore)\W+)*$", re.IGNORECASE
)
_SAYS = re.compile(
    rf"(?P<value>{_NUMBER})(?:\s*(?:/|out of)\s*(?P<top>{_NUMBER}))?(?P<rest>.*)", re.IGNORECASE
)
_MORE = re.compile(r"\d|^\w|^\s*%|⁄")  # a sum, a range, an alternative, a percentage: no single score
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
        return tuple(range(math.ceil(self.low), math.floor(self.high) + 1))


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

    The last line with a `Score:` decides, also when it cannot be read. A range, an alternative, a sum, a
    quotation, or another score on a line of its own is ambiguous.
    """
    if finish != "stop":
        return None, "cut_off"
    plain = _MARKUP.sub("", unicodedata.normalize("NFKC", reply).replace("−", "-"))
    stated = [readings for line in plain.splitlines() if (readings := _readings(rubric, line))]
    if not stated:
        return None, "no_score"
    scores = {score for readings in stated for score, _ in readings if score is not None}
    if len(set(stated[-1])) > 1 or len(scores) > 1:
        return None, "ambiguous"
    return stated[-1][0]


def _readings(rubric: Rubric, line: str) -> list[tuple[float | None, str | None]]:
    """What each `Score:` of a line says, up to the next one."""
    statements = list(_STATEMENT.finditer(line))
    ends = [m.start() for m in statements[1:]] + [len(line)] * bool(statements)
    return [
        _value(rubric, line[: m.start()], line[m.end() : end])
        for m, end in zip(statements, ends, strict=True)
    ]


def _value(rubric: Rubric, before: str, after: str) -> tuple[float | None, str | None]:
    if not _OPENS.search(before):
        return None, "ambiguous"
    said = _SAYS.match(after)
    if not said:
        return None, "no_score"
    if (said["top"] and _number(said["top"]) != rubric.high) or _MORE.search(said["rest"]):
        return None, "ambiguous"
    value = _number(said["value"])
    return (value, None) if rubric.low <= value <= rubric.high else (None, "out_of_scale")


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def expectation(rubric: Rubric, probabilities: list[float]) -> tuple[float | None, str | None]:
    """Mean score under the probabilities of the scale's numbers, renormalised; a fault if they hold no mass.

    The result lies within the scale by construction, rounding included.
    """
    mass = sum(probabilities)
    if not LOW_MASS <= mass < math.inf:  # also when it is not a number
        return None, "no_score"
    mean = sum(s * p for s, p in zip(rubric.scores, probabilities, strict=True)) / mass
    return min(max(mean, rubric.low), rubric.high), None
