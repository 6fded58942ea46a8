"""The progress of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from selfreward.show.console import console, duration, safe


class _Bars:
    """Progress for a terminal: one bar for the stage that runs, a line for each that is done."""

    def __init__(self, bars: Progress) -> None:
        self._bars, self._name, self._start = bars, "", 0.0
        self._task: TaskID | None = None

    def begin(self, policy: str, stage: str, done: int, total: int | None) -> None:
        self._name, self._start = f"{policy} {stage}", time.monotonic()
        self._task = self._bars.add_task(self._name, total=total, completed=done, rate="")

    def advance(self, done: int, total: int | None, tokens: int) -> None:
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = f"{tokens / seconds:.0f} tokens/s" if tokens else ""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, rate=rate)

    def end(self, note: str) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._bars.console.print(
            safe(f"{self._name:<14} {note} ({duration(time.monotonic() - self._start)})")
        )

    def say(self, text: str) -> None:
        self._bars.console.print(safe(text))


class _Lines:
    """Progress for a log: a line when a stage starts, at most one every ten seconds, and one when it ends."""

    EVERY = 10.0

    def __init__(self) -> None:
        self._name, self._start, self._last = "", 0.0, 0.0

    def begin(self, policy: str, stage: str, done: int, total: int | None) -> None:
        self._name, self._start, self._last = f"{policy} {stage}", time.monotonic(), time.monotonic()

    def advance(self, done: int, total: int | None, tokens: int) -> None:
        if time.monotonic() - self._last < self.EVERY:
            return
        self._last = time.monotonic()
        of = f" of {total}" if total else ""
        print(f"{self._name:<14} {done}{of}", flush=True)

    def end(self, note: str) -> None:
        print(f"{self._name:<14} {note} ({duration(time.monotonic() - self._start)})", flush=True)

    def say(self, text: str) -> None:
        print(safe(text).plain, flush=True)


@contextmanager
def terminal_progress() -> Iterator[Any]:
    """Bars on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[rate]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)


class _Aside(_Lines):
    """Progress beside JSON: what is said goes to standard error, counts are left out."""

    def advance(self, done: int, total: int | None, tokens: int) -> None:
        pass

    def end(self, note: str) -> None:
        pass

    def say(self, text: str) -> None:
        print(safe(text).plain, file=sys.stderr, flush=True)


@contextmanager
def quiet_progress() -> Iterator[Any]:
    """Progress that leaves standard output to JSON."""
    yield _Aside()
