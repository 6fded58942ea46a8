"""What the doors show: read-only queries that never block the writer."""

from __future__ import annotations

import json
from typing import Any

from selfreward.ids import MAX_SAMPLES, MAX_SLOTS, candidate_id, prompt_id
from selfreward.store.database import Database
from selfreward.store.finding import PairFilter, find_pairs
from selfreward.store.lineage import addressed, branch_id, origins, pairs_of, runs


class Views(Database):
    """A read-only view of a run's file."""

    def status(self, run_id: int = 1) -> dict[str, list[Any]]:
        """Policies, stages, alarms and the probe and evaluation metrics of a run."""
        return {
            "policies": self.rows("SELECT * FROM policy WHERE run_id = :r ORDER BY idx", r=run_id),
            "stages": self.rows("SELECT * FROM stage WHERE run_id = :r", r=run_id),
            "alarms": self.rows(
                "SELECT * FROM alarm WHERE run_id = :r ORDER BY policy, stage, signal", r=run_id
            ),
            "metrics": self.rows(
                "SELECT * FROM metric m WHERE m.stage IN ('probe', 'evaluate') AND m.run_id ="
                " coalesce((SELECT s.made_in FROM stage s WHERE s.run_id = :r AND s.policy = m.policy"
                " AND s.name = m.stage), :r) ORDER BY m.policy, m.name",
                r=run_id,
            ),
        }

    def runs(self) -> list[Any]:
        """Every run of the file, the recipe's own first, then its branches."""
        return runs(self)

    def branch_id(self, name: str | None) -> int:
        """The id of a branch by name, of the recipe's own run for None."""
        return branch_id(self, name)

    def addressed(self, address: str) -> tuple[int, str]:
        """Run and policy of an address such as `M2` or `calmer/M2`."""
        return addressed(self, address)

    def system(self, run_id: int = 1) -> str | None:
        """The system turn the recipe puts before every chat."""
        row = self.one("SELECT json_extract(recipe, '$.model.system') FROM run WHERE id = :r", r=run_id)
        return row[0] if row else None

    def iteration(self, policy: str, run_id: int = 1) -> dict[str, Any]:
        """Counts of an iteration: prompts by source, candidates, judgements, their faults, outcomes.

        Ids say which rows are its own, so that all but the prompts are counted in indexes alone.
        """
        sources = (  # rows as they lie, and no sorting: half the time of asking by policy
            "SELECT coalesce(sum(source = 'seed'), 0), coalesce(sum(source = 'self-instruct'), 0),"
            " coalesce(sum(source = 'user'), 0) FROM prompt"
            " WHERE id BETWEEN :first AND :last AND status = 'accepted'"
        )
        candidates = (
            "SELECT count(*), (SELECT count(*) FROM candidate WHERE run_id = :candidates"
            " AND fault IS NOT NULL AND prompt_id BETWEEN :first AND :last) FROM candidate"
            " WHERE prompt_id BETWEEN :first AND :last AND run_id = :candidates"
        )
        judgements = (
            "SELECT count(*) FROM judgement"
            " WHERE candidate_id BETWEEN :lowest AND :highest AND run_id = :judge"
        )
        faults = (
            "SELECT count(*) FROM judgement WHERE run_id = :judge AND fault IS NOT NULL"
            " AND candidate_id BETWEEN :lowest AND :highest"
        )
        outcomes = (
            "SELECT outcome, count(*) FROM mining"
            " WHERE run_id = :pairs AND prompt_id BETWEEN :first AND :last GROUP BY 1"
        )
        made, idx = origins(self, run_id, policy), int(policy[1:])
        first, lowest = prompt_id(made.prompts, idx, 0), candidate_id(made.candidates, idx, 0, 0)
        here = made._asdict() | {"p": policy, "first": first, "last": first + MAX_SLOTS - 1}
        here |= {"lowest": lowest, "highest": lowest + MAX_SLOTS * MAX_SAMPLES - 1}
        judged = self.one(judgements, **here)[0]
        named = zip(("seed", "self-instruct", "user"), self.one(sources, **here), strict=True)
        return {
            "prompts": {source: n for source, n in named if n},
            "candidates": tuple(self.one(candidates, **here)),
            "judgements": (judged, self.one(faults, **here)[0] if judged else 0),
            "outcomes": {r[0]: r[1] for r in self.rows(outcomes, **here)},
        }

    def pairs(
        self,
        *,
        of: str | None = None,
        min_margin: float = 0.0,
        search: str | None = None,
        limit: int,
        sort: str = "id",
        fault: str | None = None,
        scorer: str | None = None,
        review: str | None = None,
        run_id: int = 1,
    ) -> list[Any]:
        """Pairs with prompt and texts; `sort` is `margin`, `id` or `-margin`."""
        wanted = PairFilter(of, min_margin, search, fault, scorer, review, sort)
        return find_pairs(self, wanted, limit=limit, run_id=run_id).rows

    def outcomes(
        self,
        *,
        of: str | None,
        outcome: str,
        limit: int,
        min_margin: float = 0.0,
        search: str | None = None,
        fault: str | None = None,
        scorer: str | None = None,
        run_id: int = 1,
    ) -> list[Any]:
        """Prompts of an iteration that were mined with that outcome; one without a margin counts as 0."""
        run_id, of = pairs_of(self, of, run_id)
        return self.rows(
            "SELECT p.id, p.policy, p.text AS prompt, m.outcome, m.margin, m.detail"
            " FROM mining m JOIN prompt p ON p.id = m.prompt_id"
            " WHERE m.run_id = :r AND m.outcome = :o AND (:of IS NULL OR p.policy = :of)"
            " AND coalesce(m.margin, 0) >= :m"
            " AND (:q IS NULL OR instr(lower(p.text), lower(:q)) OR EXISTS (SELECT 1 FROM candidate c"
            " WHERE c.prompt_id = p.id AND c.run_id = m.run_id AND instr(lower(c.text), lower(:q))))"
            " AND (:f IS NULL OR EXISTS (SELECT 1 FROM candidate c LEFT JOIN judgement j"
            " ON j.candidate_id = c.id AND j.run_id = c.run_id AND (:s IS NULL OR j.scorer = :s)"
            " WHERE c.prompt_id = p.id AND c.run_id = m.run_id AND :f IN (c.fault, j.fault)))"
            " AND (:s IS NULL OR EXISTS (SELECT 1 FROM candidate c JOIN judgement j"
            " ON j.candidate_id = c.id AND j.run_id = c.run_id AND j.scorer = :s"
            " WHERE c.prompt_id = p.id AND c.run_id = m.run_id))"
            " ORDER BY p.id LIMIT :n",
            o=outcome, of=of, n=limit, m=min_margin, q=search, f=fault, s=scorer, r=run_id,
        )  # fmt: skip

    def pair(self, pair_id: int) -> dict[str, Any] | None:
        """One pair with everything it came from: prompt, parents, candidates, judgements, rubric, adapter."""
        row = self.one(
            "SELECT r.*, p.policy, p.text AS prompt, p.messages, p.source, p.parents, p.round"
            " FROM reviewed_pair r"
            " JOIN prompt p ON p.id = r.prompt_id WHERE r.id = :i",
            i=pair_id,
        )
        if row is None:
            return None
        judged = (
            "SELECT * FROM judgement WHERE run_id = :r AND candidate_id = :c"
            " ORDER BY scorer, sample, other_id, position"
        )
        return {
            "pair": row,
            "chosen": self.one("SELECT * FROM candidate WHERE id = :c", c=row.chosen_id),
            "rejected": self.one("SELECT * FROM candidate WHERE id = :c", c=row.rejected_id),
            "chosen_judgements": self.rows(judged, r=row.run_id, c=row.chosen_id),
            "rejected_judgements": self.rows(judged, r=row.run_id, c=row.rejected_id),
            "parents": self.rows(
                "SELECT p.id, p.policy, p.source, p.text FROM json_each(:ids) e"
                " JOIN prompt p ON p.id = e.value",
                ids=row.parents,
            ),
            "scorer": self.one(
                "SELECT * FROM scorer WHERE run_id = :r AND policy = :p", r=row.run_id, p=row.policy
            ),
            "rubric": self.one(
                "SELECT u.* FROM scorer s JOIN rubric u ON u.sha256 = s.rubric_sha256"
                " WHERE s.run_id = :r AND s.policy = :p",
                r=row.run_id, p=row.policy,
            ),
            "scorers": self.rows(
                "SELECT s.*, u.name AS rubric FROM scorer s LEFT JOIN rubric u ON u.sha256 = s.rubric_sha256"
                " WHERE s.run_id = :r AND s.policy = :p ORDER BY s.name",
                r=row.run_id, p=row.policy,
            ),
            "policy": self.one(
                "SELECT * FROM policy WHERE run_id = :r AND name = :p", r=row.run_id, p=row.policy
            ),
            "trained": self.rows(
                "SELECT run_id, policy, kind, weight, split FROM trained_on WHERE pair_id = :i"
                " ORDER BY run_id, policy",
                i=pair_id,
            ),
        }  # fmt: skip

    def reviewed(self, of: str | None = None) -> list[Any]:
        """Reviewed pairs by scorer: policy, review, note, margin, and the scorer's mean score of each side.

        A scorer that gave a side no readable score leaves NULL there.
        """
        run_id, policy = pairs_of(self, of)
        mean = (
            "(SELECT avg(j.score) FROM judgement j WHERE j.candidate_id = {} AND j.run_id = v.run_id"
            " AND j.scorer = s.name AND j.other_id = 0)"
        )
        return self.rows(
            "SELECT r.id, p.policy, v.review, r.margin, s.name AS scorer,"
            f" {mean.format('r.chosen_id')} AS chosen, {mean.format('r.rejected_id')} AS rejected"
            " FROM review v CROSS JOIN pair r ON r.run_id = v.run_id AND r.chosen_id = v.chosen_id"
            " AND r.rejected_id = v.rejected_id JOIN prompt p ON p.id = r.prompt_id"
            " LEFT JOIN scorer s ON s.run_id = v.run_id AND s.policy = p.policy"
            " WHERE r.run_id = :r AND (:of IS NULL OR p.policy = :of) ORDER BY r.id, s.name",
            of=policy, r=run_id,
        )  # fmt: skip

    def pair_numbers(self, of: str | None) -> list[Any]:
        """Per pair: policy, margin, scores and the token counts of both texts, by id."""
        run_id, policy = pairs_of(self, of)
        return self.rows(
            "SELECT p.policy, r.margin, r.chosen_score, r.rejected_score,"
            " c.n_tokens AS chosen_tokens, x.n_tokens AS rejected_tokens"
            " FROM pair r JOIN prompt p ON p.id = r.prompt_id JOIN candidate c ON c.id = r.chosen_id"
            " JOIN candidate x ON x.id = r.rejected_id"
            " WHERE r.run_id = :r AND (:of IS NULL OR p.policy = :of) ORDER BY r.id",
            of=policy, r=run_id,
        )  # fmt: skip

    def mining_counts(self, of: str | None) -> list[Any]:
        """(policy, outcome, n) of every mined iteration."""
        run_id, policy = pairs_of(self, of)
        return self.rows(
            "SELECT p.policy, m.outcome, count(*) AS n FROM mining m JOIN prompt p ON p.id = m.prompt_id"
            " WHERE m.run_id = :r AND (:of IS NULL OR p.policy = :of) GROUP BY 1, 2 ORDER BY 1, 3 DESC",
            of=policy, r=run_id,
        )  # fmt: skip

    def prompts(self, *, of: str | None, status: str | None, source: str | None, limit: int) -> list[Any]:
        """Prompts with what became of them, seed prompts only when asked for as M0's."""
        run_id, policy = self.addressed(of) if of and "/" in of else (1, of)
        made = origins(self, run_id, policy) if policy else None
        return self.rows(
            "SELECT p.id, p.policy, p.round, p.source, p.status, p.reason, p.text, m.outcome FROM prompt p"
            " LEFT JOIN mining m ON m.prompt_id = p.id AND m.run_id = :mined"
            " WHERE p.run_id = :r AND (p.policy = :of OR (:of IS NULL AND p.policy <> 'M0'))"
            " AND (:st IS NULL OR p.status = :st)"
            " AND (:so IS NULL OR p.source = :so) ORDER BY p.id LIMIT :n",
            of=policy, st=status, so=source, n=limit,
            r=made.prompts if made else run_id, mined=made.pairs if made else run_id,
        )  # fmt: skip

    def recipe(self, run_id: int = 1) -> str | None:
        """The recipe in force, as JSON."""
        row = self.one("SELECT recipe FROM run WHERE id = :r", r=run_id)
        return row[0] if row else None

    def spent(self, run_id: int = 1) -> dict[str, list[Any]]:
        """What a run has taken so far, for the plan of another: texts, tokens and seconds."""
        queries = {
            "recipe": "SELECT recipe FROM run WHERE id = :r",
            "stages": "SELECT policy, name, n_done, n_tokens, seconds FROM stage"
            " WHERE run_id = :r AND status = 'done'",
            "prompts": "SELECT messages FROM prompt"
            " WHERE run_id = :r AND policy <> 'M0' AND status = 'accepted' ORDER BY id",
            "rounds": "SELECT policy, max(round) AS n FROM prompt"
            " WHERE run_id = :r AND source = 'self-instruct' GROUP BY policy",
            "candidates": "SELECT count(*) AS n, avg(n_tokens) AS tokens FROM candidate"
            " WHERE run_id = :r AND n_tokens IS NOT NULL",
            "judgements": "SELECT count(*) AS n, avg(length(CAST(raw AS BLOB))) AS size FROM judgement"
            " WHERE run_id = :r",
            "pairs": "SELECT count(*) AS n, avg(c.n_tokens) AS chosen, avg(x.n_tokens) AS rejected"
            " FROM pair r JOIN candidate c ON c.id = r.chosen_id JOIN candidate x ON x.id = r.rejected_id"
            " WHERE r.run_id = :r",
            "trained": "SELECT count(*) AS n FROM trained_on t JOIN stage s ON s.run_id = t.run_id"
            " AND s.policy = t.policy AND s.name = 'train' AND s.status = 'done'"
            " WHERE t.run_id = :r AND t.kind = 'pair'",
            "mined": "SELECT count(*) AS n FROM mining WHERE run_id = :r",
            "answers": "SELECT suite, count(*) AS n, avg(n_tokens) AS tokens FROM answer"
            " WHERE run_id = :r AND n_tokens IS NOT NULL GROUP BY suite",
        }
        return {name: self.rows(sql, r=run_id) for name, sql in queries.items()}

    def gpus(self, run_id: int = 1) -> dict[tuple[str, str], int]:
        """How many GPUs each (policy, stage) kept busy, those alone that had any."""
        rows = self.rows(
            "SELECT json_extract(detail, '$.policy'), json_extract(detail, '$.stage'),"
            " max(json_extract(detail, '$.n')) FROM event WHERE run_id = :r AND kind = 'gpus' GROUP BY 1, 2",
            r=run_id,
        )
        return {(r[0], r[1]): r[2] for r in rows}

    def evaluated(self, run_id: int = 1) -> dict[str, str]:
        """How far the stage `evaluate` of each policy is, in the order of policies."""
        rows = self.rows(
            "SELECT p.name, coalesce(s.status, 'pending') FROM policy p LEFT JOIN stage s"
            " ON s.run_id = p.run_id AND s.policy = p.name AND s.name = 'evaluate'"
            " WHERE p.run_id = :r ORDER BY p.idx",
            r=run_id,
        )
        return {r[0]: r[1] for r in rows}

    def grades(self, policy: str, run_id: int = 1) -> list[Any]:
        """Every evaluation answer of a policy with its seed and grade, one row a grader, by suite and item.

        A faulted answer has neither score nor grader. A branch has the rows of the run that made them.
        """
        return self.rows(
            "SELECT a.suite, a.item, a.turn, a.sample, a.seed, e.grader, e.score"
            " FROM stage s JOIN answer a ON a.run_id = s.made_in AND a.policy = s.policy"
            " AND a.suite <> 'probe' LEFT JOIN evaluation e ON e.answer_id = a.id AND e.against_id = 0"
            " WHERE s.run_id = :r AND s.policy = :p AND s.name = 'evaluate'"
            " ORDER BY a.suite, a.item, a.turn, a.sample, e.grader",
            r=run_id, p=policy,
        )  # fmt: skip

    def protocols(self, policy: str, run_id: int = 1) -> dict[str, dict[str, Any]]:
        """What decided a policy's answers besides itself, by suite, where a suite was asked."""
        rows = self.rows(
            "SELECT e.detail FROM stage s JOIN event e ON e.run_id = s.made_in AND e.kind = 'protocol'"
            " AND json_extract(e.detail, '$.policy') = s.policy"
            " WHERE s.run_id = :r AND s.policy = :p AND s.name = 'evaluate' ORDER BY e.id",
            r=run_id, p=policy,
        )  # fmt: skip
        found = [json.loads(row[0]) for row in rows]
        return {told["suite"]: told["decides"] for told in found}
