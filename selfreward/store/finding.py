"""Finding pairs among hundreds of thousands: page by key along an index, texts read for the rows shown alone.

A search reads texts, so it goes in windows and may stop after `budget` seconds with the key to go on from.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from selfreward.ids import pair_id
from selfreward.store.database import Database
from selfreward.store.lineage import pairs_of

SORTS = ("id", "margin", "-margin")
REVIEWS = ("auto", "keep", "drop")
WINDOW = 2000  # pairs a search reads first; then five times as many at a time

EXCERPT = 240  # characters of each text, around what was searched for

FROM = (
    " FROM json_each(:ids) e CROSS JOIN reviewed_pair r ON r.id = e.value"
    " JOIN prompt p ON p.id = r.prompt_id JOIN candidate c ON c.id = r.chosen_id"
    " JOIN candidate x ON x.id = r.rejected_id ORDER BY e.key"
)
NUMBERS = "r.chosen_score, r.rejected_score, r.margin, r.rule, r.review"
DETAILS = (
    "SELECT r.id, p.policy, p.text AS prompt, p.messages, p.source, c.text AS chosen, x.text AS rejected,"
    f" {NUMBERS}{FROM}"
)


def _excerpt(text: str) -> str:
    return (
        f"substr({text}, max(1, instr(lower({text}), lower(coalesce(:q, ''))) - {EXCERPT // 3}), {EXCERPT})"
    )


EXCERPTS = (
    f"SELECT r.id, p.policy, {_excerpt('p.text')} AS prompt, {_excerpt('c.text')} AS chosen,"
    f" {_excerpt('x.text')} AS rejected, {NUMBERS}{FROM}"
)
# A window of pairs in order (w): those with the text, then the last one looked at, then how many there were.
HITS = (
    "WITH w AS MATERIALIZED (SELECT r.margin, r.id, r.prompt_id, r.chosen_id, r.rejected_id {window})"
    " SELECT * FROM (SELECT 'hit' AS kind, r.margin, r.id FROM w r CROSS JOIN prompt p ON p.id = r.prompt_id"
    " CROSS JOIN candidate c ON c.id = r.chosen_id CROSS JOIN candidate x ON x.id = r.rejected_id"
    " WHERE p.text LIKE :like ESCAPE '\\' OR c.text LIKE :like ESCAPE '\\' OR x.text LIKE :like ESCAPE '\\'"
    " ORDER BY {order} LIMIT :limit)"
    " UNION ALL SELECT * FROM (SELECT 'last', r.margin, r.id FROM w r ORDER BY {reverse} LIMIT 1)"
    " UNION ALL SELECT 'count', 0.0, count(*) FROM w"
)
# Rare faults: from the judgements that have them. Frequent ones: from the pairs, which soon have enough.
FREQUENT = 2000
FAULTY = (
    "r.prompt_id IN (SELECT k.prompt_id FROM judgement j JOIN candidate k ON k.id = j.candidate_id"
    " WHERE j.run_id = :r AND j.fault = :fault AND (:scorer IS NULL OR j.scorer = :scorer)"
    " UNION ALL SELECT prompt_id FROM candidate WHERE run_id = :r AND fault = :fault)"
)
OFTEN_FAULTY = (
    "EXISTS (SELECT 1 FROM candidate k LEFT JOIN judgement j ON j.candidate_id = k.id AND j.run_id = :r"
    " AND (:scorer IS NULL OR j.scorer = :scorer)"
    " WHERE k.prompt_id = r.prompt_id AND k.run_id = :r AND :fault IN (k.fault, j.fault))"
)
HOW_FAULTY = (
    "SELECT count(*) FROM (SELECT 1 FROM judgement WHERE run_id = :r AND fault = :fault"
    f" AND (:scorer IS NULL OR scorer = :scorer) LIMIT {FREQUENT})"
)


@dataclass(frozen=True, slots=True)
class PairFilter:
    """Which pairs, in which order; the fields are the options of `pairs list`.

    `fault`: a judgement or an answer of the prompt has it. `scorer`: it judged the chosen text.
    `review` is auto (nobody looked), keep or drop.
    """

    of: str | None = None
    min_margin: float = 0.0
    search: str | None = None
    fault: str | None = None
    scorer: str | None = None
    review: str | None = None
    sort: str = "id"


class Key(NamedTuple):
    """A place in an order: what a page goes on from."""

    margin: float
    id: int


@dataclass(frozen=True, slots=True)
class Found:
    """A page of pairs. `stopped` is where a search ran out of budget, None when it did not."""

    rows: list[Any]
    searched: int
    stopped: Key | None


def find_pairs(
    db: Database,
    wanted: PairFilter,
    *,
    limit: int,
    after: Key | None = None,
    backwards: bool = False,
    budget: float | None = None,
    excerpts: bool = False,
    run_id: int = 1,
) -> Found:
    """At most `limit` pairs after a key, in order; `backwards` gives those before it, nearest first.

    `excerpts`: of each text only what a list shows, however long it is.
    """
    details = EXCERPTS if excerpts else DETAILS
    if wanted.scorer and not _scored(db, wanted, run_id):
        return Found([], 0, None)
    if not wanted.search:
        sql, values, _ = _ordered(db, wanted, after, backwards, run_id)
        keys = db.rows(f"SELECT r.id {sql}", **values, n=limit)
        return Found(_rows(db, details, [k.id for k in keys], None), len(keys), None)
    hits: list[int] = []
    searched, size = 0, WINDOW
    end = None if budget is None else time.monotonic() + budget
    while not searched or end is None or time.monotonic() < end:
        found, count, last = _window(db, wanted, after, backwards, run_id, size, limit)
        hits += found
        searched += count
        if len(hits) >= limit or count < size:
            return Found(_rows(db, details, hits[:limit], wanted.search), searched, None)
        after, size = last, 5 * WINDOW
    return Found(_rows(db, details, hits, wanted.search), searched, after)


def _scored(db: Database, wanted: PairFilter, run_id: int) -> bool:
    """Whether the scorer was set to work on any of these pairs: if not, none of them need be looked at."""
    run_id, of = pairs_of(db, wanted.of, run_id)
    sql = "SELECT 1 FROM scorer WHERE run_id = :r AND name = :s AND (:p IS NULL OR policy = :p) LIMIT 1"
    return db.one(sql, r=run_id, s=wanted.scorer, p=of) is not None


def _window(
    db: Database, wanted: PairFilter, after: Key | None, backwards: bool, run_id: int, size: int, limit: int
) -> tuple[list[int], int, Key | None]:
    """Ids of the hits among the next `size` pairs, how many pairs there were, and the last of them."""
    sql, values, (order, reverse) = _ordered(db, wanted, after, backwards, run_id)
    like = "%" + re.sub(r"([%_\\])", r"\\\1", wanted.search or "") + "%"
    rows = db.rows(
        HITS.format(window=sql, order=order, reverse=reverse), **values, n=size, limit=limit, like=like
    )
    last = next((Key(float(r.margin), int(r.id)) for r in rows if r.kind == "last"), None)
    return [int(r.id) for r in rows if r.kind == "hit"], int(rows[-1].id), last


def _rows(db: Database, details: str, ids: Sequence[int], search: str | None) -> list[Any]:
    return db.rows(details, ids=json.dumps(ids), q=search) if ids else []


def _ordered(
    db: Database, wanted: PairFilter, after: Key | None, backwards: bool, run_id: int
) -> tuple[str, dict[str, Any], tuple[str, str]]:
    """FROM to LIMIT of the pairs beyond a key, its values, and the order with its reverse.

    A plus keeps a condition from choosing the index: the order chooses it.
    """
    by_margin = wanted.sort != "id"
    run_id, of = pairs_of(db, wanted.of, run_id)
    low, high = _ids_of(of, run_id)
    source = "pair r"
    where = ["r.id BETWEEN :low AND :high", "+r.run_id = :r", "+r.margin >= :m"]
    if by_margin:
        where = ["+r.id BETWEEN :low AND :high", "r.run_id = :r", "r.margin >= :m"]
    if wanted.review in ("keep", "drop"):  # few: a person made them
        source = (
            "review v CROSS JOIN pair r ON r.run_id = v.run_id"
            " AND r.chosen_id = v.chosen_id AND r.rejected_id = v.rejected_id"
        )
        where = ["v.run_id = :r", "v.review = :review", "+r.id BETWEEN :low AND :high", "+r.margin >= :m"]
    elif wanted.review == "auto":
        same = "v.run_id = r.run_id AND v.chosen_id = r.chosen_id AND v.rejected_id = r.rejected_id"
        where.append(f"NOT EXISTS (SELECT 1 FROM review v WHERE {same})")
    if wanted.fault:
        often = db.one(HOW_FAULTY, r=run_id, fault=wanted.fault, scorer=wanted.scorer)[0] >= FREQUENT
        where.append(OFTEN_FAULTY if often else FAULTY)
    if wanted.scorer:
        where.append(
            "EXISTS (SELECT 1 FROM judgement j WHERE j.candidate_id = r.chosen_id AND j.run_id = :r"
            " AND j.scorer = :scorer)"
        )
    order, beyond = _order(wanted.sort, backwards)
    if after is not None:
        where.append(beyond)
    values = {
        "r": run_id, "low": low, "high": high, "m": wanted.min_margin, "review": wanted.review,
        "fault": wanted.fault, "scorer": wanted.scorer,
        "km": after.margin if after else None, "ki": after.id if after else None,
    }  # fmt: skip
    sql = f"FROM {source} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT :n"
    return sql, values, (order, _order(wanted.sort, not backwards)[0])


def _order(sort: str, backwards: bool) -> tuple[str, str]:
    """ORDER BY and the condition "beyond the key"; equal margins go by id, upwards."""
    if sort == "id":
        return ("r.id DESC", "r.id < :ki") if backwards else ("r.id", "r.id > :ki")
    more = (sort == "margin") != backwards
    margin, tie = (">" if more else "<"), ("<" if backwards else ">")
    order = f"r.margin{'' if more else ' DESC'}, r.id{' DESC' if backwards else ''}"
    return order, f"r.margin {margin}= :km AND (r.margin {margin} :km OR r.id {tie} :ki)"


def _ids_of(policy: str | None, run_id: int) -> tuple[int, int]:
    """The ids that pairs of a policy's iteration can have; of every policy for None."""
    if policy is None:
        return pair_id(run_id, 0, 0, 0, 0), pair_id(run_id + 1, 0, 0, 0, 0) - 1
    if not re.fullmatch(r"M\d{1,2}", policy):
        return 1, 0
    idx = int(policy[1:])
    return pair_id(run_id, idx, 0, 0, 0), pair_id(run_id, idx + 1, 0, 0, 0) - 1
