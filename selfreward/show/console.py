"""The one console of the commands, and text made safe for it."""

from __future__ import annotations

import unicodedata

from rich.console import Console
from rich.table import Table
from rich.text import Text


class _Pipe(Console):
    """A console whose reader may leave early: `selfreward pairs list | head`."""

    def on_broken_pipe(self) -> None:
        """Lets the entry point end quietly."""
        raise BrokenPipeError


console = _Pipe(highlight=False, soft_wrap=False)
BARS = "▁▂▃▄▅▆▇█"


def safe(text: str | None) -> Text:
    """Text for the terminal: control characters but line ends become visible, nothing is markup."""
    shown = []
    for char in text or "":
        if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co"):
            shown.append(char)
        else:
            shown.append(f"\\u{ord(char):04x}")
    return Text("".join(shown))


def short(text: str | None, width: int = 60) -> Text:
    """The beginning of a text on one line."""
    line = " ".join((text or "").split())
    return safe(line if len(line) <= width else line[: width - 1] + "…")


def sparkline(counts: list[int]) -> str:
    """Counts as a row of eight-level bars."""
    top = max(counts) or 1
    return "".join(BARS[min(len(BARS) - 1, round(c / top * (len(BARS) - 1)))] for c in counts)


def table_of(*columns: str) -> Table:
    """A table without lines whose ids are never broken."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        found.add_column(column, overflow="fold", no_wrap=column in ("id", "prompt id"))
    return found


def duration(seconds: float) -> str:
    """Whole minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
