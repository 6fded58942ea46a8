"""The keys of a recipe that differ from what stored rows were made from, as a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from selfreward.show.console import PIPED, safe, table_of

WIDE = 60  # characters of a value; more says nothing that its beginning does not


def changes(found: Sequence[tuple[str, str, Any, Any]]) -> None:
    """Prints stage, key, the stored value and the present one, on standard error; a stage is named once."""
    table = table_of("stage", "key", "then", "now")
    before = ""
    for stage, key, then, now in found:
        table.add_row(stage if stage != before else "", safe(key), safe(_value(then)), safe(_value(now)))
        before = stage
    width = None if sys.stderr.isatty() else PIPED
    Console(file=sys.stderr, highlight=False, width=width).print(table)


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDE else text[: WIDE - 1] + "…"
