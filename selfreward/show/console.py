"""The one console of the commands, and text made safe for it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfreward.outlook import duration as duration
from selfreward.wording import visible


class _Pipe(Console):
    """A console whose reader may leave early: `selfreward pairs list | head`."""

    def on_broken_pipe(self) -> None:
        """Lets the entry point end quietly."""
        raise BrokenPipeError


console = _Pipe(highlight=False, soft_wrap=False)
BARS = "▁▂▃▄▅▆▇█"
WHOLE = ("id", "prompt id", "of", "margin", "scores", "review", "")  # columns that are never broken
PIPED = 240  # columns of a list that no terminal shows


def safe(text: str | None) -> Text:
    """Text for the terminal: control characters but line ends become visible, nothing is markup."""
    return Text(visible(text or ""))


def short(text: str | None, width: int = 60) -> Text:
    """The beginning of a text on one line, at most `width` cells: a wide character takes two."""
    line = safe(" ".join((text or "")[: 8 * width].split()))
    line.truncate(width, overflow="ellipsis")
    return line


def sparkline(counts: list[int]) -> str:
    """Counts as a row of eight-level bars."""
    top = max(counts) or 1
    return "".join(BARS[min(len(BARS) - 1, round(c / top * (len(BARS) - 1)))] for c in counts)


def rows_of(table: Table, nothing: str = "") -> None:
    """Prints a list: on a terminal in its width, elsewhere a line a row, for grep and cut.

    A terminal reads `nothing` for an empty one; elsewhere it stays the heading alone.
    """
    if nothing and console.is_terminal and not table.row_count:
        console.print(nothing)
        return
    before = console.width
    if not console.is_terminal:
        console.width = max(before, PIPED)
    try:
        console.print(table)
    finally:
        if console.width != before:
            console.width = before


def table_of(*columns: str) -> Table:
    """A table without lines whose ids, numbers and bars, which have no heading, are never broken."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        found.add_column(column, overflow="fold", no_wrap=column in WHOLE)
    return found
