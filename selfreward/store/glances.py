"""What pages show of a run, asked so that it stays quick with millions of rows: counters, indexes, keys."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from selfreward.ids import MAX_SAMPLES, MAX_SLOTS
from selfreward.store.finding import EXCERPT, Found, Key, PairFilter, find_pairs
from selfreward.store.views import Views

# What may become of a prompt, as the store spells it.
OUTCOMES = (
    "pair", "tie", "below_margin", "too_few_scores", "identical_text", "truncated", "too_long",
    "dropped_by_review", "filtered",
)  # fmt: skip
OF_CANDIDATE = f"(chosen_id / {MAX_SLOTS * MAX_SAMPLES}) % 64"


@dataclass(frozen=True, slots=True)
class PromptFilter:
    """Which prompts; the fields are the columns they are named after, `outcome` that of `mining`."""

    of: str | None = None
    status: str | None = None
    source: str | None = None
    outcome: str | None = None
    search: str | None = None


class Glances(Views):
    """A view for pages; a policy's rows are known by their ids, so that counting reads an index alone."""

    def run(self, run_id: int = 1) -> Any:
        """The run's row, or None."""
        return self.one("SELECT * FROM run WHERE id = :r", r=run_id)

    def page(
        self,
        wanted: PairFilter,
        limit: int,
        *,
        after: Key | None = None,
        backwards: bool = False,
        budget: float | None = None,
    ) -> Found:
        """A page of pairs beyond a key, with excerpts of their texts."""
        return find_pairs(
            self, wanted, limit=limit, after=after, backwards=backwards, budget=budget, excerpts=True
        )

    def place_of(self, pair_id: int) -> Key | None:
        """Where a pair stands in any order."""
        row = self.one("SELECT margin, id FROM pair WHERE id = :i", i=pair_id)
        return Key(float(row.margin), int(row.id)) if row else None

    def outcomes_by_policy(self, run_id: int = 1) -> dict[str, dict[str, int]]:
        """Mining rows by policy and outcome, the most frequent first."""
        first = f"(coalesce(q.made_in, p.run_id) * 64 + p.idx) * {MAX_SLOTS}"
        made = "LEFT JOIN stage {0} ON {0}.run_id = p.run_id AND {0}.policy = p.name AND {0}.name = '{1}'"
        rows = self.rows(
            "SELECT p.name, o.value AS outcome, (SELECT count(*) FROM mining m"
            " WHERE m.run_id = coalesce(s.made_in, p.run_id)"
            f" AND m.outcome = o.value AND m.prompt_id BETWEEN {first} AND {first} + {MAX_SLOTS - 1}) AS n"
            f" FROM policy p {made.format('s', 'pairs')} {made.format('q', 'prompts')}"
            " JOIN json_each(:outcomes) o WHERE p.run_id = :r ORDER BY p.idx, 3 DESC",
            r=run_id, outcomes=json.dumps(OUTCOMES),
        )  # fmt: skip
        found: dict[str, dict[str, int]] = {}
        for row in rows:
            if row.n:
                found.setdefault(row.name, {})[row.outcome] = row.n
        return found

    def reviews_by_policy(self, run_id: int = 1) -> dict[str, dict[str, int]]:
        """Reviews by policy and verdict."""
        rows = self.rows(
            f"SELECT {OF_CANDIDATE} AS idx, review, count(*) AS n FROM review WHERE run_id = :r"
            " GROUP BY 1, 2",
            r=run_id,
        )
        found: dict[str, dict[str, int]] = {}
        for row in rows:
            found.setdefault(f"M{row.idx}", {})[row.review] = row.n
        return found

    def faults(self, run_id: int = 1) -> list[Any]:
        """(scorer, fault, n) of what could not be read or judged, the most frequent first."""
        return self.rows(
            "SELECT scorer, fault, count(*) AS n FROM judgement WHERE run_id = :r AND fault IS NOT NULL"
            " GROUP BY 1, 2 ORDER BY 3 DESC", r=run_id,
        )  # fmt: skip

    def scorers(self, run_id: int = 1) -> list[Any]:
        """Who scored, by policy."""
        return self.rows("SELECT * FROM scorer WHERE run_id = :r ORDER BY policy, name", r=run_id)

    def events(self, limit: int, run_id: int = 1) -> list[Any]:
        """The latest events, newest first."""
        return self.rows("SELECT * FROM event WHERE run_id = :r ORDER BY id DESC LIMIT :n", r=run_id, n=limit)

    def curves(self, policy: str, run_id: int = 1) -> dict[str, list[Any]]:
        """What a training wrote down at its steps, by measure: rows of (step, value, n)."""
        rows = self.rows(
            "SELECT stage, name, step, value, n FROM metric WHERE run_id = :r AND policy = :p"
            " AND stage IN ('sft', 'train') ORDER BY name, step", r=run_id, p=policy,
        )  # fmt: skip
        found: dict[str, list[Any]] = {}
        for row in rows:
            found.setdefault(row.name, []).append(row)
        return found

    def prompt_page(self, wanted: PromptFilter, *, after: int, limit: int, run_id: int = 1) -> list[Any]:
        """Prompts of an id above `after`, in order; seed prompts only when asked for as M0's."""
        tables, key = "prompt p LEFT JOIN mining m ON m.run_id = p.run_id AND m.prompt_id = p.id", "p.id"
        where = ["p.id > :after", "+p.run_id = :r"]
        if wanted.outcome:
            tables, key = "mining m CROSS JOIN prompt p ON p.id = m.prompt_id", "m.prompt_id"
            where = ["m.prompt_id > :after", "m.run_id = :r AND m.outcome = :outcome"]
        where.append("+p.policy = :of" if wanted.of else "+p.policy <> 'M0'")
        for value, condition in (
            (wanted.status, "p.status = :status"),
            (wanted.source, "p.source = :source"),
            (wanted.search, "instr(lower(p.text), lower(:search))"),
        ):
            if value:
                where.append(condition)
        return self.rows(
            "SELECT p.id, p.policy, p.round, p.source, p.status, p.reason,"
            f" substr(p.text, 1, {EXCERPT}) AS text, m.outcome, m.margin"
            f" FROM {tables} WHERE {' AND '.join(where)} ORDER BY {key} LIMIT :n",
            **asdict(wanted), after=after, n=limit, r=run_id,
        )  # fmt: skip

    def prompt(self, prompt_id: int) -> dict[str, Any] | None:
        """A prompt with its parents, its mining row, its pairs, and its answers with their judgements."""
        row = self.one("SELECT * FROM prompt WHERE id = :i", i=prompt_id)
        if row is None:
            return None
        return {
            "prompt": row,
            "parents": self.rows(
                "SELECT p.id, p.policy, p.source, p.text FROM json_each(:ids) e"
                " JOIN prompt p ON p.id = e.value",
                ids=row.parents,
            ),
            "mining": self.one("SELECT * FROM mining WHERE prompt_id = :i ORDER BY run_id", i=prompt_id),
            "pairs": self.rows(
                "SELECT id, chosen_id, rejected_id, margin, review FROM reviewed_pair"
                " WHERE prompt_id = :i ORDER BY id",
                i=prompt_id,
            ),
            "candidates": self.rows(
                "SELECT c.id, c.sample, c.text, c.n_tokens, c.finish, c.fault, c.seed,"
                " (SELECT avg(j.score) FROM judgement j WHERE j.candidate_id = c.id AND j.other_id = 0)"
                " AS score,"
                " (SELECT group_concat(DISTINCT j.fault) FROM judgement j WHERE j.candidate_id = c.id)"
                " AS faults FROM candidate c WHERE c.prompt_id = :i ORDER BY c.run_id, c.sample",
                i=prompt_id,
            ),
        }
