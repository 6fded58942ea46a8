"""The database guards what the classes do not: one DDL in three places, and corrupt rows that it refuses."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

import selfreward
from selfreward.store import Store

PACKAGED = Path(selfreward.__file__).parent / "migrations" / "schema_v1.sql"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "schema.sql"
TABLES = SQLModel.metadata.tables
SHA = "a" * 64

# One sound row for every table, in the order their keys allow; a corrupt row is one of these with a change.
SOUND: dict[str, dict[str, Any]] = {
    "run": {"id": 2, "name": "b", "recipe": "{}", "fingerprint": "f", "seed": 0, "created_at": "now"},
    "policy": {
        "run_id": 1, "name": "M2", "idx": 2, "parent": "M1", "model": "base", "made_in": 1,
        "status": "training", "created_at": "now",
    },
    "stage": {"run_id": 1, "policy": "M1", "name": "probe", "made_in": 1, "status": "pending"},
    "prompt": {
        "id": 12, "run_id": 1, "policy": "M1", "slot": 2, "text": "Why?", "messages": "[]",
        "source": "user", "status": "accepted",
    },
    "candidate": {
        "id": 105, "run_id": 1, "prompt_id": 10, "policy": "M1", "sample": 5, "text": "Because.",
        "n_tokens": 2, "finish": "stop", "seed": 7,
    },
    "rubric": {"sha256": "b" * 64, "name": "r", "kind": "points", "low": 0.0, "high": 5.0, "text": "Read."},
    "scorer": {
        "run_id": 1, "policy": "M1", "name": "judge", "type": "judge", "rubric_sha256": SHA, "settings": "{}",
    },
    "judgement": {"run_id": 1, "candidate_id": 100, "scorer": "judge", "sample": 1, "score": 3.0},
    "mining": {"run_id": 1, "prompt_id": 11, "outcome": "tie", "margin": 0.0},
    "pair": {
        "id": 2, "run_id": 1, "prompt_id": 10, "chosen_id": 100, "rejected_id": 102,
        "chosen_score": 4.0, "rejected_score": 1.5, "rule": "best_vs_worst",
    },
    "review": {"run_id": 1, "chosen_id": 100, "rejected_id": 101, "review": "drop", "at": "now"},
    "trained_on": {
        "run_id": 1, "policy": "M1", "position": 1, "kind": "pair", "pair_id": 1, "split": "train",
    },
    "answer": {
        "id": 2, "run_id": 1, "policy": "M1", "suite": "probe", "item": "b", "text": "Yes.", "n_tokens": 2,
        "finish": "stop",
    },
    "evaluation": {
        "run_id": 1, "policy": "M1", "suite": "probe", "answer_id": 1, "grader": "M1", "score": 3.0,
    },
    "metric": {"run_id": 1, "policy": "M1", "stage": "probe", "name": "kl", "value": 1.0, "n": 3},
    "alarm": {"run_id": 1, "policy": "M1", "stage": "probe", "signal": "kl", "level": "ok", "message": "ok"},
    "event": {"run_id": 1, "at": "now", "kind": "stage", "detail": "{}"},
}  # fmt: skip

# table, what is changed, and the guard that answers
CORRUPT: list[tuple[str, dict[str, Any], str]] = [
    ("run", {"name": "Upper"}, "GLOB"),
    ("run", {"name": "a/b"}, "GLOB"),
    ("run", {"name": "a"}, "UNIQUE"),
    ("run", {"recipe": "{"}, "json_valid(recipe)"),
    ("run", {"id": 0}, "id BETWEEN"),
    ("run", {"id": 256}, "id BETWEEN"),
    ("run", {"parent_id": 1}, "parent_policy IS NULL"),
    ("run", {"parent_id": 2, "parent_policy": "M1"}, "parent_id < id"),
    ("policy", {"name": "M3"}, "name = 'M' || idx"),
    ("policy", {"parent": None}, "(idx = 0) = (parent IS NULL)"),
    ("policy", {"parent": "M9"}, "FOREIGN KEY"),
    ("policy", {"run_id": 9, "made_in": 1}, "FOREIGN KEY"),
    ("policy", {"status": "fine"}, "status IN"),
    ("policy", {"adapter": "M2/adapter"}, "sha256 IS NOT NULL"),
    ("policy", {"adapter": "/M2/adapter", "sha256": SHA}, "NOT LIKE '/%'"),
    ("policy", {"sha256": "abc"}, "length(sha256) = 64"),
    ("stage", {"name": "cooking"}, "name IN"),
    ("stage", {"status": "running"}, "fingerprint IS NOT NULL"),
    ("stage", {"status": "half"}, "status IN"),
    ("stage", {"fingerprint": "f"}, "(fingerprint IS NULL) = (made_from IS NULL)"),
    ("stage", {"fingerprint": "f", "made_from": "{"}, "json_valid(made_from)"),
    ("stage", {"made_in": 2}, "made_in = run_id"),
    ("stage", {"policy": "M9"}, "FOREIGN KEY"),
    ("prompt", {"slot": -1}, "slot BETWEEN"),
    ("prompt", {"slot": 4194304}, "slot BETWEEN"),
    ("prompt", {"slot": 0}, "UNIQUE"),
    ("prompt", {"slot": "second"}, "cannot store TEXT value in INTEGER"),
    ("prompt", {"messages": "{}"}, "json_type(messages)"),
    ("prompt", {"parents": "{}"}, "json_type(parents)"),
    ("prompt", {"source": "magic"}, "source IN"),
    ("prompt", {"status": "rejected"}, "reason IS NOT NULL"),
    ("prompt", {"reason": "near_seed"}, "reason IS NOT NULL"),
    ("prompt", {"text": ""}, "text <> ''"),
    ("prompt", {"text": None}, "NOT NULL"),
    ("prompt", {"policy": "M9"}, "FOREIGN KEY"),
    ("candidate", {"fault": "engine"}, "(fault IS NULL) = (text IS NOT NULL)"),
    ("candidate", {"text": None, "n_tokens": None, "finish": None}, "(fault IS NULL) = (text IS NOT NULL)"),
    ("candidate", {"text": None, "n_tokens": None, "fault": "engine"}, "(text IS NULL) = (finish IS NULL)"),
    ("candidate", {"n_tokens": None}, "(text IS NULL) = (n_tokens IS NULL)"),
    ("candidate", {"finish": "eos"}, "finish IN"),
    ("candidate", {"sample": 256}, "sample BETWEEN"),
    ("candidate", {"sample": 0}, "UNIQUE"),
    ("candidate", {"token_ids": "1 2 3"}, "cannot store TEXT value in BLOB"),
    ("candidate", {"prompt_id": 99}, "FOREIGN KEY"),
    ("candidate", {"policy": "M9"}, "FOREIGN KEY"),
    ("rubric", {"low": 5.0}, "low < high"),
    ("rubric", {"sha256": "abc"}, "length(sha256) = 64"),
    ("scorer", {"settings": "n = 3"}, "json_valid(settings)"),
    ("scorer", {"rubric_sha256": "c" * 64}, "FOREIGN KEY"),
    ("judgement", {"fault": "no_score"}, "(score IS NULL) = (fault IS NOT NULL)"),
    ("judgement", {"score": None}, "(score IS NULL) = (fault IS NOT NULL)"),
    ("judgement", {"score": float("nan")}, "(score IS NULL) = (fault IS NOT NULL)"),
    ("judgement", {"score": float("inf")}, "abs(score) < 1e300"),
    ("judgement", {"score": "high"}, "cannot store TEXT value in REAL"),
    ("judgement", {"score": None, "fault": ""}, "fault <> ''"),
    ("judgement", {"sample": 0}, "UNIQUE"),
    ("judgement", {"sample": -1}, "sample >= 0"),
    ("judgement", {"position": 3}, "position IN"),
    ("judgement", {"other_id": 100}, "other_id <> candidate_id"),
    ("judgement", {"candidate_id": 999}, "FOREIGN KEY"),
    ("judgement", {"detail": "{"}, "json_valid(detail)"),
    ("mining", {"outcome": "maybe"}, "outcome IN"),
    ("mining", {"outcome": "pair"}, "(outcome = 'pair') = (n_pairs > 0)"),
    ("mining", {"n_pairs": 1}, "(outcome = 'pair') = (n_pairs > 0)"),
    ("mining", {"margin": -0.5}, "margin >= 0"),
    ("mining", {"prompt_id": 10}, "UNIQUE"),
    ("pair", {"rejected_id": 100}, "not two different texts of this prompt"),
    ("pair", {"rejected_id": 103}, "not two different texts of this prompt"),  # equal but for white space
    ("pair", {"rejected_id": 104}, "not two different texts of this prompt"),  # a fault, no text
    ("pair", {"rejected_id": 110}, "not two different texts of this prompt"),  # of another prompt
    ("pair", {"rejected_id": 101}, "UNIQUE"),
    ("pair", {"chosen_score": 1.5}, "chosen_score > rejected_score"),
    ("pair", {"chosen_score": 1.0}, "chosen_score > rejected_score"),
    ("pair", {"chosen_score": float("nan")}, "NOT NULL"),
    ("pair", {"weight": 1.5}, "weight BETWEEN"),
    ("pair", {"prompt_id": 11, "chosen_id": 110, "rejected_id": 111}, "FOREIGN KEY"),  # of an unmined prompt
    ("review", {"review": "maybe"}, "review IN"),
    ("review", {"chosen_id": 999}, "FOREIGN KEY"),
    ("trained_on", {"pair_id": None}, "(kind IN ('pair','replay')) = (pair_id IS NOT NULL)"),
    ("trained_on", {"kind": "seed"}, "(kind IN ('pair','replay')) = (pair_id IS NOT NULL)"),
    ("trained_on", {"kind": "seed", "pair_id": None}, "(pair_id IS NULL) = (source IS NOT NULL)"),
    ("trained_on", {"pair_id": 77}, "FOREIGN KEY"),
    ("trained_on", {"split": "dev"}, "split IN"),
    ("trained_on", {"position": 0}, "UNIQUE"),
    ("answer", {"fault": "engine"}, "(text IS NULL) = (fault IS NOT NULL)"),
    ("answer", {"text": None}, "(text IS NULL) = (fault IS NOT NULL)"),
    ("answer", {"item": "a"}, "UNIQUE"),
    ("evaluation", {"fault": "no_score"}, "(score IS NULL) = (fault IS NOT NULL)"),
    ("evaluation", {"score": None}, "(score IS NULL) = (fault IS NOT NULL)"),
    ("evaluation", {"answer_id": 99}, "FOREIGN KEY"),
    ("metric", {"low": 0.5}, "(low IS NULL) = (high IS NULL)"),
    ("metric", {"low": 0.5, "high": 0.25}, "low <= high"),
    ("metric", {"n": None}, "NOT NULL"),
    ("alarm", {"level": "panic"}, "level IN"),
    ("event", {"detail": "stopped"}, "json_valid(detail)"),
]  # fmt: skip

FROZEN = [
    ("UPDATE candidate SET text = 'other' WHERE id = 100", "candidate rows never change"),
    ("UPDATE judgement SET score = 5 WHERE candidate_id = 100", "judgement rows never change"),
    ("UPDATE pair SET chosen_score = 5 WHERE id = 1", "pair rows are replaced, never changed"),
    ("DELETE FROM candidate WHERE id = 100", "FOREIGN KEY"),
    ("DELETE FROM prompt WHERE id = 10", "FOREIGN KEY"),
    ("DELETE FROM mining WHERE prompt_id = 10", "FOREIGN KEY"),
    ("DELETE FROM pair WHERE id = 1", "FOREIGN KEY"),  # a training has read it
]


class Undo(Exception):
    """Rolls a transaction back."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two prompts, of which the first has a pair that has trained; every test rolls back what it does."""
    opened = Store(tmp_path_factory.mktemp("schema") / "selfreward.db", write=True)
    rows: list[tuple[str, dict[str, Any]]] = [
        ("run", {"id": 1, "name": "a"}),
        ("policy", {"name": "M0", "idx": 0, "parent": None}),
        ("policy", {"name": "M1", "idx": 1, "parent": "M0"}),
        ("prompt", {"id": 10, "slot": 0}),
        ("prompt", {"id": 11, "slot": 1}),
        ("candidate", {"id": 100, "sample": 0}),
        ("candidate", {"id": 101, "sample": 1, "text": "No."}),
        ("candidate", {"id": 102, "sample": 2, "text": "Maybe."}),
        ("candidate", {"id": 103, "sample": 3, "text": "  Because. "}),
        (
            "candidate",
            {"id": 104, "sample": 4, "fault": "engine"} | dict.fromkeys(("text", "n_tokens", "finish")),
        ),
        ("candidate", {"id": 110, "prompt_id": 11, "sample": 0}),
        ("candidate", {"id": 111, "prompt_id": 11, "sample": 1, "text": "No."}),
        ("rubric", {"sha256": SHA}),
        ("judgement", {"sample": 0}),
        ("mining", {"prompt_id": 10, "outcome": "pair", "n_pairs": 1}),
        ("pair", {"id": 1, "rejected_id": 101}),
        ("trained_on", {"position": 0}),
        ("answer", {"id": 1, "item": "a"}),
    ]
    with opened.transaction() as connection:
        for table, changes in rows:
            insert(connection, table, SOUND[table] | changes)
    yield opened
    opened.close()


def insert(connection: Any, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    connection.exec_driver_sql(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


def ddl(connection: sqlite3.Connection) -> dict[tuple[str, str], str | None]:
    """Everything a database consists of, by kind and name, comments and white space evened out."""
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE tbl_name <> 'alembic_version'"
    )
    return {(t, n): s and " ".join(re.sub(r"--[^\n]*", "", s).split()) for t, n, s in found}


@pytest.mark.parametrize("reference", [PACKAGED, SHARED], ids=["packaged", "shared"])
def test_a_migrated_store_is_what_the_schema_file_says(store: Store, reference: Path) -> None:
    if not reference.exists():
        pytest.skip(f"{reference} is not part of this checkout")
    said, made = sqlite3.connect(":memory:"), sqlite3.connect(store.path)
    said.executescript(reference.read_text(encoding="utf-8"))
    assert ddl(made) == ddl(said)
    said.close()
    made.close()


def columns(store: Store, table: str) -> list[Any]:
    return store.rows(f"SELECT * FROM pragma_table_xinfo('{table}') ORDER BY cid")


def test_every_table_has_a_class_and_every_class_a_table(store: Store) -> None:
    made = store.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'")
    assert {r.name for r in made} == set(TABLES) == set(SOUND)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_class_has_the_columns_types_nulls_and_keys_of_its_table(store: Store, table: str) -> None:
    said = [
        (c.name, c.type.compile(sqlite.dialect()), bool(c.nullable), bool(c.primary_key))
        for c in TABLES[table].columns
    ]
    made = [
        (c.name, c.type, not c.notnull and not c.pk, bool(c.pk))
        for c in columns(store, table)
        if not c.hidden
    ]
    assert said == made


def test_the_margin_of_a_pair_is_the_only_column_a_class_leaves_out(store: Store) -> None:
    assert [(t, c.name) for t in TABLES for c in columns(store, t) if c.hidden] == [("pair", "margin")]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_default_of_a_table_is_the_default_of_its_class(store: Store, table: str) -> None:
    made = {c.name: ast.literal_eval(c.dflt_value) for c in columns(store, table) if c.dflt_value is not None}
    said = {n: c.default.arg for n, c in TABLES[table].columns.items() if n in made and c.default is not None}
    assert said == made


@pytest.mark.parametrize("table", sorted(SOUND))
def test_a_sound_row_is_taken(store: Store, table: str) -> None:
    with pytest.raises(Undo), store.transaction() as connection:
        insert(connection, table, SOUND[table])
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        raise Undo


@pytest.mark.parametrize(
    ("table", "changes", "guard"), CORRUPT, ids=lambda v: str(v) if isinstance(v, dict) else None
)
def test_a_corrupt_row_is_refused(store: Store, table: str, changes: dict[str, Any], guard: str) -> None:
    with pytest.raises(IntegrityError, match=re.escape(guard)), store.transaction() as connection:
        insert(connection, table, SOUND[table] | changes)


@pytest.mark.parametrize(("change", "guard"), FROZEN)
def test_what_was_sampled_judged_or_trained_on_never_changes(store: Store, change: str, guard: str) -> None:
    with pytest.raises(IntegrityError, match=guard), store.transaction() as connection:
        connection.exec_driver_sql(change)


def test_the_store_itself_subtracts_a_margin(store: Store) -> None:
    assert store.one("SELECT margin FROM pair WHERE id = 1").margin == 4.0 - 1.5
