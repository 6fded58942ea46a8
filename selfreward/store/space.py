"""Room in a store's file: what is unused in it, giving that back, and taking a whole branch out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from selfreward.errors import StoreError
from selfreward.store.database import Database

# Every table with rows of a run, children before what they refer to.
OF_A_RUN = (
    "evaluation", "answer", "metric", "alarm", "trained_on", "pair", "mining", "review", "judgement",
    "scorer", "candidate", "prompt", "stage", "policy", "event",
)  # fmt: skip


def unused(path: Path) -> int:
    """Bytes of pages in the file that hold nothing."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        pages, size = (
            connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("freelist_count", "page_size")
        )
    return int(pages) * int(size)


def shrink(path: Path) -> None:
    """Writes the file anew without its unused pages; needs as much room beside it while it works."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be made smaller: {error}; it is as it was") from None


def remove_branch(db: Database, run_id: int) -> None:
    """Takes a branch out whole, in one transaction. Nobody may share its rows or grow from it."""
    with db.transaction() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        for table in OF_A_RUN:
            connection.execute(text(f"DELETE FROM {table} WHERE run_id = :r"), {"r": run_id})
        connection.execute(text("DELETE FROM run WHERE id = :r"), {"r": run_id})


def row_counts(db: Database, run_id: int) -> dict[str, int]:
    """Rows of a run by table, those it made itself."""
    found = {t: db.one(f"SELECT count(*) FROM {t} WHERE run_id = :r", r=run_id)[0] for t in OF_A_RUN}
    return {table: int(n) for table, n in found.items() if n}
