"""Answers of suites and their grades: what is there, by whom it was graded, under which protocol it was made.

A protocol is kept as an event; one is added when the first answer is asked for, never changed.
"""

from __future__ import annotations

import json
from typing import Any

from selfreward.store.database import Database


def ungraded_by(db: Database, run_id: int, policy: str, suite: str, grader: str, samples: int) -> list[Any]:
    """Readable answers of the first `samples` samples that this grader has not graded, in order."""
    return db.rows(
        "SELECT * FROM answer a WHERE run_id = :r AND policy = :p AND suite = :s AND sample < :n"
        " AND fault IS NULL AND NOT EXISTS (SELECT 1 FROM evaluation e WHERE e.answer_id = a.id"
        " AND e.against_id = 0 AND e.grader = :g) ORDER BY id",
        r=run_id, p=policy, s=suite, g=grader, n=samples,
    )  # fmt: skip


def graded_by(db: Database, run_id: int, policy: str, suite: str, grader: str) -> list[Any]:
    """Every answer with this grader's score, reply and fault, in order; a faulted answer has no score."""
    return db.rows(
        "SELECT a.id, a.item, a.turn, a.sample, a.text, a.finish, e.score, e.raw,"
        " coalesce(a.fault, e.fault) AS fault FROM answer a LEFT JOIN evaluation e"
        " ON e.answer_id = a.id AND e.against_id = 0 AND e.grader = :g"
        " WHERE a.run_id = :r AND a.policy = :p AND a.suite = :s ORDER BY a.id",
        r=run_id, p=policy, s=suite, g=grader,
    )  # fmt: skip


def contests(db: Database, run_id: int, policy: str, suite: str, grader: str) -> list[Any]:
    """Verdicts on an answer of this policy against another's, by (answer_id, against_id, position)."""
    return db.rows(
        "SELECT answer_id, against_id, position, score, fault FROM evaluation WHERE run_id = :r"
        " AND policy = :p AND suite = :s AND grader = :g AND against_id <> 0"
        " ORDER BY answer_id, against_id, position",
        r=run_id, p=policy, s=suite, g=grader,
    )  # fmt: skip


def note(db: Database, run_id: int, kind: str, policy: str, suite: str, grader: str = "") -> Any:
    """The last event of a kind about a suite of a policy (and a grader) as data, or None."""
    row = db.one(
        "SELECT detail FROM event WHERE run_id = :r AND kind = :k AND json_extract(detail, '$.policy') = :p"
        " AND json_extract(detail, '$.suite') = :s AND coalesce(json_extract(detail, '$.grader'), '') = :g"
        " ORDER BY id DESC LIMIT 1",
        r=run_id, k=kind, p=policy, s=suite, g=grader,
    )  # fmt: skip
    return json.loads(row[0]) if row else None
