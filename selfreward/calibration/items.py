"""What people said of answers, from rows in the shapes such data comes in.

    input, output_1, output_2, label              label 1 or 2 names the better one, 0 a tie
    instruction, input, response1, response2, annotator1, annotator2, …      the same by several people
    prompt, chosen, rejected                      texts, or chats of which the last turn is the answer
    prompt, responses, ranks                      the lowest rank is the best
    prompt_text, response_text, quality_score     rows of one prompt belong together, the highest is the best

`instruction` and `question` serve as `prompt`; an `input` beside an instruction is put under it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.errors import BadInput
from selfreward.protocols import Message

SHAPES = (
    "input/output_1/output_2/label, instruction/response1/response2/annotator1, chosen/rejected, "
    "prompt/responses/ranks or prompt_text/response_text/quality_score"
)


@dataclass(frozen=True, slots=True)
class Item:
    """A request with its answers and what each was worth to people: higher is better, equal is a tie."""

    messages: tuple[Message, ...]
    answers: tuple[str, ...]
    worth: tuple[float, ...]

    @property
    def prompt(self) -> str:
        """The request in words: what items are clustered by."""
        return "\n\n".join(m["content"] for m in self.messages)


def items_of(rows: Sequence[tuple[str, Any]]) -> tuple[list[Item], int]:
    """Items in the order they first appear, and how many rows nobody rated: these (null) are left out.

    Each row comes with its place in words. Raises `BadInput` naming the place of a row that has none of the
    shapes, or a value of the wrong kind.
    """
    found: list[Item] = []
    unrated = 0
    rated: dict[str, list[tuple[str, float]]] = {}
    places: dict[str, int] = {}
    for where, row in rows:
        if not isinstance(row, dict):
            raise BadInput(f"{where}: a JSON object was expected")
        if "response_text" in row and row.get("quality_score", 0) is None:
            unrated += 1
        elif "response_text" in row or "quality_score" in row:
            prompt = _text(row, "prompt_text", where)
            if prompt not in rated:
                rated[prompt], places[prompt] = [], len(found)
                found.append(Item(_chat(prompt), (), ()))
            rated[prompt].append((_text(row, "response_text", where), _number(row, "quality_score", where)))
        else:
            found.append(_item(row, where))
    for prompt, answers in rated.items():
        texts, worth = zip(*answers, strict=True)
        found[places[prompt]] = Item(_chat(prompt), texts, worth)
    return found, unrated


def _item(row: dict[str, Any], where: str) -> Item:
    if "output_1" in row and "output_2" in row:
        return _two(row, ("output_1", "output_2"), [row.get("label")], where)
    if "response1" in row and "response2" in row:
        said = [v for k, v in sorted(row.items()) if k.startswith("annotator")]
        return _two(row, ("response1", "response2"), said or [row.get("label")], where)
    if "chosen" in row and "rejected" in row:
        return _chosen(row, where)
    if "responses" in row and "ranks" in row:
        return _ranked(row, where)
    raise BadInput(f"{where}: no shape that is known: {SHAPES}")


def _two(row: dict[str, Any], keys: tuple[str, str], labels: list[Any], where: str) -> Item:
    """Two answers by what most people said; without a most said it is a tie."""
    votes = Counter(_label(value, where) for value in labels)
    (best, n), *others = votes.most_common()
    winner = 0 if others and others[0][1] == n else best
    worth = {0: (0.0, 0.0), 1: (1.0, 0.0), 2: (0.0, 1.0)}[winner]
    return Item(_chat(_prompt(row, where)), (_said(row, keys[0], where), _said(row, keys[1], where)), worth)


def _label(value: Any, where: str) -> int:
    if isinstance(value, bool) or str(value) not in ("0", "1", "2"):
        raise BadInput(f"{where}: label {value!r} is none of 1, 2 and 0 for a tie")
    return int(value)


def _chosen(row: dict[str, Any], where: str) -> Item:
    answers = (_answer(row, "chosen", where), _answer(row, "rejected", where))
    chosen = row["chosen"]
    if isinstance(chosen, list) and not any(k in row for k in ("prompt", "instruction", "question", "input")):
        chat = tuple(_turns(chosen[:-1], "chosen", where))
    elif isinstance(row.get("prompt"), list):
        chat = tuple(_turns(row["prompt"], "prompt", where))
    else:
        chat = _chat(_prompt(row, where))
    if not chat:
        raise BadInput(f"{where}: 'prompt' is missing")
    return Item(chat, answers, (1.0, 0.0))


def _ranked(row: dict[str, Any], where: str) -> Item:
    responses, ranks = row["responses"], row["ranks"]
    if not isinstance(responses, list) or not isinstance(ranks, list) or len(responses) != len(ranks):
        raise BadInput(f"{where}: 'responses' and 'ranks' should be lists of one length")
    if len(responses) < 2 or not all(isinstance(r, str) for r in responses):
        raise BadInput(f"{where}: 'responses' should be at least two texts")
    worth = tuple(-_number({"ranks": rank}, "ranks", where) for rank in ranks)
    return Item(_chat(_prompt(row, where)), tuple(responses), worth)


def _chat(prompt: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": prompt},)


def _prompt(row: dict[str, Any], where: str) -> str:
    """The request, with the material it is about under it."""
    for key in ("prompt", "instruction", "question"):
        if key in row:
            more = row.get("input")
            asked = _text(row, key, where)
            return f"{asked}\n\n{more}" if isinstance(more, str) and more.strip() else asked
    return _text(row, "input", where)


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise BadInput(f"{where}: {key!r} is missing or no text")
    return value


def _said(row: dict[str, Any], key: str, where: str) -> str:
    """A text; true, false and bare numbers were one too (PandaLM's has them); null says nothing."""
    value = row.get(key)
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float) else _text(row, key, where)


def _answer(row: dict[str, Any], key: str, where: str) -> str:
    """A text, or the last turn of a chat."""
    value = row[key]
    if isinstance(value, list) and value:
        return _turns(value, key, where)[-1]["content"]
    return _text(row, key, where)


def _turns(value: list[Any], key: str, where: str) -> list[Message]:
    for turn in value:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(k), str) for k in ("role", "content")):
            raise BadInput(f"{where}: {key!r} should be turns with role and content")
    return [{"role": t["role"], "content": t["content"]} for t in value]


def _number(row: dict[str, Any], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{where}: {key!r} should be a number")
    return float(value)
