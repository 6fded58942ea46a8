"""Opening the SQLite file: pragmas, migrations, transactions that write at once or not at all."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError

from selfreward.errors import StoreError
from selfreward.points import reach
from selfreward.store import backup as backups
from selfreward.store import mirror, soundness

if TYPE_CHECKING:
    from sqlmodel import SQLModel

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def now() -> str:
    """UTC, to the second, as text."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def migrations() -> list[str]:
    """The schemas this version knows, the first to the newest, by the names of their files."""
    names = [p.name.partition("_")[0] for p in (MIGRATIONS / "versions").glob("v*_*.py")]
    return sorted(names, key=lambda name: int(name[1:]))


def _url(path: Path, write: bool) -> URL:
    """Any path, odd characters included; a view in a read-only folder takes the file as it lies."""
    if write:
        return URL.create("sqlite", database=str(path))
    lies_still = not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    query = {"uri": "true", "mode": "ro"} | ({"immutable": "1"} if lies_still else {})
    return URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


def _insert(connection: Connection, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
    places = ", ".join("?" * len(columns))
    connection.exec_driver_sql(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)


class Database:
    """An open store file; `write=False` opens it read-only and never migrates.

    `checked`: a file that is to be written is looked at first, and refused if it is damaged. `alone`: no
    other connection may open it, for where WAL does not work. `home` is the run's folder, the file's own
    unless it is worked on elsewhere.
    """

    def __init__(
        self, path: Path, *, write: bool, checked: bool = True, alone: bool = False, home: Path | None = None
    ) -> None:
        if not write and not path.exists():
            raise StoreError(f"{path} does not exist: `selfreward iterate` makes it")
        self.path = path
        self.home = home or path.parent
        self._alone = alone
        if write and checked and path.exists() and path.stat().st_size:
            soundness.check(path, soundness.was_cut_off(path))
        self._write = write
        self._writing = False
        self._synchronous = "NORMAL"
        self._wal = f"{path}-wal"
        self._foreign_keys = "ON"
        one = {"pool_size": 1, "max_overflow": 0} if alone else {}
        self._engine = create_engine(_url(path if write else mirror.readable(path), write), **one)
        event.listen(self._engine, "connect", self._prepare)
        event.listen(self._engine, "begin", self._begin)
        try:
            self._open()
        except sqlite3.Error as error:
            raise StoreError(soundness.unreadable(path, error)) from None
        except DatabaseError as error:
            raise StoreError(soundness.unreadable(path, error.orig)) from None

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

    def backup(self, kind: str, label: str) -> Path:
        """Copies the store as it is now to its `backups` folder. Raises `StoreError` without room."""
        connection = self._engine.raw_connection()
        try:
            source: Any = connection.driver_connection
            return backups.backup(source, self.home, kind, label)
        finally:
            connection.close()

    def copy_to(self, target: Path) -> None:
        """Writes the store as it is now to a file, whole. Raises `StoreError` where that fails."""
        connection = self._engine.raw_connection()
        try:
            source: Any = connection.driver_connection
            backups.copy_to(source, target)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"no copy in {target}: {error}") from None
        finally:
            connection.close()

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
            values = attrgetter(*names)  # tuples for the driver: half the time of Core's dicts
            _insert(connection, table.name, names, [values(r) for r in records[start:end]])
            start = end

    def add_tuples(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], connection: Connection
    ) -> None:
        """Bulk-inserts plain rows of one table, where records would take longer to make than to store."""
        if rows:
            _insert(connection, table, columns, list(rows))

    @contextmanager
    def streams(self) -> Iterator[Callable[..., Iterator[tuple[Any, ...]]]]:
        """A function from a query and its parameters to rows as they are read, several at once.

        All of them see the store as it is now, and hold a connection until the end of the block.
        """
        try:
            with self._engine.begin() as connection:
                raw: Any = connection.connection.driver_connection

                def ask(sql: str, **parameters: Any) -> Iterator[tuple[Any, ...]]:
                    found: Iterator[tuple[Any, ...]] = raw.cursor().execute(sql, parameters)
                    return found

                yield ask
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from None
        except sqlite3.DatabaseError as error:
            raise StoreError(soundness.unreadable(self.path, error)) from None

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        """All rows of a query, as named tuples."""
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(text(sql), parameters))
        except OperationalError as error:
            raise StoreError(f"{self.path} cannot be read: {error.orig}") from None
        except DatabaseError as error:
            raise StoreError(soundness.unreadable(self.path, error.orig)) from None

    def one(self, sql: str, **parameters: Any) -> Any:
        """The first row of a query, or None."""
        found = self.rows(sql, **parameters)
        return found[0] if found else None

    def _prepare(self, connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, as IMMEDIATE
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute(f"PRAGMA foreign_keys={self._foreign_keys}")
        if self._alone:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=DELETE")

    def _begin(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA synchronous={self._synchronous}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if self._writing else "BEGIN")

    def _open(self) -> None:
        version, known = self._version(), migrations()
        if version == known[-1]:
            return
        if version and version not in known:
            raise StoreError(
                f"{self.path} was made by a later version of selfreward "
                f"(schema {version}, this one knows up to {known[-1]}): install that version"
            )
        if not self._write:
            reason = f"has schema {version} of an earlier version: `selfreward iterate` brings it up to date"
            raise StoreError(f"{self.path} {reason if version else 'is not a store of selfreward'}")
        if version:
            self.backup("schema", version)
        elif not self._alone:
            with contextlib.closing(sqlite3.connect(self.path)) as raw:
                raw.execute("PRAGMA journal_mode=WAL")
        self._migrate(known[-1])

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

    def _migrate(self, head: str) -> None:
        """Brings the schema to `head` in one transaction, or leaves it as it was.

        A table is altered by copying it, and what refers to it must not go with the old one: foreign keys are
        off meanwhile, and looked at before the commit.
        """
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        self._connections_with("OFF")
        try:
            with self._engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, head)
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise StoreError(f"{self.path} cannot be brought to schema {head}: rows would be lost")
                reach("commit", self._wal)
            reach("committed", self._wal)
        finally:
            self._connections_with("ON")

    def _connections_with(self, foreign_keys: str) -> None:
        self._engine.dispose()
        self._foreign_keys = foreign_keys
