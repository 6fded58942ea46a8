"""Whether a store's file can be trusted: looked at before it is written, named with the way back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from selfreward.errors import StoreError
from selfreward.store import backup as backups

THOROUGH, WHOLE = 64 * 2**20, 256 * 2**20  # bytes: up to here indexes too, every page, at each start
# The tables that say where a run stands.
SMALL = ("run", "policy", "stage", "rubric", "scorer", "alarm", "metric")


def check(path: Path, was_cut_off: bool) -> None:
    """Raises `StoreError` for a damaged file. A large one that was closed well is looked at in part.

    `verify` looks at all of it, whatever its size.
    """
    size = path.stat().st_size
    if size <= WHOLE or was_cut_off:
        wrong = backups.fault(path, thorough=size <= THOROUGH)
    else:
        wrong = _fault_of_small(path)
    if wrong is not None:
        raise StoreError(damaged(path, wrong))


def was_cut_off(path: Path) -> bool:
    """Whether the last writer ended without closing the file: its log or journal is still there."""
    return any((p := Path(f"{path}{s}")).exists() and p.stat().st_size > 0 for s in ("-wal", "-journal"))


def _fault_of_small(path: Path) -> str | None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            for table in SMALL:
                found = connection.execute(f"PRAGMA quick_check({table})").fetchone()[0]
                if found != "ok":
                    return str(found)
    except sqlite3.Error as error:
        return str(error)
    return None


def unreadable(path: Path, error: object) -> str:
    """What to say of a file that SQLite refuses: damage has its own line."""
    told = str(error)
    if "malformed" in told or "not a database" in told:
        return damaged(path, told)
    return f"{path} cannot be opened: {told}"


def damaged(path: Path, wrong: str) -> str:
    """The refusal in one line, with the newest backup and the command that puts it back."""
    run, there = path.parent.name, backups.backups(path)
    told = f"{path} is damaged ({' '.join(wrong.split())})"
    if not there:
        return f"{told}, and there is no backup of it yet: `sqlite3 {path} .recover` may save rows from it"
    return (
        f"{told}: `selfreward restore --run {run} {there[0]}` puts the newest backup back, "
        "and the same command goes on from there"
    )
