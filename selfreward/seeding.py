"""Seed examples from answers that people ranked or rated: what to train on, and what to hold out.

The way of the Self-Rewarding paper (2401.10020, section 2.1), but for one thing: no model writes judgements
here. A score is the quality people gave, put on the scale; where they only ranked there is none.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with its rank among its siblings (0 is the best) and its quality in [0, 1], where given."""

    text: str
    rank: float | None = None
    quality: float | None = None


Groups = dict[str, list[Reply]]


@dataclass(frozen=True, slots=True)
class Seeds:
    """Lines of three files, and how many replies or prompts were left out, by reason."""

    instructions: list[dict[str, Any]]
    judge: list[dict[str, Any]]
    calibration: list[dict[str, Any]]
    left_out: Counter[str]


def groups_of(rows: Sequence[Mapping[str, Any]], lang: str) -> Groups:
    """First turns with their replies, from trees, from the hub's messages, or from rated answers.

    Raises `ValueError` naming the row, from 1, that is none of them.
    """
    found: Groups = {}
    messages = [row for row in rows if "message_id" in row and "role" in row]
    answers: dict[Any, list[Mapping[str, Any]]] = {}
    for row in messages:
        answers.setdefault(row.get("parent_id"), []).append(row)
    for number, row in enumerate(rows, 1):
        if isinstance(row.get("prompt"), dict):
            _add(found, row["prompt"], row["prompt"].get("replies") or [], lang)
        elif "message_id" in row and "role" in row:
            if row.get("parent_id") is None:
                _add(found, row, answers.get(row["message_id"], []), lang)
        elif _is_text(row.get("prompt_text")) and _is_text(row.get("response_text")):
            quality = _unit(row.get("quality_score"))
            if quality is None and row.get("quality_score") is not None:
                raise ValueError(f"row {number}: quality_score should be a number from 0 to 1")
            if row.get("language", lang) == lang:
                reply = Reply(row["response_text"].strip(), None, quality)
                found.setdefault(row["prompt_text"].strip(), []).append(reply)
        else:
            raise ValueError(f"row {number} is no tree, no message and no rated answer")
    return found


def _add(found: Groups, first: Mapping[str, Any], replies: Any, lang: str) -> None:
    """One first turn; a text that was asked twice is taken once, for ranks hold within one tree."""
    if not _usable(first, lang) or first["text"].strip() in found or not isinstance(replies, list):
        return
    kept = [
        r for r in replies if isinstance(r, Mapping) and _usable(r, lang) and r.get("role") == "assistant"
    ]
    found[first["text"].strip()] = [
        Reply(r["text"].strip(), _number(r.get("rank")), _labelled(r)) for r in kept
    ]


def _usable(message: Mapping[str, Any], lang: str) -> bool:
    sound = not message.get("deleted") and message.get("review_result") is not False
    return sound and message.get("lang") == lang and _is_text(message.get("text"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _number(value: Any) -> float | None:
    sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if sound else None


def _unit(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 1 else None


def _labelled(message: Mapping[str, Any]) -> float | None:
    """The mean `quality` label: trees hold {name: {value}}, messages {name: […], value: […]}."""
    labels = message.get("labels")
    if not isinstance(labels, Mapping):
        return None
    if isinstance(labels.get("quality"), Mapping):
        return _unit(labels["quality"].get("value"))
    names, values = labels.get("name"), labels.get("value")
    if isinstance(names, list) and isinstance(values, list):
        return next((_unit(v) for n, v in zip(names, values, strict=False) if n == "quality"), None)
    return None


def build(groups: Groups, seed: int, held_out: float, low: int = 1, high: int = 5) -> Seeds:
    """SFT examples, judge examples and held-out rankings; no prompt is in two of held-out and the rest."""
    rng, left = random.Random(seed), Counter[str]()
    ordered = [p for p, replies in groups.items() if len(set(_ranks(replies).values())) > 1]
    held = set(rng.sample(sorted(ordered), round(held_out * len(ordered))))
    seeds = Seeds([], [], [], left)
    for prompt, replies in groups.items():
        ranks = _ranks(replies)
        if prompt in held:
            texts = [replies[i].text for i in ranks]
            seeds.calibration.append({"prompt": prompt, "responses": texts, "ranks": list(ranks.values())})
            continue
        best = [i for i, rank in ranks.items() if rank == 0]
        if len(best) == 1:
            seeds.instructions.append({"prompt": prompt, "answer": replies[best[0]].text})
        else:
            left["prompts without one best answer"] += 1
        if len(ranks) > 1:
            seeds.judge.extend(_judged(prompt, replies, low, high, left))
    seeds.judge[:] = _thinned(seeds.judge, rng, left)
    return seeds


def _ranks(replies: Sequence[Reply]) -> dict[int, float]:
    """Index of each ordered reply → its rank: people's where there, else by quality, ties sharing one."""
    if any(r.rank is not None for r in replies):
        return {i: r.rank for i, r in enumerate(replies) if r.rank is not None}
    rated = {i: r.quality for i, r in enumerate(replies) if r.quality is not None}
    return {i: float(sum(other > q for other in rated.values())) for i, q in rated.items()}


def score_of(quality: float, low: int, high: int) -> int:
    """The whole score nearest to a quality in [0, 1]; a half goes up."""
    return math.floor(low + quality * (high - low) + 0.5)


def _judged(
    prompt: str, replies: list[Reply], low: int, high: int, left: Counter[str]
) -> list[dict[str, Any]]:
    """A line a rated reply, if no two scores stand against their ranks; otherwise none of the prompt's."""
    rated = [(r, score_of(r.quality, low, high)) for r in replies if r.quality is not None]
    left["answers nobody rated"] += len(replies) - len(rated)
    against = any(
        a.rank is not None and b.rank is not None and a.rank < b.rank and score < other
        for a, score in rated
        for b, other in rated
    )
    if against:
        left["answers whose ratings contradict the ranking"] += len(rated)
        return []
    return [{"prompt": prompt, "answer": r.text, "score": score, "judgement": _said(r)} for r, score in rated]


def _said(reply: Reply) -> str:
    return f"People rated the quality of this answer {reply.quality:.2f} on a scale from 0 to 1."


def _thinned(lines: list[dict[str, Any]], rng: random.Random, left: Counter[str]) -> list[dict[str, Any]]:
    """The commonest score cut to the number of the second commonest, drawn at random, in order."""
    counts = Counter(line["score"] for line in lines).most_common(2)
    if len(counts) < 2 or counts[0][1] == counts[1][1]:
        return lines
    (score, many), (_, second) = counts
    here = [i for i, line in enumerate(lines) if line["score"] == score]
    dropped = set(here) - set(rng.sample(here, second))
    left["answers of the commonest score"] += many - second
    return [line for i, line in enumerate(lines) if i not in dropped]
