"""The report in the run's folder, written anew after each verdict on a policy, beside the run.

A process of its own: whatever happens to it, the run goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

PATIENCE = 60.0  # seconds a finished command waits for its last report


class Refresh:
    """Starts a report for each verdict; one at a time, and a line where one fails."""

    def __init__(self, database: Path, say: Callable[[str], None]) -> None:
        self._database, self._say = database, say
        self._child: subprocess.Popen[str] | None = None
        figures = find_spec("matplotlib") is not None
        self.to = database.parent / ("report.html" if figures else "report.md")

    def __call__(self, policy: str) -> None:
        """Lets a report be written; a store that goes on changing meanwhile does not matter to it."""
        self.wait()
        command = [sys.executable, "-P", "-m", "selfreward.report", str(self._database), str(self.to)]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, errors="replace",
            )  # fmt: skip
            with suppress(OSError):  # it may be done already; models come first
                os.setpriority(os.PRIO_PROCESS, self._child.pid, 10)
        except OSError as error:
            self._say(f"the report was not written: {error}")

    def wait(self) -> bool:
        """Waits for the report that is being written, if any; whether one was written well."""
        child, self._child = self._child, None
        if child is None:
            return False
        try:
            _, said = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            said = f"it took more than {PATIENCE:.0f} s"
        if child.returncode == 0:
            return True
        last = (said.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        self._say(f"the report was not written: {last}")
        return False


@contextmanager
def refreshed(database: Path, say: Callable[[str], None], wanted: bool) -> Iterator[Refresh | None]:
    """A `Refresh` for the time of a command; at its end the last report is there, and where is said."""
    if not wanted:
        yield None
        return
    made = Refresh(database, say)
    try:
        yield made
    finally:
        if made.wait():
            say(f"a report to read or to send: {os.path.relpath(made.to)}")
