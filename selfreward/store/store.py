"""What the driver asks and writes: which blocks are missing, and each block's rows in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, text
from sqlmodel import SQLModel

from selfreward.ids import MAX_SAMPLES, MAX_SLOTS, candidate_id, prompt_id
from selfreward.records import Alarm, Event, Metric, MiningRow, PairRow, Policy, Run, Stage, Stood
from selfreward.store.database import Database, now
from selfreward.store.lease import Lease
from selfreward.store.lineage import origin, origins
from selfreward.store.mirror import Mirror


class Store(Database):
    """The writer's view of a run's file. Only one exists at a time (`Lock`).

    What reads rows of a run reads those it shares too (`lineage.origins`).
    """

    mirror: Mirror | None = None
    lease: Lease | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """As of every store; then a copy for readers, where they need one and it is due."""
        if self.lease is not None:
            self.lease.check()
        with super().transaction() as connection:
            yield connection
        if self.mirror is not None:
            self.mirror.block_ended()

    def stage_ended(self) -> None:
        """A finished stage is copied to where the run lies, if the store is worked on elsewhere."""
        if self.mirror is not None:
            self.mirror.stage_ended()

    # runs, policies, stages

    def run(self, run_id: int = 1) -> Run | None:
        """The run's row, or None before its first start."""
        row = self.one("SELECT * FROM run WHERE id = :id", id=run_id)
        return Run(**row._mapping) if row else None

    def run_named(self, name: str) -> Run | None:
        """A run or branch by name."""
        row = self.one("SELECT * FROM run WHERE name = :n", n=name)
        return Run(**row._mapping) if row else None

    def policies(self, run_id: int) -> dict[str, Policy]:
        """Policies of a run by name, M0 first."""
        rows = self.rows("SELECT * FROM policy WHERE run_id = :r ORDER BY idx", r=run_id)
        return {r.name: Policy(**r._mapping) for r in rows}

    def stages(self, run_id: int) -> dict[tuple[str, str], Stage]:
        """Stages of a run by (policy, name)."""
        rows = self.rows("SELECT * FROM stage WHERE run_id = :r", r=run_id)
        return {(r.policy, r.name): Stage(**r._mapping) for r in rows}

    def save(self, *records: SQLModel, rows: Sequence[SQLModel] = (), events: Sequence[Event] = ()) -> None:
        """In one transaction: inserts or replaces run, policy and stage records, inserts rows and events."""
        with self.transaction() as connection:
            for record in records:
                _upsert(connection, record)
            self.add([*rows, *events], connection)

    def event(self, run_id: int, kind: str, **detail: Any) -> Event:
        """An event row, for `save` or `add`."""
        return Event(run_id=run_id, at=now(), kind=kind, detail=json.dumps(detail, ensure_ascii=False))

    def events(self, run_id: int, kind: str) -> list[Any]:
        """Events of a kind, the oldest first."""
        return self.rows("SELECT * FROM event WHERE run_id = :r AND kind = :k ORDER BY id", r=run_id, k=kind)

    def alarms(self, run_id: int) -> list[Alarm]:
        """What the gates found, in the order of policies."""
        rows = self.rows(
            "SELECT a.* FROM alarm a JOIN policy p ON p.run_id = a.run_id AND p.name = a.policy"
            " WHERE a.run_id = :r ORDER BY p.idx, a.stage, a.signal", r=run_id,
        )  # fmt: skip
        return [Alarm(**row._mapping) for row in rows]

    def count_events(self, run_id: int, kind: str, stage: Stage) -> int:
        """How many events of that kind name the stage."""
        row = self.one(
            "SELECT count(*) FROM event WHERE run_id = :r AND kind = :k"
            " AND json_extract(detail, '$.policy') = :p AND json_extract(detail, '$.stage') = :s",
            r=run_id, k=kind, p=stage.policy, s=stage.name,
        )  # fmt: skip
        return int(row[0])

    def commit_block(
        self, stage: Stage, records: Sequence[SQLModel], done: int, tokens: int = 0, seconds: float = 0.0
    ) -> None:
        """A block's rows and the stage's counters, as one.

        `done` and `tokens` are added to what was there.
        """
        counts = {
            "n_done": stage.n_done + done,
            "n_total": stage.n_total,
            "n_tokens": stage.n_tokens + tokens,
            "seconds": stage.seconds + seconds,
        }
        with self.transaction() as connection:
            self.add(records, connection)
            connection.execute(
                text(
                    "UPDATE stage SET n_done = :n_done, n_total = :n_total, n_tokens = :n_tokens,"
                    " seconds = :seconds"
                    " WHERE run_id = :r AND policy = :p AND name = :n"
                ),
                counts | {"r": stage.run_id, "p": stage.policy, "n": stage.name},
            )
        for name, value in counts.items():  # only what is stored counts
            setattr(stage, name, value)

    # prompts

    def prompts(self, run_id: int, policy: str, status: str = "accepted") -> list[Any]:
        """Prompts of a policy with that status, in slot order."""
        return self.rows(
            "SELECT * FROM prompt WHERE run_id = :r AND policy = :p AND status = :s ORDER BY slot",
            r=origins(self, run_id, policy).prompts,
            p=policy,
            s=status,
        )

    def chats(self, run_id: int, policy: str) -> Iterator[tuple[int, str]]:
        """Id and messages of every accepted prompt of a policy, in slot order, as they are read."""
        made = origins(self, run_id, policy)
        with self.streams() as ask:
            for row in ask(
                "SELECT id, messages FROM prompt WHERE run_id = :r AND policy = :p AND status = 'accepted'"
                " ORDER BY slot",
                r=made.prompts, p=policy,
            ):  # fmt: skip
                yield row[0], row[1]

    def prompt_state(self, run_id: int, policy: str) -> tuple[int, int]:
        """The next free slot and the last committed round (0 before the first)."""
        row = self.one(
            "SELECT coalesce(max(slot) + 1, 0), coalesce(max(round), 0)"
            " FROM prompt WHERE run_id = :r AND policy = :p",
            r=run_id, p=policy,
        )  # fmt: skip
        return int(row[0]), int(row[1])

    # candidates and judgements

    def unanswered(self, run_id: int, policy: str) -> list[Any]:
        """Accepted prompts of the policy without candidates of this run, in slot order."""
        return self.rows(
            "SELECT * FROM prompt p WHERE p.run_id = :prompts AND p.policy = :p"
            " AND p.status = 'accepted' AND NOT EXISTS"
            " (SELECT 1 FROM candidate c WHERE c.prompt_id = p.id AND c.run_id = :candidates)"
            " ORDER BY p.slot",
            **origins(self, run_id, policy)._asdict(), p=policy,
        )  # fmt: skip

    def unjudged(self, run_id: int, policy: str) -> list[int]:
        """Ids of prompts with an answered candidate that has no judgement, in slot order.

        Asked of indexes alone, whatever the texts weigh.
        """
        made = origins(self, run_id, policy)
        first = prompt_id(made.prompts, int(policy[1:]), 0)
        rows = self.rows(
            "SELECT DISTINCT c.prompt_id FROM candidate c"
            " WHERE c.prompt_id BETWEEN :first AND :last AND c.run_id = :candidates"
            " AND NOT EXISTS (SELECT 1 FROM judgement j WHERE j.candidate_id = c.id AND j.run_id = :judge)"
            " AND c.id NOT IN (SELECT id FROM candidate WHERE run_id = :candidates AND fault IS NOT NULL)"
            " ORDER BY 1",
            **made._asdict(), first=first, last=first + MAX_SLOTS - 1,
        )  # fmt: skip
        return [int(r[0]) for r in rows]

    def candidates_of(self, run_id: int, policy: str, prompt_ids: Sequence[int]) -> list[Any]:
        """A policy's candidates of the prompts with chat and reference, by (prompt, sample)."""
        return self.rows(
            "SELECT c.*, p.messages, p.reference, p.checks, p.slot FROM candidate c"
            " JOIN prompt p ON p.id = c.prompt_id WHERE c.run_id = :r"
            " AND c.prompt_id IN (SELECT value FROM json_each(:ids)) ORDER BY c.id",
            r=origins(self, run_id, policy).candidates, ids=json.dumps(list(prompt_ids)),
        )  # fmt: skip

    def contenders(self, run_id: int, policy: str, scorer: str) -> Iterator[tuple[Stood, tuple[float, ...]]]:
        """Every candidate of an iteration with its readable scores in sample order, by (prompt, sample).

        They come as they are read, whatever they weigh together: candidates and judgements both lie in the
        order of the candidates' ids. Nothing else may use a store that is worked on `alone` meanwhile.
        """
        made = origins(self, run_id, policy)
        first = candidate_id(made.candidates, int(policy[1:]), 0, 0)
        here = {"first": first, "last": first + MAX_SLOTS * MAX_SAMPLES - 1}
        with self.streams() as ask:
            candidates = ask(
                "SELECT c.id, c.prompt_id, p.slot, c.sample, c.policy, c.text, c.finish,"
                " coalesce(c.n_tokens, 0) FROM candidate c JOIN prompt p ON p.id = c.prompt_id"
                " WHERE c.id BETWEEN :first AND :last AND c.run_id = :run AND p.status = 'accepted'"
                " ORDER BY c.id",
                **here, run=made.candidates,
            )  # fmt: skip
            scores = ask(
                "SELECT candidate_id, score FROM judgement WHERE candidate_id BETWEEN :first AND :last"
                " AND run_id = :run AND scorer = :s AND other_id = 0 AND score IS NOT NULL"
                " ORDER BY candidate_id, sample",
                **here, run=made.judge, s=scorer,
            )  # fmt: skip
            row, own = next(candidates, None), list[float]()
            for judged, score in scores:
                while row is not None and row[0] < judged:
                    yield Stood._make(row), tuple(own)
                    row, own = next(candidates, None), []
                if row is not None and row[0] == judged:
                    own.append(score)
            while row is not None:
                yield Stood._make(row), tuple(own)
                row, own = next(candidates, None), []

    def details(self, run_id: int, policy: str, scorer: str) -> list[Any]:
        """(prompt_id, score, detail) of every readable verdict of a scorer in an iteration, by candidate."""
        return self.rows(
            "SELECT c.prompt_id, j.score, j.detail FROM judgement j JOIN candidate c ON c.id = j.candidate_id"
            " WHERE c.run_id = :candidates AND c.policy = :p AND j.run_id = :judge AND j.scorer = :s"
            " AND j.score IS NOT NULL AND j.detail IS NOT NULL ORDER BY c.id, j.sample",
            **origins(self, run_id, policy)._asdict(), p=policy, s=scorer,
        )  # fmt: skip

    def mined_pairs(self, run_id: int, policy: str) -> list[Any]:
        """(chosen_id, rejected_id) of every pair an iteration has now."""
        return self.rows(
            "SELECT r.chosen_id, r.rejected_id FROM pair r JOIN prompt p ON p.id = r.prompt_id"
            " WHERE r.run_id = :r AND p.policy = :p",
            r=origins(self, run_id, policy).pairs, p=policy,
        )  # fmt: skip

    def verdicts(self, run_id: int, policy: str, scorer: str) -> list[Any]:
        """Every verdict of an iteration: prompt, score (NULL: a fault), tokens; by candidate and sample."""
        return self.rows(
            "SELECT c.prompt_id, j.score, coalesce(c.n_tokens, 0) AS n_tokens"
            " FROM judgement j JOIN candidate c ON c.id = j.candidate_id"
            " WHERE c.run_id = :candidates AND c.policy = :p AND j.run_id = :judge AND j.scorer = :s"
            " AND j.other_id = 0"
            " ORDER BY c.id, j.sample",
            **origins(self, run_id, policy)._asdict(), p=policy, s=scorer,
        )  # fmt: skip

    def comparisons(self, run_id: int, policy: str, scorer: str) -> list[Any]:
        """What a pairwise judge said of every two candidates of an iteration, an order a row, in pairs."""
        return self.rows(
            "SELECT c.prompt_id, j.candidate_id, j.other_id, j.position, j.score, j.fault"
            " FROM judgement j JOIN candidate c ON c.id = j.candidate_id JOIN prompt p ON p.id = c.prompt_id"
            " WHERE c.run_id = :candidates AND p.policy = :p AND j.run_id = :judge AND j.scorer = :s"
            " AND j.other_id <> 0 ORDER BY j.candidate_id, j.other_id, j.position",
            **origins(self, run_id, policy)._asdict(), p=policy, s=scorer,
        )  # fmt: skip

    def pairs_to_audit(self, run_id: int, policy: str | None) -> list[Any]:
        """Pairs with their texts, tokens and mean log-probabilities, of one iteration or of all, by id."""
        return self.rows(
            "SELECT r.id, r.prompt_id, p.policy, p.text AS prompt, p.messages, p.reference,"
            " c.text AS chosen, x.text AS rejected, r.chosen_score, r.rejected_score,"
            " c.n_tokens AS chosen_tokens, x.n_tokens AS rejected_tokens,"
            " c.mean_logprob AS chosen_logprob, x.mean_logprob AS rejected_logprob"
            " FROM pair r JOIN prompt p ON p.id = r.prompt_id"
            " JOIN candidate c ON c.id = r.chosen_id JOIN candidate x ON x.id = r.rejected_id"
            " WHERE r.run_id = :r AND (:p IS NULL OR p.policy = :p) ORDER BY r.id",
            r=run_id, p=policy,
        )  # fmt: skip

    def scores_by_scorer(self, run_id: int, policy: str | None) -> list[Any]:
        """Each scorer's mean score of each candidate, of one iteration or of all."""
        return self.rows(
            "SELECT c.prompt_id, j.candidate_id, j.scorer, avg(j.score) AS score"
            " FROM judgement j JOIN candidate c ON c.id = j.candidate_id JOIN prompt p ON p.id = c.prompt_id"
            " WHERE j.run_id = :r AND (:p IS NULL OR p.policy = :p) AND j.other_id = 0"
            " AND j.score IS NOT NULL GROUP BY j.candidate_id, j.scorer ORDER BY j.candidate_id, j.scorer",
            r=run_id, p=policy,
        )  # fmt: skip

    def pair_lengths(self, run_id: int, policy: str) -> list[tuple[int, int]]:
        """Tokens of the chosen and the rejected text of every pair of an iteration."""
        rows = self.rows(
            "SELECT coalesce(c.n_tokens, 0), coalesce(x.n_tokens, 0) FROM pair r"
            " JOIN prompt p ON p.id = r.prompt_id"
            " JOIN candidate c ON c.id = r.chosen_id JOIN candidate x ON x.id = r.rejected_id"
            " WHERE r.run_id = :r AND p.policy = :p ORDER BY r.id",
            r=origins(self, run_id, policy).pairs, p=policy,
        )  # fmt: skip
        return [(int(r[0]), int(r[1])) for r in rows]

    def dropped(self, run_id: int) -> set[tuple[int, int]]:
        """(chosen, rejected) of every pair that a person dropped."""
        rows = self.rows(
            "SELECT chosen_id, rejected_id FROM review WHERE run_id = :r AND review = 'drop'", r=run_id
        )
        return {(int(r[0]), int(r[1])) for r in rows}

    def replace_mining(
        self, stage: Stage, policy: str, minings: Sequence[MiningRow], pairs: Sequence[PairRow]
    ) -> None:
        """Mining and pair rows of an iteration, recomputed whole, in one transaction."""
        prompts = origins(self, stage.run_id, policy).prompts
        with self.transaction() as connection:
            for table in ("pair", "mining"):
                connection.execute(
                    text(
                        f"DELETE FROM {table} WHERE run_id = :r AND prompt_id IN"
                        " (SELECT id FROM prompt WHERE run_id = :prompts AND policy = :p)"
                    ),
                    {"r": stage.run_id, "prompts": prompts, "p": policy},
                )
            self.add_tuples("mining", MiningRow._fields, minings, connection)
            self.add_tuples("pair", PairRow._fields, pairs, connection)

    def mining_outcomes(self, run_id: int, policy: str) -> dict[str, int]:
        """Mining rows of an iteration by outcome."""
        rows = self.rows(
            "SELECT m.outcome, count(*) FROM mining m JOIN prompt p ON p.id = m.prompt_id"
            " WHERE m.run_id = :r AND p.policy = :p GROUP BY 1 ORDER BY 1",
            r=origins(self, run_id, policy).pairs, p=policy,
        )  # fmt: skip
        return {r[0]: int(r[1]) for r in rows}

    def pairs_to_train(self, run_id: int, policy: str) -> list[Any]:
        """The pairs of an iteration that no person dropped, with chat and token ids, by id."""
        return self.rows(
            "SELECT r.id, r.weight, p.messages, c.token_ids AS chosen, x.token_ids AS rejected"
            " FROM reviewed_pair r"
            " JOIN prompt p ON p.id = r.prompt_id JOIN candidate c ON c.id = r.chosen_id"
            " JOIN candidate x ON x.id = r.rejected_id"
            " WHERE r.run_id = :r AND p.policy = :p AND r.review <> 'drop' ORDER BY r.id",
            r=origins(self, run_id, policy).pairs, p=policy,
        )  # fmt: skip

    # trainings and measures

    def trained_on(self, run_id: int, policy: str) -> list[Any]:
        """What a training reads, in order."""
        return self.rows(
            "SELECT * FROM trained_on WHERE run_id = :r AND policy = :p ORDER BY position", r=run_id, p=policy
        )

    def frozen_pairs(self, run_id: int, policy: str) -> list[Any]:
        """The pairs a started training reads, in its order, whatever was reviewed since."""
        return self.rows(
            "SELECT r.id, t.weight, p.messages, c.token_ids AS chosen, x.token_ids AS rejected"
            " FROM trained_on t JOIN pair r ON r.id = t.pair_id JOIN prompt p ON p.id = r.prompt_id"
            " JOIN candidate c ON c.id = r.chosen_id JOIN candidate x ON x.id = r.rejected_id"
            " WHERE t.run_id = :r AND t.policy = :p ORDER BY t.position",
            r=run_id, p=policy,
        )  # fmt: skip

    def put_metrics(self, metrics: Sequence[Metric]) -> None:
        """Inserts or replaces metric rows; one without a finite value is an event too."""
        odd = [m for m in metrics if m.value is None]
        with self.transaction() as connection:
            for metric in metrics:
                _upsert(connection, metric)
            self.add(
                [
                    self.event(m.run_id, "not_finite", policy=m.policy, metric=m.name, step=m.step)
                    for m in odd
                ],
                connection,
            )

    def put_findings(self, *records: SQLModel) -> None:
        """Inserts or replaces alarm rows."""
        with self.transaction() as connection:
            for record in records:
                _upsert(connection, record)

    def answers(self, run_id: int, policy: str, suite: str) -> list[Any]:
        """Answers of a policy to a suite, in the order they were committed."""
        return self.rows(
            "SELECT * FROM answer WHERE run_id = :r AND policy = :p AND suite = :s ORDER BY id",
            r=self._measured(run_id, policy, suite),
            p=policy,
            s=suite,
        )

    def ungraded(self, run_id: int, policy: str, suite: str) -> list[Any]:
        """Readable answers of a policy to a suite that no grader has graded, in order."""
        return self.rows(
            "SELECT * FROM answer a WHERE run_id = :r AND policy = :p AND suite = :s"
            " AND fault IS NULL AND NOT EXISTS"
            " (SELECT 1 FROM evaluation e WHERE e.answer_id = a.id) ORDER BY id",
            r=self._measured(run_id, policy, suite), p=policy, s=suite,
        )  # fmt: skip

    def grades(self, run_id: int, policy: str, suite: str) -> list[Any]:
        """Grades of a suite with item, turn and answer fault, unread ones included.

        A faulted answer has score NULL.
        """
        return self.rows(
            "SELECT a.item, a.turn, coalesce(a.fault, e.fault) AS fault, e.score, e.grader FROM answer a"
            " LEFT JOIN evaluation e ON e.answer_id = a.id"
            " WHERE a.run_id = :r AND a.policy = :p AND a.suite = :s ORDER BY a.id",
            r=self._measured(run_id, policy, suite), p=policy, s=suite,
        )  # fmt: skip

    def _measured(self, run_id: int, policy: str, suite: str) -> int:
        """The run whose answers to a suite these are."""
        return origin(self, run_id, policy, "probe" if suite == "probe" else "evaluate")

    def metric(self, run_id: int, policy: str, name: str) -> Any:
        """A policy's metric row at its last step, or None."""
        return self.one(
            "SELECT * FROM metric m WHERE m.policy = :p AND m.name = :n AND m.run_id ="
            " coalesce((SELECT s.made_in FROM stage s WHERE s.run_id = :r AND s.policy = m.policy"
            " AND s.name = m.stage), :r) ORDER BY m.step DESC LIMIT 1",
            r=run_id, p=policy, n=name,
        )  # fmt: skip


def _upsert(connection: Connection, record: SQLModel) -> None:
    """INSERT … ON CONFLICT DO UPDATE on the primary key (REPLACE would delete rows that others refer to)."""
    from sqlalchemy.dialects.sqlite import insert

    table: Any = type(record).__table__  # type: ignore[attr-defined]
    values = {c.name: getattr(record, c.name) for c in table.columns}
    keys = [c.name for c in table.primary_key]
    statement = insert(table).values(**values)
    rest = {k: v for k, v in values.items() if k not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))
