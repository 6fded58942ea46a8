"""A run as it lies on the disk at each of its points: all of it stands still there and its folder is copied.

A moment put back in the place of the run is what `kill -9` of everything at that point leaves.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.nursery import Ended, Nursery
from tests.torture import COMMAND, Point, read_points

# For people and for this harness; the index of the log of commits is made anew by whoever opens it first.
ASIDE = ("points.jsonl", "said.txt", "selfreward.db-shm")


@dataclass(frozen=True, slots=True)
class Moment:
    """A copy of a run's folder and the points at which it was as the copy is."""

    copy: Path
    points: list[Point]

    def put_back(self, folder: Path) -> Path:
        """Makes `folder` what it was; its log of points then names the inodes that the files have now."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.copy, folder)
        was = json.loads(self.copy.with_suffix(".json").read_text())
        now = {int(inode): (folder / name).stat().st_ino for inode, name in was.items()}
        log = folder / "points.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        log.write_text("".join(json.dumps([*x[:4], now.get(x[4], 0), x[5]]) + "\n" for x in lines))
        return folder

    def bytes(self) -> str:
        """A hash of every file of the run: moments that share it cannot be told apart."""
        found = hashlib.sha256()
        for path in sorted(p for p in self.copy.rglob("*") if p.is_file() and p.name not in ASIDE):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(self.copy)} {content}\n".encode())
        return found.hexdigest()


def moments_of(nursery: Nursery, folder: Path, keep: Path) -> tuple[list[Moment], Ended]:
    """Runs the loop once, to its end, and copies it wherever it passes a point."""
    log = folder / "points.jsonl"
    done = nursery.run(folder, *COMMAND, faults={"at": ["*"], "do": "stop", "log": str(log)}, keep=keep)
    assert done.code == 0, done.said
    found, seen = [], 0
    for copy in sorted(p for p in keep.iterdir() if p.is_dir()):
        points = read_points(copy / "points.jsonl")
        found.append(Moment(copy, points[seen:]))
        seen = len(points)
    return found, done
