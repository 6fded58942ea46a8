"""What an interruption did: the points of a run, and a store held against that of an uninterrupted one."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfreward.files import sha256_of
from tests.nursery import Nursery
from tests.runner import query, tables, write_recipe

SIZES: dict[str, Any] = {  # a whole loop: two trainings, every stage, every kind of point
    "engine": {"batch": 16, "block": 2, "threads": 1},
    "start": {"sft": {"examples": 2, "judge_examples": 1, "batch": 2, "lr": 1e-3, "save_steps": 1}},
    "prompts": {"count": 4, "requests": 2, "rounds": 1, "sampling": {"max_new_tokens": 8}},
    "candidates": {"n": 3, "sampling": {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 16}},
    "training": {"lr": 5e-3, "batch": 1, "micro_batch": 1, "save_steps": 1, "lora": {"r": 4}},
    "probe": {"count": 2, "max_new_tokens": 6},
    "evaluate": {"questions": "questions.jsonl", "problems": "problems.jsonl", "max_new_tokens": 4},
}
QUESTION = {"category": "plain", "turns": ["Name a tall tree.", "And a small one?"]}
PROBLEM = {"problem": "How many legs have two cats?", "answer": 8}
SHORT: dict[str, Any] = {"start": {"sft": None}, "evaluate": None}  # M1 is the base: one training
COMMAND = ("iterate", "--to", "M2")


@dataclass
class Damage:
    """What is not as it was to be; all zero and empty is sound."""

    lost: int = 0
    doubled: int = 0
    different: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.different or self.unsound)


@dataclass(frozen=True, slots=True)
class Point:
    """A line of the log of points: when (ns), name, kind, what it was about, that one's inode and size."""

    at: int
    name: str
    kind: str
    thing: str
    inode: int
    size: int


def prepare(folder: Path, model: Path, **changes: Any) -> Path:
    """A fresh folder with the recipe in it."""
    (folder / "iterations").mkdir(parents=True)
    for name, line in (("questions", QUESTION), ("problems", PROBLEM)):
        (folder / "iterations" / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    sizes = dict(SIZES)
    for section, value in changes.items():
        sizes[section] = sizes.get(section, {}) | value if isinstance(value, dict) else value
    write_recipe(folder, model, **sizes)
    return folder


def points_of(nursery: Nursery, folder: Path) -> list[Point]:
    """Runs the loop once and names the points it passed."""
    log = folder / "points.jsonl"
    done = nursery.run(folder, *COMMAND, faults={"log": str(log)})
    assert done.code == 0, done.said
    return read_points(log)


def read_points(log: Path) -> list[Point]:
    """The points in the order they were passed, of all processes."""
    return [Point(*json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


def again(name: str) -> str:
    """The pattern of a point in a run that was started again: children and ordinals are counted anew."""
    role, _, rest = name.partition(": ")
    return f"{re.sub(r'[0-9]+$', '*', role)}: {re.sub(r'#[0-9]+$', '#*', rest)}"


def damage(folder: Path, reference: Path) -> Damage:
    """Every table against the uninterrupted run's, but for times, attempts, events; and what lies beside."""
    found = Damage(unsound=list(_unsound(folder)))
    wanted = tables(reference)
    for name, rows in tables(folder).items():
        found.lost += max(0, len(wanted[name]) - len(rows))
        found.doubled += max(0, len(rows) - len(wanted[name]))
        if rows != wanted[name]:
            found.different.append(name)
    return found


def _unsound(folder: Path) -> Iterator[str]:
    for sql in ("PRAGMA integrity_check", "PRAGMA foreign_key_check"):
        rows = query(folder, sql)
        if rows not in ([], [("ok",)]):
            yield f"{sql}: {rows}"
    home = folder / "iterations" / "t"
    for adapter, sha256 in query(folder, "SELECT adapter, sha256 FROM policy WHERE adapter IS NOT NULL"):
        if sha256_of(home / adapter / "adapter_model.safetensors") != sha256:
            yield f"{adapter} is another than its row says"
    yield from (f"{p.name} was left behind" for p in home.rglob("*.part"))


def cut_power(folder: Path, log: Path, dice: random.Random) -> list[str]:
    """What a power cut may leave of a run that was just killed; returns what it took away.

    A file lost its bytes unless it was forced to the disk after its last change; of a rename either name may
    be there unless the folder was forced afterwards; the database keeps its last durable commit, and any
    beginning of what followed.
    """
    points = read_points(log)
    home, took = folder / "iterations" / "t", []
    safe = {p.inode: p for p in points if p.kind == "fsynced"}
    for old, new in _loose_renames(points):
        if new.exists() and not old.exists() and dice.random() < 0.5:
            took.append(f"the name {new.name}")
            new.rename(old)
    for path in sorted(p for p in home.rglob("*") if p.is_file() and not p.name.startswith("selfreward.db")):
        found = path.stat()
        forced = safe.get(found.st_ino)
        if path.name == "lock" or (forced and found.st_mtime_ns <= forced.at):
            continue
        took.append(path.name)
        _tear(path, min(forced.size, found.st_size) if forced else 0, dice)
    took += _tear_database(home / "selfreward.db", points, dice)
    return took


def _loose_renames(points: list[Point]) -> Iterator[tuple[Path, Path]]:
    """Folders whose new name was not yet on the disk: (old, new)."""
    for i, point in enumerate(points):
        new = Path(point.thing)
        if point.kind != "renamed" or new.name != "adapter":
            continue
        if not any(p.kind == "fsynced" and Path(p.thing) == new.parent for p in points[i:]):
            yield new.parent / "training" / "adapter", new


def _tear(path: Path, safe: int, dice: random.Random) -> None:
    """What follows the first `safe` bytes is gone, half there, or full of zeros; or the file is gone."""
    kept, rest = path.read_bytes()[:safe], path.read_bytes()[safe:]
    match dice.randrange(4):
        case 0 if not safe:
            path.unlink()
        case 0 | 1:
            path.write_bytes(kept)
        case 2:
            path.write_bytes(kept + rest[: len(rest) // 2])
        case 3:
            path.write_bytes(kept + bytes(len(rest)))


def _tear_database(file: Path, points: list[Point], dice: random.Random) -> list[str]:
    """Cuts the log of commits behind the last one forced to the disk, and fills some of it with zeros."""
    wal, shm = file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")
    shm.unlink(missing_ok=True)
    if not wal.exists():
        return []
    synced = max((p for p in points if p.kind == "synced"), key=lambda p: p.at, default=None)
    since = synced or next((p for p in points if p.kind == "committed"), None)
    if since is None or file.stat().st_mtime_ns > since.at:
        return []  # SQLite has moved commits into the file since, and forced the log before it did
    least, size = synced.size if synced else 0, wal.stat().st_size
    kept = dice.randint(min(least, size), size)
    with open(wal, "r+b") as log:
        log.truncate(kept)
        if dice.random() < 0.5:
            log.seek(max(least, kept - 3000))
            log.write(bytes(kept - log.tell()))
    return [f"{size - kept} bytes of commits"]
