"""Reviews: a dropped pair is mined as dropped and left out of the next training, until it is taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward import ids
from selfreward import records as r
from selfreward.agreement import agreement
from selfreward.recipe_file import parse
from selfreward.stages import pairs
from selfreward.store import Reviews, Store, Views
from tests.test_store import candidate, judgement, policy, prompt, sides

IDS = [ids.pair_id(1, 1, slot, 0, 1) for slot in (0, 1)]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Any]:
    """As much of a run as mining needs: two prompts of M1, two judged answers each; chats of ten tokens."""
    store = Store(tmp_path / "selfreward.db", write=True)
    store.save(r.Run(id=1, name="a", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    store.save(policy(0), policy(1), policy(2))
    store.add([prompt(0), prompt(1)])
    store.add([candidate(slot, s, f"{slot}.{s}") for slot in (0, 1) for s in (0, 1)])
    store.add([judgement(slot, s, 0, 4.0 - s, scorer="length") for slot in (0, 1) for s in (0, 1)])
    recipe = parse({"model": "base", "rewards": [{"type": "length", "low": 1, "best": 2, "high": 3}]}, "a")
    engine = SimpleNamespace(chat_ids=lambda chats: [[0] * 10 for _ in chats])
    yield SimpleNamespace(
        store=store,
        run=store.run(),
        recipe=recipe,
        engine=engine,
        policy=lambda name: store.policies(1)[name],
    )
    store.close()


def mine(work: Any) -> dict[str, int]:
    stage = r.Stage(run_id=1, policy="M1", name="pairs", made_in=1, status="running")
    pairs.run(work, stage)
    return dict(work.store.mining_outcomes(1, "M1"))


def trains(work: Any) -> list[int]:
    return [p.id for p in work.store.pairs_to_train(1, "M1")]


def put(work: Any, pair: int, review: str | None) -> None:
    reviews = Reviews(work.store.path)
    reviews.put(pair, review)
    reviews.close()


def test_a_dropped_pair_is_mined_as_dropped_stays_to_be_seen_and_does_not_train(work: Any) -> None:
    assert (mine(work), trains(work)) == ({"pair": 2}, IDS)
    put(work, IDS[0], "drop")
    assert trains(work) == IDS[1:]  # at once, even before it is mined anew
    assert mine(work) == {"dropped_by_review": 1, "pair": 1}
    assert trains(work) == IDS[1:]
    assert [row.id for row in Views(work.store.path, write=False).pairs(limit=9)] == IDS


def test_a_review_taken_back_or_turned_lets_the_pair_train_again(work: Any) -> None:
    mine(work)
    for change in (None, "keep"):
        put(work, IDS[0], "drop")
        mine(work)
        put(work, IDS[0], change)
        assert (mine(work), trains(work)) == ({"pair": 2}, IDS)


def test_a_training_that_has_begun_keeps_what_it_froze(work: Any) -> None:
    mine(work)
    work.store.add([r.TrainedOn(run_id=1, policy="M2", position=0, kind="pair", pair_id=IDS[0])])
    put(work, IDS[0], "drop")
    assert [p.id for p in work.store.frozen_pairs(1, "M2")] == IDS[:1]


def row(
    review: str, chosen: float | None, rejected: float | None, policy: str = "M1", scorer: str = "judge"
) -> Any:
    return SimpleNamespace(review=review, chosen=chosen, rejected=rejected, policy=policy, scorer=scorer)


def test_agreement_is_worked_out_by_hand() -> None:
    """Kept with chosen above: yes. Dropped with chosen above: no. Dropped with chosen below: yes.

    Kept with equal scores: no. One side unscored: does not count. 2 of 4.
    """
    (found,) = agreement(
        [row("keep", 4, 3), row("drop", 4, 3), row("drop", 2, 3), row("keep", 3, 3), row("keep", None, 3)]
    )
    assert found.agrees is not None
    assert (found.agrees.value, found.agrees.n, found.kept, found.dropped, found.unscored) == (
        0.5,
        4,
        3,
        2,
        1,
    )
    assert 0.0 < found.agrees.low < 0.5 < found.agrees.high < 1.0


def test_agreement_is_told_by_policy_and_scorer_and_never_of_nothing() -> None:
    rows = [row("keep", 4, 3), row("keep", 1, 3, scorer="length"), row("drop", None, 1, policy="M2")]
    found = [(a.policy, a.scorer, a.agrees and a.agrees.value) for a in agreement(rows)]
    assert found == [("M1", "judge", 1.0), ("M1", "length", 0.0), ("M2", "judge", None)]


def test_reviewed_pairs_come_with_the_scores_of_every_scorer(work: Any) -> None:
    scorers = [r.ScorerRow(run_id=1, policy="M1", name=n, type=n, settings="{}") for n in ("length", "other")]
    work.store.save(*scorers)
    mine(work)
    put(work, IDS[1], "drop")
    rows = Views(work.store.path, write=False).reviewed()
    assert [(x.id, x.scorer, x.chosen, x.rejected) for x in rows] == [
        (IDS[1], "length", 4.0, 3.0), (IDS[1], "other", None, None),
    ]  # fmt: skip
    assert sides(1)  # the review names the candidates, so mining anew keeps it
    mine(work)
    assert len(Views(work.store.path, write=False).reviewed()) == 2
