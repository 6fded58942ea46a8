"""Files of written prompts: seed instructions, judge examples, held-out prompts, the user's own.

A malformed line is named with its file and number; nothing is skipped in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfreward.errors import BadInput
from selfreward.jsonl import json_object, numbered_lines, numbered_rows


def read_lines(path: Path, required: tuple[str, ...]) -> list[dict[str, Any]]:
    """JSON objects of a JSONL file; see `required_rows`."""
    return [row for _, row in required_rows(path, required)]


def required_rows(path: Path, required: tuple[str, ...]) -> list[tuple[int, dict[str, Any]]]:
    """JSON objects of a JSONL file with their line numbers from 1.

    Raises `BadInput` naming file and line for anything that is not one, or lacks what is required.
    """
    rows = numbered_rows(path)
    for number, row in rows:
        _check(row, required, f"{path}, line {number}")
    return rows


def unique(items: list[str], path: Path) -> list[str]:
    """The items, if no two are equal: an answer is found again by its item. Raises `BadInput` otherwise."""
    twice = next((i for n, i in enumerate(items) if i in items[:n]), None)
    if twice is not None:
        raise BadInput(f"{path} holds {twice[:60]!r} twice")
    return items


def _check(row: dict[str, Any], required: tuple[str, ...], where: str) -> None:
    for key in required:
        if _is_empty(row.get(key)):
            raise BadInput(f"{where}: {key!r} is missing or empty")
        if key in ("prompt", "problem", "judgement") and not isinstance(row[key], str):
            raise BadInput(f"{where}: {key!r} should be text")
        if key == "answer" and not isinstance(row[key], str | int):
            raise BadInput(f"{where}: {key!r} should be text")
        if key == "turns" and not (
            isinstance(row[key], list) and len(row[key]) == 2 and all(map(_is_text, row[key]))
        ):
            raise BadInput(f"{where}: {key!r} should be two texts")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """The user's own prompts as `{"text", "messages", "reference", "checks"}`.

    The file is lines of text, or JSONL with `prompt`, `text` or `messages`.
    """
    found = [_prompt(line.strip(), f"{path}, line {number}") for number, line in numbered_lines(path)]
    if not found:
        raise BadInput(f"{path} is empty: a prompt a line was expected")
    return found


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _prompt(line: str, where: str) -> dict[str, Any]:
    if not line.startswith("{"):
        chat = [{"role": "user", "content": line}]
        return {"text": line, "messages": chat, "reference": None, "checks": None}
    row = json_object(line, where)
    own = {"reference": _reference(row, where), "checks": _checks(row, where)}
    if "messages" in row:
        chat = row["messages"]
        sound = (
            isinstance(chat, list)
            and chat
            and all(
                isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
                for m in chat
            )
        )
        if not sound or chat[-1]["role"] != "user" or not str(chat[-1]["content"]).strip():
            raise BadInput(
                f"{where}: messages should be turns with role and content, the last one the user's"
            )
        return {"text": chat[-1]["content"], "messages": chat} | own
    text = row.get("prompt", row.get("text"))
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{where}: 'prompt' is missing or empty")
    return {"text": text, "messages": [{"role": "user", "content": text}]} | own


def _reference(row: dict[str, Any], where: str) -> str | None:
    """The right answer as text; a number may stand as one."""
    reference = row.get("reference")
    if isinstance(reference, int | float) and not isinstance(reference, bool):
        return str(reference)
    if reference is not None and not isinstance(reference, str):
        raise BadInput(f"{where}: reference should be text or a number")
    return reference


def _checks(row: dict[str, Any], where: str) -> dict[str, Any] | None:
    checks = row.get("checks")
    if checks is not None and not isinstance(checks, dict):
        raise BadInput(f'{where}: checks should be an object, such as {{"tests": "assert f(1) == 2"}}')
    return checks
