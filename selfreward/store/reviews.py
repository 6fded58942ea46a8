"""What people write: reviews of pairs, and nothing else."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import text

from selfreward.errors import BadInput, StoreError
from selfreward.store import mirror
from selfreward.store.database import Database, now

MAX_NOTE = 2000  # characters


class Reviews(Database):
    """A door's way to write: SQLite itself refuses this connection every table but `review`.

    It may be open beside the driver, whose transactions it waits for (busy_timeout).
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise StoreError(f"{path} does not exist: `selfreward iterate` makes it")
        if (found := mirror.elsewhere(path)) is not None:
            raise StoreError(
                f"reviews wait: the run works on its store in {found['path']} on {found['host']}"
            )
        super().__init__(path, write=True, checked=False)

    def put(self, pair_id: int, review: str | None, note: str | None = None) -> None:
        """Writes a person's verdict on a pair, `keep` or `drop`; None takes it back.

        It counts from the next training: one that has started keeps the pairs it froze.
        """
        if note and len(note) > MAX_NOTE:
            raise BadInput(f"the note has {len(note)} characters; {MAX_NOTE} fit")
        with self.transaction() as connection:
            pair = connection.execute(
                text("SELECT run_id AS r, chosen_id AS c, rejected_id AS x FROM pair WHERE id = :i"),
                {"i": pair_id},
            ).first()
            if pair is None:
                raise BadInput(f"there is no pair {pair_id}: `selfreward pairs list` shows the ids")
            key = dict(pair._mapping)
            if review is None:
                connection.execute(
                    text("DELETE FROM review WHERE run_id = :r AND chosen_id = :c AND rejected_id = :x"), key
                )
                return
            connection.execute(
                text(
                    "INSERT INTO review (run_id, chosen_id, rejected_id, review, note, at)"
                    " VALUES (:r, :c, :x, :review, :note, :at) ON CONFLICT (run_id, chosen_id, rejected_id)"
                    " DO UPDATE SET review = excluded.review, note = excluded.note, at = excluded.at"
                ),
                key | {"review": review, "note": note or None, "at": now()},
            )

    def _prepare(self, connection: sqlite3.Connection, record: Any) -> None:
        super()._prepare(connection, record)
        connection.set_authorizer(_only_reviews)


def _only_reviews(action: int, first: str | None, *_: str | None) -> int:
    writes = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE)
    if action in writes and first != "review":
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
