"""Opening the SQLite file: pragmas, migrations, transactions that write at once or not at all."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine, event, insert, text
from sqlalchemy.exc import DatabaseError, OperationalError

from selfreward.errors import StoreError
from selfreward.points import reach

if TYPE_CHECKING:
    from sqlmodel import SQLModel

HEAD = "v1"


def now() -> str:
    """UTC, to the second, as text."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _url(path: Path, write: bool) -> URL:
    """Any path, odd characters included; a view in a read-only folder takes the file as it lies."""
    if write:
        return URL.create("sqlite", database=str(path))
    lies_still = not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    query = {"uri": "true", "mode": "ro"} | ({"immutable": "1"} if lies_still else {})
    return URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


class Database:
    """An open store file; `write=False` opens it read-only and never migrates."""

    def __init__(self, path: Path, *, write: bool) -> None:
        if not write and not path.exists():
            raise StoreError(f"{path} does not exist: `selfreward iterate` makes it")
        self.path = path
        self._write = write
        self._writing = False
        self._synchronous = "NORMAL"
        self._wal = f"{path}-wal"
        self._engine = create_engine(_url(path, write))
        event.listen(self._engine, "connect", self._prepare)
        event.listen(self._engine, "begin", self._begin)
        try:
            self._open()
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be opened: {error}") from None
        except DatabaseError as error:
            raise StoreError(f"{path} cannot be opened: {error.orig}") from None

    def close(self) -> None:
        """Gives back every connection."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Everything inside is committed as one, or nothing is."""
        self._writing = self._write
        try:
            with self._engine.begin() as connection:
                yield connection
                reach("commit", self._wal)
            reach("committed", self._wal)
            if self._synchronous == "FULL":
                reach("synced", self._wal)
        except OperationalError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error.orig}; what was stored is whole"
            ) from None
        finally:
            self._writing = False

    @contextmanager
    def durable(self) -> Iterator[None]:
        """Commits inside are on the disk when they return (synchronous=FULL): for promotions."""
        self._synchronous = "FULL"
        try:
            yield
        finally:
            self._synchronous = "NORMAL"

    def add(self, records: Sequence[SQLModel], connection: Connection | None = None) -> None:
        """Bulk-inserts records of any tables, in order, in the given transaction or one of their own."""
        if connection is None:
            with self.transaction() as own:
                self.add(records, own)
            return
        start = 0
        while start < len(records):
            kind = type(records[start])
            end = next((i for i in range(start, len(records)) if type(records[i]) is not kind), len(records))
            table: Any = kind.__table__  # type: ignore[attr-defined]
            names = [c.name for c in table.columns if not (c.name == "id" and records[start].id is None)]  # type: ignore[attr-defined]
            connection.execute(insert(table), [{n: getattr(r, n) for n in names} for r in records[start:end]])
            start = end

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        """All rows of a query, as named tuples."""
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(text(sql), parameters))
        except OperationalError as error:
            raise StoreError(f"{self.path} cannot be read: {error.orig}") from None

    def one(self, sql: str, **parameters: Any) -> Any:
        """The first row of a query, or None."""
        found = self.rows(sql, **parameters)
        return found[0] if found else None

    def _prepare(self, connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, as IMMEDIATE
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("PRAGMA foreign_keys=ON")

    def _begin(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA synchronous={self._synchronous}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if self._writing else "BEGIN")

    def _open(self) -> None:
        version = self._version()
        if version == HEAD:
            return
        if version:
            raise StoreError(
                f"{self.path} was made by another version of selfreward "
                f"(schema {version}, this one knows {HEAD})"
            )
        if not self._write:
            raise StoreError(f"{self.path} is not a store of selfreward")
        with contextlib.closing(sqlite3.connect(self.path)) as raw:
            raw.execute("PRAGMA journal_mode=WAL")
        self._migrate()

    def _version(self) -> str | None:
        with self._engine.connect() as connection:
            tables = {
                r[0]
                for r in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            if not tables:
                return None
            if "alembic_version" not in tables:
                raise StoreError(f"{self.path} is a SQLite file of something else")
            row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
            return str(row[0]) if row else ""

    def _migrate(self) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).resolve().parent.parent / "migrations"))
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, HEAD)
            reach("commit", self._wal)
        reach("committed", self._wal)
