"""Gate 1 and the watch over the judge as the stages hold them: on a real store, with no engine."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward import ids
from selfreward import records as r
from selfreward.errors import GateHalted
from selfreward.files import packaged
from selfreward.recipe_file import parse
from selfreward.stages import data_gate, judge
from selfreward.store import Store
from tests.test_store import judgement, mined, policy
from tests.wording import answer, prompt

N = 120
BREAK = 60


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """M1's iteration: 120 prompts with four answers each and no verdicts."""
    opened = Store(tmp_path / "selfreward.db", write=True)
    opened.save(r.Run(id=1, name="a", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    opened.save(policy(0), policy(1))
    draw, rows = random.Random(2), []
    for slot in range(N):
        key = {"run_id": 1, "policy": "M1"}
        told = {"text": prompt(slot), "messages": "[]", "source": "user", "status": "accepted"}
        rows.append(r.Prompt(id=ids.prompt_id(1, 1, slot), slot=slot, **key, **told))
        for sample in range(4):
            said = {
                "text": answer(slot, draw),
                "n_tokens": draw.randrange(20, 60),
                "finish": "stop",
                "seed": 1,
            }
            at = {"id": ids.candidate_id(1, 1, slot, sample), "prompt_id": ids.prompt_id(1, 1, slot)}
            rows.append(r.Candidate(**at, **key, sample=sample, **said))
    opened.add(rows)
    return opened


def judged(store: Store, broken_from: int = N) -> None:
    draw = random.Random(3)
    for slot in range(N):
        scores = [5.0 if slot >= broken_from else draw.gauss(3, 0.5) for _ in range(4)]
        store.add([judgement(slot, sample, 0, s) for sample, s in enumerate(scores)])


def work_on(store: Store, **recipe: Any) -> Any:
    return SimpleNamespace(
        store=store, run=store.run(), recipe=parse({"model": "base"} | recipe, "test"), engine=None,
        adapter=lambda policy: None, file=lambda name: packaged(name),
    )  # fmt: skip


def watch(work: Any) -> None:
    stage = r.Stage(run_id=1, policy="M1", name="judge", made_in=1, status="running")
    judge._watch(work, stage, judge.open_scorers(work, policy(1))[0])


def alarms(store: Store) -> list[Any]:
    return store.rows("SELECT * FROM alarm")


def test_a_judge_that_broke_stops_its_stage_also_when_it_is_begun_again(store: Store) -> None:
    judged(store, BREAK)
    for _ in range(2):
        with pytest.raises(
            GateHalted, match=r"judge of M1 is broken since prompt (5[89]|6[0-3]) of this stage"
        ):
            watch(work_on(store))
    (alarm,) = alarms(store)
    assert (alarm.stage, alarm.level) == ("judge", "halt") and alarm.low <= alarm.value <= alarm.high


def test_a_recipe_that_only_warns_goes_on_with_the_alarm_written_down(store: Store) -> None:
    judged(store, BREAK)
    watch(work_on(store, gate={"on_collapse": "warn"}))
    assert {a.level for a in alarms(store)} == {"halt"}


def test_a_judge_that_a_person_let_pass_goes_on(store: Store) -> None:
    judged(store, BREAK)
    halts = [{"policy": "M1", "stage": "judge", "signal": "top_score"}]
    word = store.event(1, "accept", policy="M2", reason="it is so", halts=halts)
    other = store.event(1, "accept", policy="M3", reason="no", halts=[halts[0] | {"policy": "M2"}])
    store.save(events=[other])
    with pytest.raises(GateHalted):
        watch(work_on(store))
    store.save(events=[word])
    watch(work_on(store))


def test_a_sound_judge_and_a_rule_are_left_alone(store: Store) -> None:
    judged(store)
    watch(work_on(store))
    judged_by_rule = work_on(store, rewards=[{"type": "length"}])
    assert (
        judge._watch(
            judged_by_rule, SimpleNamespace(policy="M1"), judge.open_scorers(judged_by_rule, policy(1))[0]
        )
        is None
    )  # type: ignore[arg-type]
    assert alarms(store) == []


def levels(work: Any) -> dict[str, str]:
    return {f.signal: f.level for f in data_gate.data_findings(work, policy(1))}


def test_gate_1_reads_texts_verdicts_and_pairs_from_the_store(store: Store) -> None:
    judged(store)
    for slot in range(N):
        store.add(mined(slot))
    found = levels(work_on(store))
    assert {"no_text", "identical", "faults", "top_score", "ties", "chosen_longer", "cut_share"} <= set(found)
    assert "halt" not in found.values()


def test_gate_1_halts_on_a_judge_stuck_at_the_top_and_at_the_recipes_level(store: Store) -> None:
    judged(store, 0)
    assert levels(work_on(store))["top_score"] == "halt"
    calm = {"limits": {n: {"halt": 1.0, "warn": 0.9999} for n in ("top_score", "same_score")}}
    assert levels(work_on(store, gate=calm))["top_score"] == "ok"


def test_the_store_tells_every_verdict_and_the_lengths_of_every_pair(store: Store) -> None:
    """An unread verdict is a row with no score; another scorer's is not told."""
    store.add([judgement(0, 0, 0, None), judgement(0, 1, 0, 2.0), judgement(0, 1, 0, 9.0, "other")])
    store.add(mined(0))
    assert [v.score for v in store.verdicts(1, "M1", "judge")] == [None, 2.0]
    stored = [c.n_tokens for c in store.rows("SELECT n_tokens FROM candidate ORDER BY id LIMIT 2")]
    assert store.pair_lengths(1, "M1") == [tuple(stored)]
