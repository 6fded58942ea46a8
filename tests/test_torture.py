"""Cut off anywhere and started again, a run ends in the same rows: no table differs, nothing is left alive.

The points are named by the run itself (selfreward/points.py), so none is left to luck. Here a run is killed
again and again on its way, at a sample of them; `make torture` kills one run at each, and at random moments.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.nursery import Ended, Nursery
from tests.torture import COMMAND, Damage, Point, again, cut_power, damage, points_of, prepare, read_points

RUNS, KILLS = 4, 11
Whole = tuple[Path, list[Point]]


@pytest.fixture(scope="module")
def whole(nursery: Nursery, tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An uninterrupted run of every stage and the points it passed."""
    folder = prepare(tmp_path_factory.mktemp("whole") / "run", tiny_policy)
    return folder, points_of(nursery, folder)


def sampled(points: list[Point], run: int, runs: int, kills: int) -> list[Point]:
    """`kills` points of all kinds and processes, in the order of the run, other ones for every run."""
    kinds = sorted(points, key=lambda p: (p.name.partition(":")[0], p.kind, p.at))
    step = len(kinds) / (runs * kills)
    chosen = [kinds[int((i * runs + run + 0.5) * step)] for i in range(kills)]
    return sorted(chosen, key=lambda p: p.at)


def killed_on_its_way(nursery: Nursery, folder: Path, points: list[Point]) -> Iterator[Ended]:
    """Starts the run until it comes to its end; each is killed where it first meets one of the points."""
    left, log = [again(p.name) for p in points], folder / "points.jsonl"
    while True:
        ended = nursery.run(folder, *COMMAND, faults={"at": left, "do": "kill all", "log": str(log)})
        if ended.code == 0:
            return
        assert ended.code == -9, ended.said
        name = read_points(log)[-1].name
        left.remove(next(pattern for pattern in left if fnmatchcase(name, pattern)))
        yield ended


@pytest.mark.slow
@pytest.mark.parametrize("run", range(RUNS))
def test_a_run_killed_at_points_all_along_its_way_ends_in_the_same_rows(
    nursery: Nursery, whole: Whole, tiny_policy: Path, tmp_path: Path, run: int
) -> None:
    """The whole group is killed, as by kill -9; then the same command again, to be killed further on."""
    reference, points = whole
    folder = prepare(tmp_path / "run", tiny_policy)
    met = 0
    for ended in killed_on_its_way(nursery, folder, sampled(points, run, RUNS, KILLS)):
        assert not ended.left, f"{ended.left} outlived the driver"
        met += 1
    assert met >= 10  # a point that was the only one of its name may lie behind
    assert damage(folder, reference) == Damage()


@pytest.mark.slow
def test_what_a_power_cut_leaves_is_sound(
    nursery: Nursery, whole: Whole, tiny_policy: Path, tmp_path: Path
) -> None:
    """Killed between write, fsync and rename; what was not forced to the disk is then torn or gone."""
    reference, points = whole
    folder, dice = prepare(tmp_path / "run", tiny_policy), random.Random(0)
    kinds = ("write half", "fsync", "rename", "renamed", "committed", "checkpoint")
    took = 0
    for _ in killed_on_its_way(nursery, folder, sampled([p for p in points if p.kind in kinds], 0, 1, 10)):
        took += len(cut_power(folder, folder / "points.jsonl", dice))
    assert took >= 8
    assert damage(folder, reference) == Damage()
