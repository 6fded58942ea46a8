"""What a report tells of a run, counted by SQLite: distributions, faults, costs, who trained on what."""

from __future__ import annotations

from typing import Any

from selfreward.ids import MAX_SAMPLES, MAX_SLOTS
from selfreward.store.glances import OF_CANDIDATE, Glances

BINS = 30  # of a histogram
OF_JUDGED = f"(j.candidate_id / {MAX_SLOTS * MAX_SAMPLES}) % 64"
OF_ANSWER = f"(c.id / {MAX_SLOTS * MAX_SAMPLES}) % 64"


class Accounts(Glances):
    """A view for reports: every query is one scan of a table at most, its answer a few rows a policy."""

    def judged(self, run_id: int = 1) -> list[Any]:
        """(idx, scorer, n, faults, mean) of the judgements of each policy's candidates; faults have no score.

        `n` counts all of them.
        """
        return self.rows(
            f"SELECT {OF_JUDGED} AS idx, j.scorer, count(*) AS n, count(j.fault) AS faults,"
            " avg(j.score) AS mean FROM judgement j WHERE j.run_id = :r GROUP BY 1, 2 ORDER BY 1, 2",
            r=run_id,
        )

    def score_bins(self, run_id: int = 1) -> list[Any]:
        """(idx, scorer, low, high, bin, n): scores in `BINS` equal parts of what that scorer ever gave."""
        return self.rows(
            "WITH span AS (SELECT scorer, min(score) AS low, max(score) AS high FROM judgement"
            " WHERE run_id = :r AND score IS NOT NULL GROUP BY 1)"
            f" SELECT {OF_JUDGED} AS idx, j.scorer, s.low, s.high, CASE WHEN s.high > s.low THEN"
            " min(:bins - 1, CAST((j.score - s.low) / (s.high - s.low) * :bins AS INTEGER)) ELSE 0 END"
            " AS bin, count(*) AS n FROM judgement j JOIN span s ON s.scorer = j.scorer"
            " WHERE j.run_id = :r AND j.score IS NOT NULL GROUP BY 1, 2, 5 ORDER BY 2, 1, 5",
            r=run_id, bins=BINS,
        )  # fmt: skip

    def answered(self, run_id: int = 1) -> list[Any]:
        """(idx, n, faults, cut, tokens): each policy's candidates; `tokens` is their mean length."""
        return self.rows(
            f"SELECT {OF_ANSWER} AS idx, count(*) AS n, count(c.fault) AS faults,"
            " sum(coalesce(c.finish = 'length', 0)) AS cut, avg(c.n_tokens) AS tokens"
            " FROM candidate c WHERE c.run_id = :r GROUP BY 1 ORDER BY 1",
            r=run_id,
        )

    def length_bins(self, run_id: int = 1) -> list[Any]:
        """(idx, high, bin, n): candidates' tokens in `BINS` equal parts from 0 to the longest."""
        return self.rows(
            "WITH span AS (SELECT max(max(n_tokens), 1) AS high FROM candidate WHERE run_id = :r)"
            f" SELECT {OF_ANSWER} AS idx, s.high, min(:bins - 1, c.n_tokens * :bins / s.high) AS bin,"
            " count(*) AS n FROM candidate c, span s WHERE c.run_id = :r AND c.n_tokens IS NOT NULL"
            " GROUP BY 1, 3 ORDER BY 1, 3",
            r=run_id, bins=BINS,
        )  # fmt: skip

    def answer_faults(self, run_id: int = 1) -> list[Any]:
        """(idx, fault, n) of candidates that were never made, the most frequent first."""
        return self.rows(
            f"SELECT {OF_ANSWER} AS idx, c.fault, count(*) AS n FROM candidate c"
            " WHERE c.run_id = :r AND c.fault IS NOT NULL GROUP BY 1, 2 ORDER BY 3 DESC",
            r=run_id,
        )

    def pair_means(self, run_id: int = 1) -> list[Any]:
        """(idx, n, margin, chosen, rejected, chosen_tokens, rejected_tokens, chosen_longer) by iteration."""
        return self.rows(
            f"SELECT {OF_CANDIDATE} AS idx, count(*) AS n, avg(margin) AS margin,"
            " avg(chosen_score) AS chosen, avg(rejected_score) AS rejected, avg(c.n_tokens) AS chosen_tokens,"
            " avg(x.n_tokens) AS rejected_tokens, avg(c.n_tokens > x.n_tokens) AS chosen_longer"
            " FROM pair JOIN candidate c ON c.id = chosen_id JOIN candidate x ON x.id = rejected_id"
            " WHERE pair.run_id = :r GROUP BY 1 ORDER BY 1",
            r=run_id,
        )

    def trained_rows(self, run_id: int = 1) -> list[Any]:
        """(policy, kind, n): what each training read."""
        return self.rows(
            "SELECT policy, kind, count(*) AS n FROM trained_on WHERE run_id = :r AND split = 'train'"
            " GROUP BY 1, 2 ORDER BY 1, 2",
            r=run_id,
        )

    def measures(self, run_id: int = 1) -> list[Any]:
        """(idx, policy, stage, name, step, value, low, high) of all that was measured, oldest policy first.

        Metrics; what the gates held against a threshold, as `gate/SIGNAL`; and of each stage that is done its
        seconds and tokens, as `cost/…`. What is not a finite number is left out.
        """
        return self.rows(
            "SELECT p.idx, m.* FROM (SELECT run_id, policy, stage, name, step, value, low, high FROM metric"
            " UNION ALL SELECT run_id, policy, stage, 'gate/' || signal, 0, value, low, high FROM alarm"
            " UNION ALL SELECT run_id, policy, name, 'cost/seconds', 0, seconds, NULL, NULL FROM stage"
            " WHERE status = 'done'"
            " UNION ALL SELECT run_id, policy, name, 'cost/tokens', 0, n_tokens, NULL, NULL FROM stage"
            " WHERE status = 'done') m JOIN policy p ON p.run_id = m.run_id AND p.name = m.policy"
            " WHERE m.run_id = :r AND m.value IS NOT NULL ORDER BY p.idx, m.stage, m.name, m.step",
            r=run_id,
        )

    def rubrics(self) -> list[Any]:
        """Name, kind, scale and hash of every rubric that was read."""
        return self.rows("SELECT name, kind, low, high, sha256 FROM rubric ORDER BY name, sha256")

    def events_of(self, kind: str, run_id: int = 1) -> list[Any]:
        """(at, detail) of all events of a kind, in order."""
        return self.rows(
            "SELECT at, detail FROM event WHERE run_id = :r AND kind = :k ORDER BY id", r=run_id, k=kind
        )
