"""Files of one JSON object a line, as people bring them: a bad line is named by file and number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfreward.errors import BadInput


def numbered_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """JSON objects with their line numbers from 1; anything else raises `BadInput` naming its line."""
    found = [(n, json_object(line, f"{path}, line {n}")) for n, line in numbered_lines(path)]
    if not found:
        raise BadInput(f"{path} is empty: one JSON object a line was expected")
    return found


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1.

    They end at newlines alone: JSON may hold other separators as they are.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def json_object(line: str, where: str) -> dict[str, Any]:
    """The object a line holds; `where` names the line in the error."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: a JSON object was expected")
    return row
