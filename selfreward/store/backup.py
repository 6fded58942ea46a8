"""Copies of a store: whole files beside it, made while it is open, and the way back from them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from selfreward.errors import StoreError
from selfreward.files import fsync

FOLDER = "backups"
KEPT = 3  # of each kind: promotions, restarts, migrations
KINDS = ("promoted", "restart", "schema")


def backup(source: sqlite3.Connection, home: Path, kind: str, label: str) -> Path:
    """Copies an open store to `backups/KIND-N-LABEL.db` in its run's folder, whole or not at all.

    The newest `KEPT` of a kind stay.

    `source` is not in a transaction. N counts up, so that names sort by age.
    """
    folder = home / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        number = 1 + max((_number(p) for p in folder.glob("*.db")), default=0)
        target = folder / f"{kind}-{number:04}-{label}.db"
        copy_to(source, target)
        for old in backups(home / "selfreward.db", kind)[KEPT:]:
            old.unlink()
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"no backup in {folder}: {error}") from None
    return target


def copy_to(source: sqlite3.Connection, target: Path) -> None:
    """Writes the store as it is now to a file: beside it first, its bytes on the disk before its name."""
    beside = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with contextlib.closing(sqlite3.connect(beside)) as copy:
            source.backup(copy, pages=4096)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, whatever the source's mode
        fsync(beside)
        beside.rename(target)
        fsync(target.parent)
    finally:
        for name in (beside, Path(f"{beside}-journal"), Path(f"{beside}-wal"), Path(f"{beside}-shm")):
            name.unlink(missing_ok=True)


def put_copy(path: Path, target: Path) -> None:
    """A whole copy of a store that nobody writes."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source:
            copy_to(source, target)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be copied to {target}: {error}") from None


def backups(path: Path, kind: str | None = None) -> list[Path]:
    """Backups of a store, the newest first."""
    found = [p for p in (path.parent / FOLDER).glob("*.db") if kind in (None, p.name.partition("-")[0])]
    return sorted(found, key=_number, reverse=True)


def _number(path: Path) -> int:
    """The N of a backup's name, 0 for a file that is none of ours."""
    parts = path.stem.split("-")
    return int(parts[1]) if len(parts) > 2 and parts[1].isdecimal() else 0


def fault(path: Path, thorough: bool = False) -> str | None:
    """What is wrong with a store file as SQLite sees it; None if it is sound.

    `thorough` also holds every index and constraint against its table.
    """
    question = "integrity_check" if thorough else "quick_check"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = connection.execute(f"PRAGMA {question}(1)").fetchone()
            return None if found and found[0] == "ok" else str(found[0]) if found else "not readable"
    except sqlite3.Error as error:
        return str(error)


def put_back(backup: Path, path: Path) -> Path:
    """Puts a backup in a store's place; the present one is kept beside it, and where it lies is returned."""
    wrong = fault(backup)
    if wrong is not None:
        raise StoreError(f"{backup} is damaged too: {wrong}")
    number = 1 + len(list(path.parent.glob(f"{path.name}.replaced-*[0-9]")))
    aside = path.with_name(f"{path.name}.replaced-{number}")
    for suffix in ("", "-wal", "-shm"):  # a log of the old file must never be played into the new one
        old = Path(f"{path}{suffix}")
        if old.exists():
            old.rename(f"{aside}{suffix}")
    with contextlib.closing(sqlite3.connect(f"file:{backup}?mode=ro", uri=True)) as source:
        copy_to(source, path)
    return aside
