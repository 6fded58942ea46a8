"""Branches in one file: which runs there are, whose rows a run works with, and taking rows out again.

A run has a `stage` row for everything it has, made by itself or shared: `made_in` names the run that has the
rows. What reads rows asks here for that run; what writes them writes its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import text

from selfreward.errors import BadInput
from selfreward.ids import MAX_SAMPLES, MAX_SLOTS
from selfreward.store.database import Database

if TYPE_CHECKING:  # who only looks does not wait for the tables' classes
    from selfreward.records import Event

ADDRESS = r"(?:(?P<branch>[a-z0-9][a-z0-9._~-]*)/)?(?P<policy>M(?:0|[1-9]\d?))"
DATA = ("prompts", "candidates", "judge", "pairs")


class Origins(NamedTuple):
    """The run whose rows each data stage of an iteration has, as ids of `run`."""

    prompts: int
    candidates: int
    judge: int
    pairs: int


class Step(NamedTuple):
    """One stage of one policy."""

    policy: str
    stage: str


def runs(db: Database) -> list[Any]:
    """Every run of the file, the one the recipe began first."""
    return db.rows("SELECT * FROM run ORDER BY id")


def addressed(db: Database, address: str) -> tuple[int, str]:
    """Run and policy of an address such as `M2` or `calmer/M2`.

    Raises `BadInput` with the branches or policies there are.
    """
    run_id, policy = parted(db, address)
    names = [p.name for p in db.rows("SELECT name FROM policy WHERE run_id = :r ORDER BY idx", r=run_id)]
    if policy not in names:
        where = f"branch {address.rpartition('/')[0]}" if "/" in address else "this run"
        raise BadInput(f"there is no policy {policy} in {where}: it has {', '.join(names) or 'none yet'}")
    return run_id, policy


def parted(db: Database, address: str) -> tuple[int, str]:
    """Run and policy of an address; the policy need not exist yet."""
    found = re.fullmatch(ADDRESS, address)
    if found is None:
        raise BadInput(f"{address!r} is no policy: M2, or BRANCH/M2")
    return branch_id(db, found["branch"]), found["policy"]


def branch_id(db: Database, name: str | None) -> int:
    """The id of a branch; of the run itself for None. Raises `BadInput` with the branches there are."""
    if name is None:
        return 1
    known = {r.name: r.id for r in db.rows("SELECT id, name FROM run ORDER BY id")}
    if name not in known:
        there = [n for n, i in known.items() if i > 1]
        raise BadInput(f"there is no branch {name}: the run has {', '.join(there) or 'none'}")
    return int(known[name])


def pairs_of(db: Database, address: str | None, run_id: int = 1) -> tuple[int, str | None]:
    """Run and policy whose pairs are meant: the run that has the rows, which a branch may share.

    A name without a branch is a policy of `run_id`, whether or not there is one; None is all of them.
    """
    if address is not None and "/" in address:
        run_id, address = addressed(db, address)
    return (origins(db, run_id, address).pairs if address else run_id), address


def origins(db: Database, run_id: int, policy: str) -> Origins:
    """Whose rows an iteration has. Seed prompts are rows of M0, which no stage made."""
    made = {
        r.name: r.made_in
        for r in db.rows(
            "SELECT name, made_in FROM stage WHERE run_id = :r AND policy = :p", r=run_id, p=policy
        )
    }
    if policy == "M0":
        row = db.one("SELECT made_in FROM policy WHERE run_id = :r AND name = 'M0'", r=run_id)
        made["prompts"] = row[0] if row else run_id
    return Origins(*(int(made.get(name, run_id)) for name in DATA))


def origin(db: Database, run_id: int, policy: str, stage: str) -> int:
    """The run whose rows one stage has."""
    row = db.one(
        "SELECT made_in FROM stage WHERE run_id = :r AND policy = :p AND name = :s",
        r=run_id, p=policy, s=stage,
    )  # fmt: skip
    return int(row[0]) if row else run_id


def trained_pairs(db: Database, run_id: int, policy: str) -> list[int]:
    """Ids of the pairs a training froze, by id."""
    rows = db.rows(
        "SELECT pair_id FROM trained_on WHERE run_id = :r AND policy = :p AND kind = 'pair' ORDER BY 1",
        r=run_id, p=policy,
    )  # fmt: skip
    return [int(r[0]) for r in rows]


def pairs_now(db: Database, run_id: int, policy: str) -> list[int]:
    """Ids of the pairs a training of an iteration's data would freeze now, by id."""
    rows = db.rows(
        "SELECT r.id FROM reviewed_pair r JOIN prompt p ON p.id = r.prompt_id"
        " WHERE r.run_id = :r AND p.policy = :p AND r.review <> 'drop' ORDER BY r.id",
        r=origins(db, run_id, policy).pairs, p=policy,
    )  # fmt: skip
    return [int(r[0]) for r in rows]


def sharers(db: Database, run_id: int, steps: Collection[Step], policies: Collection[str]) -> list[str]:
    """Names of the runs that share any of these stages or policies of a run."""
    rows = db.rows(
        "SELECT r.name, s.policy, s.name AS stage FROM stage s JOIN run r ON r.id = s.run_id"
        " WHERE s.made_in = :r AND s.run_id <> :r"
        " UNION ALL SELECT r.name, p.name, NULL FROM policy p JOIN run r ON r.id = p.run_id"
        " WHERE p.made_in = :r AND p.run_id <> :r",
        r=run_id,
    )
    found = {
        r.name for r in rows if (r.stage is None and r.policy in policies) or (r.policy, r.stage) in steps
    }
    return sorted(found)


def last_events(db: Database, run_id: int, kinds: Sequence[str], limit: int = 200) -> list[Any]:
    """The latest events of some kinds, newest first."""
    return db.rows(
        "SELECT * FROM event WHERE run_id = :r AND kind IN (SELECT value FROM json_each(:k))"
        " ORDER BY id DESC LIMIT :n",
        r=run_id, k=json.dumps(list(kinds)), n=limit,
    )  # fmt: skip


def remove(db: Database, run_id: int, steps: Sequence[Step], policies: Sequence[str], event: Event) -> None:
    """Takes out, in one transaction, what stages and whole policies of a run have; the event tells of it.

    Nobody may share any of it (`sharers`).
    """
    with db.transaction() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        for step in sorted(steps, key=lambda s: -STAGES.index(s.stage)):
            for sql in _rows_of(step.stage):
                connection.execute(text(sql), _bounds(run_id, step.policy))
            own = "DELETE FROM {} WHERE run_id = :r AND policy = :p AND {} = :s"
            here = {"r": run_id, "p": step.policy, "s": step.stage}
            for table, column in (("metric", "stage"), ("alarm", "stage"), ("stage", "name")):
                connection.execute(text(own.format(table, column)), here)
        for name in sorted(policies, key=lambda p: -int(p[1:])):
            connection.execute(
                text("DELETE FROM policy WHERE run_id = :r AND name = :p"), {"r": run_id, "p": name}
            )
        db.add([event], connection)


STAGES = ("sft", "prompts", "candidates", "judge", "pairs", "train", "probe", "evaluate")


def _rows_of(stage: str) -> tuple[str, ...]:
    """The statements that take out what a stage wrote; `:i` is the policy's index."""
    of_candidate = f"(candidate_id / {MAX_SLOTS * MAX_SAMPLES}) % 64 = :i"
    match stage:
        case "sft" | "train":
            return ("DELETE FROM trained_on WHERE run_id = :r AND policy = :p",)
        case "prompts":
            return ("DELETE FROM prompt WHERE run_id = :r AND policy = :p",)
        case "candidates":
            return (
                f"DELETE FROM review WHERE run_id = :r AND (chosen_id / {MAX_SLOTS * MAX_SAMPLES}) % 64 = :i",
                "DELETE FROM candidate WHERE id BETWEEN :first AND :last",
            )
        case "judge":
            return (
                f"DELETE FROM judgement WHERE run_id = :r AND {of_candidate}",
                "DELETE FROM scorer WHERE run_id = :r AND policy = :p",
            )
        case "pairs":
            return (
                "DELETE FROM pair WHERE id BETWEEN :pairs_first AND :pairs_last",
                f"DELETE FROM mining WHERE run_id = :r AND (prompt_id / {MAX_SLOTS}) % 64 = :i",
            )
    suite = "suite = 'probe'" if stage == "probe" else "suite <> 'probe'"
    here = f"run_id = :r AND policy = :p AND {suite}"
    answers = f"SELECT id FROM answer WHERE {here}"
    return (
        f"DELETE FROM evaluation WHERE {here} OR answer_id IN ({answers}) OR against_id IN ({answers})",
        f"DELETE FROM answer WHERE {here}",
    )


def _bounds(run_id: int, policy: str) -> dict[str, Any]:
    idx = int(policy[1:])
    slots = (run_id * 64 + idx) * MAX_SLOTS
    first, last = slots * MAX_SAMPLES, (slots + MAX_SLOTS) * MAX_SAMPLES - 1
    return {
        "r": run_id, "p": policy, "i": idx, "first": first, "last": last,
        "pairs_first": first * MAX_SAMPLES, "pairs_last": (last + 1) * MAX_SAMPLES - 1,
    }  # fmt: skip
