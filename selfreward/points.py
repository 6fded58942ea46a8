"""Points where a run can be cut off: commits, files, children, steps and checkpoints pass one each.

Nothing happens at them unless SELFREWARD_FAULTS is set, as the fault harness does (tests/nursery.py). It is a
JSON object. `log` names a file that gets a line a point: time in ns, name, kind, thing, its inode and size.
`at` lists patterns of names, `do` what happens there: `kill` (this process, as by kill -9), `kill all` (its
group), `stop` (its group stands still until it is told to go on), `full` (the disk is), or signals to the
group by name, a second apart; `hold` is how many seconds the process then stands still. `above` makes a batch
of more rows than that too much for the memory.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections import Counter
from errno import ENOSPC
from fnmatch import fnmatchcase
from typing import Any

VARIABLE = "SELFREWARD_FAULTS"
PLUMBING = ("selfreward.points", "selfreward.files", "selfreward.store")  # points are named by who uses them


class Plan:
    """What the harness asked of this process; a point's name is the same in every run of one recipe."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._role = " ".join(filter(None, (told.get("role", "driver"), os.environ.get("RANK"))))
        self._seen: Counter[str] = Counter()

    def reach(self, kind: str, thing: str) -> None:
        """Names the point, writes it down, and does what was asked for here."""
        short = re.sub(r"\.\d+\.part\b|-\d+$", "", "/".join(thing.split("/")[-2:]))
        name = f"{self._role}: {kind} {short} in {_user()}"
        self._seen[name] += 1
        name = f"{name} #{self._seen[name]}"
        if kind == "start":  # the child's own points are told apart by which start it came from
            self._seen["starts"] += 1
            role = f"{thing.removeprefix('selfreward.')} {self._seen['starts']}"
            os.environ[VARIABLE] = json.dumps(self._told | {"role": role})
        if log := self._told.get("log"):
            with open(log, "a", encoding="utf-8") as out:
                out.write(json.dumps([time.time_ns(), name, kind, thing, *_identity(thing)]) + "\n")
        if any(fnmatchcase(name, pattern) for pattern in self._told.get("at", ())):
            _do(self._told.get("do", ""), thing)
            time.sleep(self._told.get("hold", 0.0))
        if kind == "batch" and int(thing) > self._told.get("above", int(thing)):
            raise MemoryError(f"a batch of {thing} rows")


def _identity(thing: str) -> tuple[int, int]:
    """Inode and size of a file or folder, 0 where there is none."""
    try:
        found = os.stat(thing)
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


def _user() -> str:
    """The nearest function that is at work here, below the plumbing."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        module = frame.f_globals.get("__name__", "")
        if module.startswith("selfreward.") and not module.startswith(PLUMBING):
            return f"{module.rpartition('.')[2]}.{frame.f_code.co_name}"
    return "?"


def _do(what: str, thing: str) -> None:
    match what:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill all":
            os.killpg(0, signal.SIGKILL)
        case "stop":
            os.killpg(0, signal.SIGSTOP)
        case "full":
            raise OSError(ENOSPC, os.strerror(ENOSPC), thing)
        case _:
            for name in what.split():
                os.killpg(0, signal.Signals[name])
                time.sleep(1.0)


def plan() -> Plan | None:
    """The plan in the environment, if there is one."""
    told = os.environ.get(VARIABLE)
    return Plan(json.loads(told)) if told else None


PLAN = plan()


def reach(kind: str, thing: object = "") -> None:
    """This process is at a point of that kind: commit, write, fsync, rename, start, batch, step, save."""
    if PLAN is not None:
        PLAN.reach(kind, str(thing))
