"""A judge held against people's ratings: the file read, the judge asked block by block, every verdict kept.

What was said is kept in a file of its own, a line an item, so that the same question again asks only for what
is missing. It knows no run: a judge is a scorer, whoever opened it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward import calibration
from selfreward.calibration import Item, Said, Scale
from selfreward.errors import BadInput
from selfreward.files import sha256_of_text
from selfreward.ids import derive_seed
from selfreward.protocols import Answer, Question, Verdict
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.pairwise import OPENING, Compared, PairwiseJudge
from selfreward.stats import Interval

Judge = JudgeScorer | PairwiseJudge
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The numbers by name, the share of each score, and how many items and verdicts they rest on."""

    numbers: dict[str, Interval | None]
    histogram: dict[str, Interval | None]
    items: int
    asked: int


def read_items(path: Path, limit: int | None = None) -> tuple[list[Item], int]:
    """Rated items of a JSON array or of JSON lines, and how many rows nobody rated.

    With a limit so many, evenly taken from the whole file.

    Raises `BadInput` naming file and place.
    """
    items, unrated = calibration.items_of(_rows(path))
    if limit is not None and limit < len(items):
        items = [items[k * len(items) // limit] for k in range(limit)]
    if not any(len(set(item.worth)) > 1 for item in items):
        raise BadInput(f"{path} holds no two answers to one prompt that people rated differently")
    return items, unrated


def _rows(path: Path) -> list[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if text.lstrip().startswith("["):
        return [(f"{path}, item {k}", row) for k, row in enumerate(_json(text, str(path)), 1)]
    lines = [(f"{path}, line {k}", line) for k, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise BadInput(f"{path} is empty: a JSON array or one JSON object a line was expected")
    return [(where, _json(line, where)) for where, line in lines]


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None


def calibrate(
    judge: Judge, items: Sequence[Item], kept: Kept, *, block: int, most_attacks: int, tell: Told
) -> Calibration:
    """Asks for what is not kept yet, a block at a time, and measures."""
    scale = scale_of(judge)
    attacks = calibration.plan([len(item.answers) for item in items], most_attacks)
    claim = f"{OPENING} A" if scale.pairwise else f"{judge.rubric.opening} {scale.high:g}"
    asked = [("item", k, _question(item.messages, item.answers)) for k, item in enumerate(items)]
    for n, attack in enumerate(attacks):
        item = items[attack.item]
        plain = item.answers[attack.answer]
        both = (plain, calibration.attacked(plain, attack.kind, claim))
        asked.append(("attack", n, _question(item.messages, both)))
    todo = [(kind, k, question) for kind, k, question in asked if (kind, k) not in kept.said]
    for start in range(0, len(todo), block):
        tell(len(asked) - len(todo) + start, len(asked))
        part = todo[start : start + block]
        found = said(judge, [question for _, _, question in part])
        kept.add([((kind, k), one) for (kind, k, _), one in zip(part, found, strict=True)])
    tell(len(asked), len(asked))
    said_of = [kept.said["item", k] for k in range(len(items))]
    swayed = [kept.said["attack", n] for n in range(len(attacks))]
    numbers = calibration.measures(items, said_of, scale, swayed)
    shares = calibration.histogram(items, said_of, scale)
    return Calibration(numbers, shares, len(items), sum(s.asked for s in said_of))


def scale_of(judge: Judge) -> Scale:
    """The scores this judge may give."""
    if isinstance(judge, PairwiseJudge):
        return Scale(0.0, 1.0, pairwise=True)
    return Scale(judge.rubric.low, judge.rubric.high)


def _question(messages: Sequence[dict[str, str]], answers: Sequence[str]) -> Question:
    prompt = json.dumps(list(messages))
    return Question(messages, [Answer(a, "stop", derive_seed("calibrate", prompt, a)) for a in answers])


def said(judge: Judge, questions: Sequence[Question]) -> list[Said]:
    """What the judge says of each question's answers."""
    if isinstance(judge, PairwiseJudge):
        return [
            _compared(judge, len(q.answers), found)
            for q, found in zip(questions, judge.compare(questions), strict=True)
        ]
    return [_scored(verdicts) for verdicts in judge.score(questions)]


def _scored(verdicts: Sequence[Sequence[Verdict]]) -> Said:
    scores = [[v.score for v in row if v.score is not None] for row in verdicts]
    asked = sum(map(len, verdicts))
    means = tuple(sum(row) / len(row) if row else None for row in scores)
    return Said(means, faults=asked - sum(map(len, scores)), asked=asked)


def _compared(judge: PairwiseJudge, n: int, found: Sequence[Compared]) -> Said:
    return Said(
        tuple(v.score for v in judge.standings(n, found)),
        tuple((c.first, c.second, c.preference) for c in found),
        tuple(c.consistent for c in found),
        sum(f is not None for c in found for f in c.faults),
        2 * len(found),
    )


class Kept:
    """What a judge has said so far, in a JSONL file: a line each item, whole blocks at a time.

    A line that a crash left half written is cut off and asked for again. Without a path nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.said: dict[tuple[str, int], Said] = {}
        self._path = path
        if path is not None and path.exists():
            whole = self._read(path.read_bytes())
            if whole < path.stat().st_size:
                os.truncate(path, whole)

    def _read(self, data: bytes) -> int:
        """Takes the lines in; how many bytes of them are whole."""
        whole = 0
        for line in data.splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:
                return whole
            whole += len(line)
            self.said[row["kind"], row["place"]] = Said(
                tuple(row["scores"]),
                tuple((i, j, share) for i, j, share in row["shares"]),
                tuple(row["consistent"]),
                row["faults"],
                row["asked"],
            )
        return whole

    def add(self, found: Sequence[tuple[tuple[str, int], Said]]) -> None:
        """A block, on the disk when it returns."""
        self.said |= dict(found)
        if self._path is None:
            return
        lines = [
            {"kind": kind, "place": place, "scores": s.scores, "shares": s.shares}
            | {"consistent": s.consistent, "faults": s.faults, "asked": s.asked}
            for (kind, place), s in found
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as target:
            target.write("".join(json.dumps(line) + "\n" for line in lines))
            target.flush()
            os.fsync(target.fileno())


def kept_in(folder: Path, decided: dict[str, Any], items: Sequence[Item]) -> Kept:
    """Where the verdicts of a judge on these items are kept: `decided` is all that decides one."""
    data = [[item.messages, item.answers, item.worth] for item in items]
    key = sha256_of_text(json.dumps([decided, data], sort_keys=True))
    return Kept(folder / f"{key[:24]}.jsonl")
