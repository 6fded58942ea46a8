"""What must hold in a store, each as a question whose every answer is a break: `selfreward verify` asks all.

The schema refuses most of this when rows are written; here it is asked of what is there, however it came.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.files import sha256_of_text
from selfreward.ids import MAX_SAMPLES, MAX_SLOTS, candidate_id, derive_seed

Row = Sequence[Any]
SHOWN = 5  # breaks of one kind that are told with their keys


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that does not hold: how often, and the keys of the first few."""

    promise: str
    n: int
    examples: list[list[Any]]


OWN_PROMPT = f"(run_id * 64 + CAST(substr(policy, 2) AS INTEGER)) * {MAX_SLOTS}"
# The policy whose iteration a candidate is of; another one may have answered (`candidate.policy`).
ITERATION = f"'M' || ((c.id / {MAX_SLOTS * MAX_SAMPLES}) % 64)"
FIRST = f"(t.made_in * 64 + CAST(substr(s.policy, 2) AS INTEGER)) * {MAX_SLOTS * MAX_SAMPLES}"
OF_STAGE = f"c.id >= {FIRST} AND c.id < {FIRST} + {MAX_SLOTS * MAX_SAMPLES}"
OWN_CANDIDATE = (
    f"((run_id * 64 + (prompt_id / {MAX_SLOTS}) % 64) * {MAX_SLOTS} + prompt_id % {MAX_SLOTS})"
    f" * {MAX_SAMPLES} + sample"
)
OWN_PAIR = (
    f"((p.run_id * 64 + (p.prompt_id / {MAX_SLOTS}) % 64) * {MAX_SLOTS} + p.prompt_id % {MAX_SLOTS})"
    f" * {MAX_SAMPLES * MAX_SAMPLES} + c.sample * {MAX_SAMPLES} + x.sample"
)
BOTH = "JOIN candidate c ON c.id = p.chosen_id JOIN candidate x ON x.id = p.rejected_id"
SCORED = "SELECT 1 FROM judgement j WHERE j.candidate_id = {} AND j.score IS NOT NULL"
MEASURED = "p.idx > 1 AND p.status = 'promoted' AND p.made_in = p.run_id"

# Sentence: a query of the rows that break it.
PROMISES = {
    # A failure is not a score.
    "a judgement is a score or a fault, never both or neither":
        "SELECT id FROM judgement WHERE (score IS NULL) = (fault IS NULL)",
    "a grade is a score or a fault, never both or neither":
        "SELECT id FROM evaluation WHERE (score IS NULL) = (fault IS NULL)",
    "an answer is a text or a fault": "SELECT id FROM answer WHERE (text IS NULL) = (fault IS NULL)",
    "a candidate is a text or a fault": "SELECT id FROM candidate WHERE (text IS NULL) = (fault IS NULL)",
    "a score lies on its rubric's scale":
        "SELECT j.id, j.score, u.low, u.high FROM judgement j JOIN candidate c ON c.id = j.candidate_id"
        f" JOIN scorer s ON s.run_id = j.run_id AND s.policy = {ITERATION} AND s.name = j.scorer"
        " JOIN rubric u ON u.sha256 = s.rubric_sha256 WHERE j.score NOT BETWEEN u.low AND u.high",
    "a judgement names a scorer of its run and iteration":
        "SELECT j.id, j.run_id, j.scorer FROM judgement j JOIN candidate c ON c.id = j.candidate_id"
        f" LEFT JOIN scorer s ON s.run_id = j.run_id AND s.policy = {ITERATION} AND s.name = j.scorer"
        " WHERE s.name IS NULL",
    # Chosen and rejected.
    "the two texts of a pair differ":
        f"SELECT p.id FROM pair p {BOTH} WHERE p.chosen_id = p.rejected_id OR trim(c.text) = trim(x.text)",
    "both sides of a pair answer its prompt":
        f"SELECT p.id FROM pair p {BOTH} WHERE c.prompt_id <> p.prompt_id OR x.prompt_id <> p.prompt_id",
    "a pair prefers the higher score":
        "SELECT id, chosen_score, rejected_score FROM pair WHERE chosen_score <= rejected_score",
    "both sides of a pair could be read, and the chosen one was finished":
        f"SELECT p.id FROM pair p {BOTH}"
        " WHERE c.fault IS NOT NULL OR x.fault IS NOT NULL OR c.finish <> 'stop'",
    "both sides of a pair were scored":
        f"SELECT p.id FROM pair p WHERE NOT EXISTS ({SCORED.format('p.chosen_id')})"
        f" OR NOT EXISTS ({SCORED.format('p.rejected_id')})",
    # Nothing disappears without a reason.
    "every accepted prompt of a mined iteration has its mining row":
        "SELECT p.in_run, p.id FROM prompt_of p JOIN stage s ON s.run_id = p.in_run AND s.policy = p.policy"
        " AND s.name = 'pairs' AND s.status = 'done' WHERE p.status = 'accepted' AND NOT EXISTS"
        " (SELECT 1 FROM mining m WHERE m.run_id = s.made_in AND m.prompt_id = p.id)",
    "only accepted prompts are mined":
        "SELECT m.run_id, m.prompt_id FROM mining m JOIN prompt p ON p.id = m.prompt_id"
        " WHERE p.status <> 'accepted'",
    "a mining row counts its pairs":
        "SELECT m.run_id, m.prompt_id, m.n_pairs, count(p.id) FROM mining m LEFT JOIN pair p"
        " ON p.run_id = m.run_id AND p.prompt_id = m.prompt_id GROUP BY 1, 2"
        " HAVING m.outcome <> 'dropped_by_review' AND m.n_pairs <> count(p.id)",
    "every answered candidate of a judged iteration has a judgement":
        "SELECT c.id FROM stage s JOIN stage t ON t.run_id = s.run_id AND t.policy = s.policy"
        f" AND t.name = 'candidates' JOIN candidate c ON {OF_STAGE}"
        " WHERE s.name = 'judge' AND s.status = 'done' AND c.fault IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM judgement j WHERE j.candidate_id = c.id AND j.run_id = s.made_in)",
    "every accepted prompt of an answered iteration has candidates":
        "SELECT p.in_run, p.id FROM prompt_of p JOIN stage s ON s.run_id = p.in_run AND s.policy = p.policy"
        " AND s.name = 'candidates' AND s.status = 'done' WHERE p.status = 'accepted' AND NOT EXISTS"
        " (SELECT 1 FROM candidate c WHERE c.prompt_id = p.id AND c.run_id = s.made_in)",
    "the samples of a prompt have no gap":
        "SELECT prompt_id, run_id, count(*) FROM candidate GROUP BY 1, 2"
        " HAVING count(*) <> max(sample) + 1",
    "the slots of an iteration have no gap":
        "SELECT run_id, policy, count(*) FROM prompt GROUP BY 1, 2 HAVING count(*) <> max(slot) + 1",
    "a rejected prompt says why": "SELECT id FROM prompt WHERE (status = 'rejected') = (reason IS NULL)",
    "a stage counts what it stored":
        "SELECT s.run_id, s.policy, s.n_done, count(c.id) FROM stage s JOIN stage t ON t.run_id = s.run_id"
        f" AND t.policy = s.policy AND t.name = s.name LEFT JOIN candidate c ON {OF_STAGE}"
        " WHERE s.name = 'candidates' AND s.made_in = s.run_id AND s.status IN ('running', 'done')"
        " GROUP BY 1, 2 HAVING s.n_done <> count(c.id)",
    # Ids and token ids.
    "the id of a prompt is its run, policy and slot":
        f"SELECT id FROM prompt WHERE id <> {OWN_PROMPT} + slot",
    "the id of a candidate is its run, policy, slot and sample":
        f"SELECT id FROM candidate WHERE id <> {OWN_CANDIDATE}",
    "the id of a pair is its run, policy, slot and samples":
        f"SELECT p.id FROM pair p {BOTH} WHERE p.id <> {OWN_PAIR}",
    "a text has its token ids":
        "SELECT id FROM candidate WHERE text IS NOT NULL"
        " AND (token_ids IS NULL OR length(token_ids) <> 4 * n_tokens)",
    "an answer has its token ids":
        "SELECT id FROM answer WHERE text IS NOT NULL AND token_ids IS NOT NULL"
        " AND length(token_ids) <> 4 * n_tokens",
    # The policy that should answer does; what trained is known.
    "two trainings leave two adapters":
        "SELECT sha256, group_concat(run_id || '/' || name) FROM policy"
        " WHERE sha256 IS NOT NULL AND made_in = run_id GROUP BY 1 HAVING count(*) > 1",
    "a policy is not its parent again":
        "SELECT p.run_id, p.name FROM policy p JOIN policy q ON q.run_id = p.run_id AND q.name = p.parent"
        " WHERE p.sha256 = q.sha256",
    "a promoted policy has finished stages behind it":
        "SELECT p.run_id, p.name, s.name, s.status FROM policy p JOIN stage s ON s.run_id = p.run_id"
        " AND s.policy = p.name WHERE p.status = 'promoted' AND s.name IN ('sft', 'train', 'probe')"
        " AND s.status NOT IN ('done', 'skipped')",
    "a trained policy tells what it was trained on":
        "SELECT p.run_id, p.name FROM policy p WHERE p.idx > 1 AND p.made_in = p.run_id"
        " AND p.status <> 'training' AND p.sha256 IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM trained_on t WHERE t.run_id = p.run_id AND t.policy = p.name)",
    "a training reads pairs of its own lineage":
        "SELECT t.run_id, t.policy, t.pair_id FROM trained_on t JOIN pair p ON p.id = t.pair_id"
        " WHERE t.kind = 'pair' AND NOT EXISTS (SELECT 1 FROM stage s WHERE s.run_id = t.run_id"
        " AND s.name = 'pairs' AND s.made_in = p.run_id)",
    "no training read a pair that a person had dropped before":
        "SELECT t.run_id, t.policy, t.pair_id FROM trained_on t JOIN pair p ON p.id = t.pair_id"
        " JOIN review v ON v.run_id = p.run_id AND v.chosen_id = p.chosen_id"
        " AND v.rejected_id = p.rejected_id AND v.review = 'drop' JOIN stage s ON s.run_id = t.run_id"
        " AND s.policy = t.policy AND s.name IN ('sft', 'train') WHERE v.at < s.started_at",
    "a policy that DPO made has its distance from its parent":
        f"SELECT p.run_id, p.name FROM policy p WHERE {MEASURED} AND NOT EXISTS (SELECT 1 FROM metric m"
        " WHERE m.run_id = p.run_id AND m.policy = p.name AND m.name = 'kl_previous'"
        " AND m.value IS NOT NULL)",
    # What was shared is there.
    "a shared stage is the very stage of the run that made it":
        "SELECT s.run_id, s.policy, s.name FROM stage s LEFT JOIN stage t ON t.run_id = s.made_in"
        " AND t.policy = s.policy AND t.name = s.name WHERE s.made_in <> s.run_id AND (t.status IS NOT 'done'"
        " OR t.made_in <> s.made_in OR t.fingerprint IS NOT s.fingerprint)",
    "a shared policy is the very policy of the run that made it":
        "SELECT p.run_id, p.name FROM policy p LEFT JOIN policy q ON q.run_id = p.made_in AND q.name = p.name"
        " WHERE p.made_in <> p.run_id AND (q.name IS NULL OR q.sha256 IS NOT p.sha256"
        " OR q.adapter IS NOT p.adapter)",
    "a branch grows from a promoted policy":
        "SELECT r.id, r.name FROM run r LEFT JOIN policy p ON p.run_id = r.parent_id"
        " AND p.name = r.parent_policy WHERE r.parent_id IS NOT NULL AND p.status IS NOT 'promoted'",
    # Numbers, and what may train.
    "a metric carries its n": "SELECT run_id, policy, name FROM metric WHERE n IS NULL OR n < 1",
    "an interval has two ends, in order":
        "SELECT run_id, policy, name FROM metric WHERE (low IS NULL) <> (high IS NULL) OR low > high",
    "no probe or evaluation prompt trains":
        "SELECT DISTINCT p.id FROM prompt p JOIN answer a ON trim(a.item) = trim(p.text)"
        " WHERE p.status = 'accepted'",
    # The file itself.
    "what a row names exists": "SELECT * FROM pragma_foreign_key_check",
    "the file is sound": "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
}  # fmt: skip


def broken(path: Path) -> Iterator[tuple[str, Broken | None]]:
    """Every promise with its break, or None where it holds. One that cannot be asked is broken."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        for promise, query in PROMISES.items():
            try:
                yield promise, counted(promise, connection.execute(query))
            except sqlite3.Error as error:
                yield promise, Broken(promise, 1, [[f"cannot be asked: {error}"]])
        for promise, check in RECKONED.items():
            try:
                yield promise, counted(promise, check(connection))
            except (sqlite3.Error, ValueError) as error:
                yield promise, Broken(promise, 1, [[f"cannot be asked: {error}"]])


def counted(promise: str, rows: Iterable[Sequence[Any]]) -> Broken | None:
    """How many rows there are, with the first few; None for none."""
    shown, n = [], 0
    for row in rows:
        n += 1
        if n <= SHOWN:
            shown.append(list(row))
    return Broken(promise, n, shown) if n else None


def _fingerprints(db: sqlite3.Connection) -> Iterator[Row]:
    query = "SELECT run_id, policy, name, made_from, fingerprint FROM stage WHERE made_from IS NOT NULL"
    for *key, made_from, fingerprint in db.execute(query):
        if sha256_of_text(made_from) != fingerprint:
            yield key
    for run_id, recipe, fingerprint in db.execute("SELECT id, recipe, fingerprint FROM run"):
        if sha256_of_text(recipe) != fingerprint:
            yield [run_id, "recipe"]


def _chains(db: sqlite3.Connection) -> Iterator[Row]:
    """A stage names the fingerprint of the stage it read and the hash of the adapter that wrote it."""
    stages = {
        (r, p, s): (json.loads(m), f)
        for r, p, s, m, f in db.execute(
            "SELECT run_id, policy, name, made_from, fingerprint FROM stage WHERE made_from IS NOT NULL"
        )
    }
    policies = {
        (r, n): (parent, sha)
        for r, n, parent, sha in db.execute("SELECT run_id, name, parent, sha256 FROM policy")
    }
    for (run_id, policy, name), (made, _) in stages.items():
        parent = policies[run_id, policy][0] or "M0"
        reads = (run_id, parent, "pairs") if name == "train" else (run_id, policy, READS.get(name, ""))
        if reads in stages and made.get(reads[2]) != stages[reads][1]:
            yield [run_id, policy, name, "reads other rows than " + reads[2]]
        writer = parent if name in ("sft", "train") else policy
        if "adapter.sha256" in made and made["adapter.sha256"] != policies[run_id, writer][1]:
            yield [run_id, policy, name, f"was made with another adapter than that of {writer}"]


def _seeds(db: sqlite3.Connection) -> Iterator[Row]:
    """The seed of an answer follows from the run's seed, its policy, slot and sample."""
    query = f"SELECT id, sample, seed FROM candidate WHERE id BETWEEN ? AND ? + {MAX_SLOTS * MAX_SAMPLES - 1}"
    for run_id, policy, made in db.execute(
        "SELECT run_id, policy, made_from FROM stage"
        " WHERE name = 'candidates' AND made_in = run_id AND made_from IS NOT NULL"
    ).fetchall():
        seed, idx = json.loads(made).get("seed"), int(policy[1:])
        first = candidate_id(run_id, idx, 0, 0)
        for key, sample, stored in db.execute(query, (first, first)):
            slot = key // MAX_SAMPLES % MAX_SLOTS
            if stored != derive_seed(seed, "candidates", idx, slot, sample):
                yield [key, stored]


def _rubrics(db: sqlite3.Connection) -> Iterator[Row]:
    """The rubric a scorer names is the one its stage was made from."""
    yield from db.execute(
        "SELECT s.run_id, s.policy, s.name, s.rubric_sha256 FROM scorer s JOIN stage t ON t.run_id = s.run_id"
        " AND t.policy = s.policy AND t.name = 'judge' WHERE s.type = 'judge'"
        " AND json_extract(t.made_from, '$.\"judge.rubric\"') IS NOT NULL"
        " AND json_extract(t.made_from, '$.\"judge.rubric\"') <> s.rubric_sha256"
    )


def _told(db: sqlite3.Connection) -> Iterator[Row]:
    """Every change of a status left an event: the last one told is the one that stands."""
    last: dict[tuple[int, str, str | None], str] = {}
    for run_id, kind, detail in db.execute(
        "SELECT run_id, kind, detail FROM event WHERE kind IN ('stage', 'policy') ORDER BY id"
    ):
        told = json.loads(detail)
        if "status" in told and "policy" in told:
            last[run_id, told["policy"], told.get("stage") if kind == "stage" else None] = told["status"]
    stands = (
        "SELECT run_id, policy, name, status FROM stage"
        " UNION ALL SELECT run_id, name, NULL, status FROM policy"
    )
    for run_id, policy, stage, status in db.execute(stands):
        if last.get((run_id, policy, stage), status) != status:
            yield [run_id, policy, stage, status]


READS = {"candidates": "prompts", "judge": "candidates", "pairs": "judge"}
# Sentence: what reckons the rows that break it.
RECKONED: dict[str, Callable[[sqlite3.Connection], Iterator[Row]]] = {
    "a fingerprint is the hash of the keys it stands for": _fingerprints,
    "a stage was made from the rows and the adapter it names": _chains,
    "the seed of an answer follows from the run's seed": _seeds,
    "a scorer's rubric is the one its stage was made from": _rubrics,
    "every change of a status was told as an event": _told,
}
