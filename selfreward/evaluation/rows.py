"""Rows of JSONL files that people bring: each with its line number, so that a bad one can be named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfreward.errors import BadInput


def numbered_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """JSON objects with their line numbers from 1; anything else raises `BadInput` naming its line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON may hold other line ends as they are
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    found = [
        (number, _row(line, f"{path}, line {number}")) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not found:
        raise BadInput(f"{path} is empty: one JSON object a line was expected")
    return found


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: a JSON object was expected")
    return row
