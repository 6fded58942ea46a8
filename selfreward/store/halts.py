"""What a gate read when it halted: the texts it saw, and the margins of the pairs there were."""

from __future__ import annotations

from typing import Any

from selfreward.store.database import Database
from selfreward.store.lineage import runs


def read_texts(db: Database, run_id: int, policy: str, stage: str, limit: int = 200) -> list[Any]:
    """(prompt, text) of the answers of an iteration, or, of a policy that was made, of its probe."""
    if stage in ("judge", "pairs"):
        return db.rows(
            "SELECT p.text AS prompt, c.text FROM candidate c JOIN prompt p ON p.id = c.prompt_id"
            " WHERE c.run_id = :r AND c.policy = :p AND c.text IS NOT NULL ORDER BY c.id LIMIT :n",
            r=run_id, p=policy, n=limit,
        )  # fmt: skip
    return db.rows(
        "SELECT item AS prompt, text FROM answer WHERE run_id = :r AND policy = :p AND suite = 'probe'"
        " AND text IS NOT NULL ORDER BY id LIMIT :n", r=run_id, p=policy, n=limit,
    )  # fmt: skip


def tries_of(db: Database, run_id: int = 1) -> list[Any]:
    """The runs that a run goes on in: its newest try after a halt, the newest of that one, and so on."""
    found: list[Any] = []
    known = [r for r in runs(db) if r.made_by == "rollback"]
    at = run_id
    while own := [r for r in known if r.parent_id == at]:
        found.append(own[-1])
        at = own[-1].id
    return found


def margins(db: Database, run_id: int, policy: str) -> list[float]:
    """Margins of the pairs of an iteration, by id."""
    rows = db.rows(
        "SELECT r.margin FROM pair r JOIN prompt q ON q.id = r.prompt_id"
        " WHERE r.run_id = :r AND q.policy = :p ORDER BY r.id", r=run_id, p=policy,
    )  # fmt: skip
    return [float(r[0]) for r in rows]
