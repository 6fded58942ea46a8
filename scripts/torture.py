"""Cuts a whole run off at every point it passes and at random moments, starts it again, and counts losses.

`make torture`. A tiny random policy, every stage, two trainings. One run stands still at each of its points,
and its files are kept as they are there: what `kill -9` of all its processes leaves. From each of them the
same command goes on; from points of files and commits once more after a power cut, which also takes what was
not forced to the disk. Points of children are met once more with only that child killed, and whole runs are
killed at random moments: those kills are real ones. Points that left the same bytes are gone on from once:
they cannot be told apart. Tables are held against a run that nothing interrupted.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from tests.conftest import make_tiny_policy
from tests.moments import Moment, moments_of
from tests.nursery import Nursery
from tests.torture import COMMAND, Damage, Point, cut_power, damage, points_of, prepare, read_points

POWER = (
    "write half",
    "fsync",
    "fsynced",
    "rename",
    "renamed",
    "committed",
    "checkpoint",
)  # where a cut is worst
LOCK = threading.Lock()


@dataclass
class Count:
    """What came of the interruptions."""

    survived: int = 0
    tried: int = 0
    alike: int = 0  # left the same bytes as another
    total: Damage = field(default_factory=Damage)

    def line(self) -> str:
        """The figure."""
        total = self.total
        return (
            f"survived {self.survived} of {self.tried}, rows lost {total.lost}, "
            f"rows doubled {total.doubled}, tables different {len(total.different)}"
        )

    def note(self, what: str, found: Damage | str, n: int = 1) -> None:
        """Counts `n` interruptions with one outcome; says at once what went wrong."""
        with LOCK:
            self.tried += n
            self.alike += n - 1
            self.survived += 0 if found else n
            if isinstance(found, Damage):
                self.total.lost += found.lost
                self.total.doubled += found.doubled
                self.total.different += found.different
            said = f"{what}: {found}\n" if found else ""
            print(f"{said}  {what}; {self.line()}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Share:
    """One of the jobs: its own processes, its own run in its own place, its own share of the points."""

    nursery: Nursery
    home: Path
    policy: Path
    reference: Path
    job: int
    jobs: int

    @property
    def folder(self) -> Path:
        """Where its runs are: always the same place, for a run may know it."""
        return self.home / "run"

    def fresh(self) -> Path:
        """An empty run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        return prepare(self.folder, self.policy)

    def takes(self, name: str) -> bool:
        """Whether this job has the point."""
        return crc32(name.encode()) % self.jobs == self.job

    def goes_on(self) -> Damage | str:
        """The same command again: what is not as it was to be, or what was said by a run that would not."""
        done = self.nursery.run(self.folder, *COMMAND)
        return damage(self.folder, self.reference) if done.code == 0 else done.said


def killed_everywhere(share: Share, moments: list[Moment], points: list[Point], count: Count) -> None:
    """Goes on from every moment, from those of equal bytes once."""
    wanted = {p.name for p in points}
    alike: dict[str, list[tuple[Moment, Point]]] = {}
    for moment in moments:
        for point in moment.points:
            if point.name in wanted:
                alike.setdefault(moment.bytes(), []).append((moment, point))
    for found in alike.values():
        moment, point = found[0]
        moment.put_back(share.folder)
        count.note(f"all killed at {point.name}", share.goes_on(), len(found))


def cut_everywhere(share: Share, moments: list[Moment], points: list[Point], count: Count, seed: int) -> None:
    """A power cut at every point of files and commits."""
    wanted = {p.name for p in points if p.kind in POWER}
    for moment in moments:
        for point in moment.points:
            if point.name not in wanted:
                continue
            moment.put_back(share.folder)
            dice = random.Random(f"{seed} {point.name}")
            took = cut_power(share.folder, share.folder / "points.jsonl", dice)
            count.note(f"power cut at {point.name}, {len(took)} things gone", share.goes_on())


def children_killed(share: Share, moments: list[Moment], every: int, count: Count) -> None:
    """Each child at each of its points, in a run that goes on from just before that child's start."""
    for moment in moments:
        for start in (p for p in moment.points if p.kind == "start"):
            moment.put_back(share.folder)
            log = share.folder / "points.jsonl"
            log.unlink()
            done = share.nursery.run(share.folder, *COMMAND, faults={"log": str(log)})
            assert done.code == 0, done.said
            role = start.thing.removeprefix("selfreward.")
            own = [p for p in read_points(log) if p.name.startswith(role)]
            first = own[0].name.partition(":")[0]
            names = [p.name for p in own if p.name.partition(":")[0] == first]
            for name in names[::every]:
                if share.takes(f"{start.name} {name}"):
                    count.note(f"{name} killed, after {start.name}", killed_child(share, moment, name))


def killed_child(share: Share, moment: Moment, name: str) -> Damage | str:
    """The run sees its child die, starts another by itself and comes to its end."""
    moment.put_back(share.folder)
    log = share.folder / "points.jsonl"
    log.unlink()
    ended = share.nursery.run(share.folder, *COMMAND, faults={"at": [name], "do": "kill", "log": str(log)})
    if ended.left:
        return f"outlived its driver: {ended.left}"
    if ended.code != 0:
        return ended.said
    met = any(json.loads(line)[1] == name for line in log.read_text().splitlines())
    return damage(share.folder, share.reference) if met else "not met: the points of this run are others"


def killed_at_moments(share: Share, shares: Iterator[float], seconds: float, count: Count) -> None:
    """The whole group is killed after a share of a run's time; earlier, if the run had ended by then."""
    for after in shares:
        while True:
            killed = share.nursery.run(share.fresh(), *COMMAND, after=after * seconds)
            if killed.code == -9:
                break
            after *= 0.9
        left = f"outlived its driver: {killed.left}" if killed.left else ""
        count.note(f"all killed after {after:.2f} of a run", left or share.goes_on())


def work(share: Share, asked: argparse.Namespace, count: Count) -> None:
    """A job's share of everything."""
    reference = prepare(share.reference, share.policy)
    points_of(share.nursery, reference)
    moments, _ = moments_of(share.nursery, share.fresh(), share.home / "moments")
    points = [p for m in moments for p in m.points]
    mine = [p for p in points[:: asked.every] if share.takes(p.name)]
    whole = share.nursery.run(share.fresh(), *COMMAND).seconds
    print(f"{len(points)} points, {len(mine)} of them here, {whole:.1f} s a run", file=sys.stderr, flush=True)
    dice = random.Random(f"{asked.seed} {share.job}")
    n = asked.moments // share.jobs + (share.job < asked.moments % share.jobs)
    killed_everywhere(share, moments, mine, count)
    killed_at_moments(share, (dice.random() for _ in range(n)), whole, count)
    children_killed(share, moments, asked.every, count)
    cut_everywhere(share, moments, mine, count, asked.seed)


def main() -> int:
    """Runs them all; the exit code is 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=200, help="interruptions at random moments")
    parser.add_argument("--every", type=int, default=1, help="only every nth point")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and power cuts")
    asked = parser.parse_args()
    count, failed = Count(), []

    def job(number: int, home: Path) -> None:
        try:
            with Nursery() as nursery:
                share = Share(nursery, home / str(number), home / "policy", home / f"whole {number}", number,
                              asked.jobs)  # fmt: skip
                share.home.mkdir()
                work(share, asked, count)
        except BaseException as error:  # a job that breaks must not pass for one that is done
            failed.append(error)
            raise

    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        make_tiny_policy(Path(name) / "policy")
        threads = [threading.Thread(target=job, args=(i, Path(name))) for i in range(asked.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(f"{count.alike} of them left the same bytes as another", file=sys.stderr)
    print(count.line())
    return 0 if count.survived == count.tried and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
