"""Kills a whole run at every point it passes and at random moments, starts it again, and counts losses.

`make torture`. A tiny random policy, every stage, two trainings; each point once with the whole group of
processes killed, points of children once more with only that child killed, points of files and commits once
more with a power cut, which also takes what was not forced to the disk; then random moments. Tables are held
against a run that nothing interrupted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

from tests.conftest import make_tiny_policy
from tests.nursery import Nursery
from tests.torture import COMMAND, Damage, Point, cut_power, damage, points_of, prepare

POWER = (
    "write half",
    "fsync",
    "fsynced",
    "rename",
    "renamed",
    "committed",
    "checkpoint",
)  # where a cut is worst


@dataclass(frozen=True, slots=True)
class Trial:
    """One interruption: at a point, or after a share of a whole run's time."""

    what: str  # kill, kill all, power
    at: str | None = None
    after: float | None = None  # of the uninterrupted run's seconds
    seed: int = 0

    def __str__(self) -> str:
        where = self.at or f"after {self.after:.2f} of the run"
        return f"{self.what} at {where}"


@dataclass
class Count:
    """What came of the trials."""

    survived: int = 0
    tried: int = 0
    missed: int = 0  # points that a run did not come to: looks at a training depend on time
    total: Damage = field(default_factory=Damage)
    told: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The figure."""
        total = self.total
        return (
            f"survived {self.survived} of {self.tried}, rows lost {total.lost}, "
            f"rows doubled {total.doubled}, tables different {len(total.different)}"
        )


def trials(points: list[Point], moments: int, dice: random.Random) -> Iterator[Trial]:
    """Every point, power cuts between write, fsync and rename, and random moments."""
    for point in points:
        yield Trial("kill all", point.name)
        if not point.name.startswith("driver"):
            yield Trial("kill", point.name)
        if point.kind in POWER:
            yield Trial("power", point.name, seed=dice.randrange(2**32))
    for _ in range(moments):
        yield Trial("kill all", after=dice.random())


def attempt(
    nursery: Nursery, trial: Trial, folder: Path, reference: Path, seconds: float
) -> tuple[bool, Damage | str]:
    """Whether it was interrupted, and what that did; text for a run that would not go on."""
    log = folder / "points.jsonl"
    faults = {"at": [trial.at or ""], "do": "kill" if trial.what == "kill" else "kill all", "log": str(log)}
    after = None if trial.after is None else trial.after * seconds
    killed = nursery.run(folder, *COMMAND, faults=faults, after=after)
    if killed.left:
        return True, f"outlived its driver: {killed.left}"
    if trial.what == "power":
        cut_power(folder, log, random.Random(trial.seed))
    done = nursery.run(folder, *COMMAND)
    if done.code != 0:
        return True, done.said
    reached = trial.at is None or any(json.loads(x)[1] == trial.at for x in log.read_text().splitlines())
    return reached, damage(folder, reference)


def work(
    queue: Queue[Trial], policy: Path, home: Path, reference: Path, seconds: float, count: Count
) -> None:
    """Takes trials until there are none left."""
    with Nursery() as nursery:
        while True:
            try:
                trial = queue.get_nowait()
            except Empty:
                return
            folder = prepare(home / str(next(NUMBERS)), policy)
            reached, found = attempt(nursery, trial, folder, reference, seconds)
            with LOCK:
                note(count, trial, reached, found)
            shutil.rmtree(folder)


LOCK, NUMBERS = threading.Lock(), itertools.count()


def note(count: Count, trial: Trial, reached: bool, found: Damage | str) -> None:
    """Counts one trial; says at once what went wrong."""
    count.missed += not reached
    count.tried += 1
    count.survived += not found
    if isinstance(found, Damage):
        count.total.lost += found.lost
        count.total.doubled += found.doubled
        count.total.different += found.different
    if found:
        print(f"{trial}: {found}", file=sys.stderr, flush=True)
    if count.tried % 25 == 0:
        print(f"  {count.line()}", file=sys.stderr, flush=True)


def main() -> int:
    """Runs them all; the exit code is 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=200, help="interruptions at random moments")
    parser.add_argument("--every", type=int, default=1, help="only every nth point")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and power cuts")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        home = Path(name)
        policy, reference = make_tiny_policy(home / "policy"), prepare(home / "whole", home / "policy")
        with Nursery() as nursery:
            start = time.monotonic()
            points = points_of(nursery, reference)
            seconds = time.monotonic() - start
        queue: Queue[Trial] = Queue()
        for trial in trials(points[:: asked.every], asked.moments, random.Random(asked.seed)):
            queue.put(trial)
        print(f"{len(points)} points, {queue.qsize()} interruptions, {seconds:.1f} s a run", file=sys.stderr)
        count = Count()
        threads = [
            threading.Thread(target=work, args=(queue, policy, home, reference, seconds, count))
            for _ in range(asked.jobs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if count.missed:
        print(f"{count.missed} points were not come to: looks at a training depend on time", file=sys.stderr)
    print(count.line())
    return 0 if count.survived == count.tried else 1


if __name__ == "__main__":
    sys.exit(main())
