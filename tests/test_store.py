"""The store: whole or not at all, asked what is missing, one writer, and readers that never disturb it."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from selfreward import ids
from selfreward import records as r
from selfreward.errors import StoreError
from selfreward.store import Lock, Store, Views, is_held


def policy(idx: int) -> r.Policy:
    return r.Policy(
        run_id=1, name=f"M{idx}", idx=idx, parent=f"M{idx - 1}" if idx else None, model="base", made_in=1,
        status="promoted", created_at="now",
    )  # fmt: skip


def prompt(slot: int, idx: int = 1, reason: str | None = None) -> r.Prompt:
    return r.Prompt(
        id=ids.prompt_id(1, idx, slot), run_id=1, policy=f"M{idx}", slot=slot, round=slot + 1,
        text=f"{slot}?",
        messages="[]", source="user", status="rejected" if reason else "accepted", reason=reason,
    )  # fmt: skip


def candidate(slot: int, sample: int, text: str | None, idx: int = 1) -> r.Candidate:
    said = {"text": text, "n_tokens": 2, "finish": "stop", "token_ids": ids.pack_ids([slot, sample])}
    return r.Candidate(
        id=ids.candidate_id(1, idx, slot, sample), run_id=1, prompt_id=ids.prompt_id(1, idx, slot),
        sample=sample,
        policy=f"M{idx}", seed=7, **(said if text is not None else {"fault": "engine"}),
    )  # fmt: skip


def judgement(slot: int, sample: int, turn: int, score: float | None, scorer: str = "judge") -> r.Judgement:
    return r.Judgement(
        run_id=1, candidate_id=ids.candidate_id(1, 1, slot, sample), scorer=scorer, sample=turn, score=score,
        fault=None if score is not None else "no_score",
    )  # fmt: skip


def sides(slot: int, idx: int = 1) -> dict[str, int]:
    return {"chosen_id": ids.candidate_id(1, idx, slot, 0), "rejected_id": ids.candidate_id(1, idx, slot, 1)}


def mined(slot: int, idx: int = 1, chosen_score: float = 4.0) -> list[Any]:
    """A prompt's mining row and its one pair: sample 0 over sample 1."""
    scores = {"chosen_score": chosen_score, "rejected_score": 3.0, "rule": "best_vs_worst"}
    key = {"run_id": 1, "prompt_id": ids.prompt_id(1, idx, slot)}
    pair = r.Pair(id=ids.pair_id(1, idx, slot, 0, 1), **key, **sides(slot, idx), **scores)
    return [r.Mining(**key, outcome="pair", margin=chosen_score - 3.0, n_pairs=1), pair]


def mine_again(store: Store, policy: str, *records: Any) -> None:
    """Replaces what is mined of the policy's prompts by the rows of these records."""
    minings, pairs = (
        [row(*(getattr(x, column) for column in row._fields)) for x in records if isinstance(x, kind)]
        for kind, row in ((r.Mining, r.MiningRow), (r.Pair, r.PairRow))
    )
    store.replace_mining(store.stages(1)["M1", "candidates"], policy, minings, pairs)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A run with M0, M1 and M2, and a stage that has just begun."""
    opened = Store(tmp_path / "selfreward.db", write=True)
    opened.save(r.Run(id=1, name="a", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    opened.save(policy(0), policy(1), policy(2))
    opened.save(r.Stage(run_id=1, policy="M1", name="candidates", made_in=1, status="pending", n_total=8))
    yield opened
    opened.close()


def count(store: Store | Views, table: str) -> int:
    return int(store.one(f"SELECT count(*) FROM {table}")[0])


def two_answered(store: Store) -> None:
    """Slots 0 and 1 of M1 and slot 0 of M2, each with two different answers."""
    slots = [(0, 1), (1, 1), (0, 2)]
    store.add([prompt(slot, idx) for slot, idx in slots])
    store.add([candidate(slot, s, t, idx) for slot, idx in slots for s, t in ((0, "Yes."), (1, "No."))])


def test_a_transaction_is_stored_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(IntegrityError):
        store.add([prompt(0), candidate(0, 0, "Yes."), candidate(9, 0, "of no prompt")])
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        store.add([prompt(1)], connection)
        raise ZeroDivisionError
    assert count(store, "prompt") == 0


def test_a_policy_and_the_events_that_tell_of_it_are_stored_as_one(store: Store) -> None:
    changed = policy(1)
    changed.decision = "all gates passed"
    with pytest.raises(IntegrityError):
        store.save(changed, events=[r.Event(run_id=1, at="now", kind="policy", detail="not JSON")])
    assert store.policies(1)["M1"].decision is None


def test_a_writer_killed_in_a_transaction_leaves_nothing_of_it(store: Store) -> None:
    code = (
        "import sys; from pathlib import Path; from selfreward.store import Store\n"
        "store = Store(Path(sys.argv[1]), write=True)\n"
        "with store.transaction() as connection:\n"
        "    store.add([store.event(1, 'half')], connection); print('ready', flush=True); sys.stdin.read()"
    )
    with child(code, str(store.path)) as writer:
        assert writer.stdout.readline() == "ready\n"  # type: ignore[union-attr]
        writer.kill()
    store.add([store.event(1, "whole")])
    assert [e.kind for e in store.rows("SELECT kind FROM event")] == ["whole"]


def test_a_block_and_the_counters_of_its_stage_but_no_status_are_stored_as_one(store: Store) -> None:
    store.add([prompt(0)])
    stage = store.stages(1)["M1", "candidates"]
    stage.status = "done"
    store.commit_block(stage, [candidate(0, 0, "Yes.")], 1, tokens=5, seconds=0.5)
    store.commit_block(stage, [candidate(0, 1, "No.")], 1, tokens=3, seconds=0.25)
    with pytest.raises(IntegrityError):
        store.commit_block(stage, [candidate(9, 0, "of no prompt")], 1, tokens=9, seconds=9.0)
    kept = store.stages(1)["M1", "candidates"]
    assert (kept.status, kept.n_done, kept.n_total, kept.n_tokens, kept.seconds) == ("pending", 2, 8, 8, 0.75)
    assert count(store, "candidate") == 2


def test_what_a_full_disk_stopped_is_neither_stored_nor_counted(store: Store) -> None:
    store.add([prompt(0)])
    with store.transaction() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # as good as none: SQLite keeps what there is
    stage = store.stages(1)["M1", "candidates"]
    with pytest.raises(StoreError, match=r"^\S+selfreward\.db cannot be written: .* is full; .*$"):
        store.commit_block(stage, [candidate(0, 0, "long " * 100_000)], 1, tokens=5, seconds=0.5)
    assert (count(store, "candidate"), store.stages(1)["M1", "candidates"].n_done) == (0, 0)
    assert (stage.n_done, stage.n_tokens, stage.seconds) == (0, 0, 0.0)  # the loop saves this row as `failed`


def test_saving_a_row_again_keeps_the_rows_that_refer_to_it(store: Store) -> None:
    two_answered(store)
    changed = store.run()
    assert changed is not None
    changed.recipe = '{"seed": 1}'
    store.save(changed, policy(1), store.stages(1)["M1", "candidates"])
    for value in (1.0, 2.0):
        store.put_metrics([r.Metric(run_id=1, policy="M1", stage="probe", name="kl", value=value, n=3)])
    assert store.run() == changed and store.metric(1, "M1", "kl").value == 2.0
    assert [count(store, t) for t in ("policy", "stage", "prompt", "candidate", "metric")] == [3, 1, 3, 6, 1]


def test_commits_of_a_promotion_are_on_the_disk_and_others_need_not_be(store: Store) -> None:
    def level() -> int:
        with store.transaction() as connection:
            return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    with pytest.raises(ZeroDivisionError), store.durable():
        assert level() == 2  # FULL
        raise ZeroDivisionError
    assert level() == 1  # NORMAL


def test_only_accepted_prompts_of_the_policy_without_candidates_are_unanswered(store: Store) -> None:
    store.add([prompt(0), prompt(1), prompt(2, reason="form"), prompt(4), prompt(3), prompt(5, idx=2)])
    store.add([candidate(0, 0, "Yes."), candidate(1, 0, None)])  # a request that failed is not asked for ever
    assert [p.slot for p in store.unanswered(1, "M1")] == [3, 4]
    assert [p.slot for p in store.unanswered(1, "M2")] == [5]
    assert (store.prompt_state(1, "M1"), store.prompt_state(1, "M0")) == ((5, 5), (0, 0))


def test_only_prompts_with_an_answer_no_one_judged_are_unjudged(store: Store) -> None:
    store.add([*(prompt(slot) for slot in range(4)), prompt(0, idx=2), candidate(0, 0, "Yes.", idx=2)])
    store.add([candidate(slot, s, None if slot == 1 else "Yes.") for slot in (3, 2, 1, 0) for s in (0, 1)])
    assert store.unjudged(1, "M1") == [ids.prompt_id(1, 1, slot) for slot in (0, 2, 3)]
    store.add([judgement(0, 0, 0, 3.0), judgement(0, 1, 0, None), judgement(3, 0, 0, 3.0)])
    assert store.unjudged(1, "M1") == [ids.prompt_id(1, 1, slot) for slot in (2, 3)]


def test_contenders_keep_scores_to_the_last_bit_without_faults_and_other_scorers(store: Store) -> None:
    scores = (0.1 + 0.2, 1 / 3, 5e-324, 1e299, math.nextafter(4.0, 5.0), 4.0)
    store.add([prompt(0), prompt(1), prompt(2, reason="form"), prompt(0, idx=2)])
    said = [(0, 1, "No."), (1, 0, None), (0, 0, "Yes.")]
    store.add([candidate(0, 0, "Of M2.", idx=2), *(candidate(*one) for one in said)])
    store.add([judgement(0, 0, turn, score) for turn, score in reversed(list(enumerate(scores)))])
    store.add([judgement(0, 1, 0, None), judgement(0, 1, 1, 2.5), judgement(0, 1, 0, 5.0, scorer="length")])
    found = [(c.slot, c.sample, said) for c, said in store.contenders(1, "M1", "judge")]
    assert found == [(0, 0, scores), (0, 1, (2.5,)), (1, 0, ())]


def test_an_iteration_is_mined_where_no_second_connection_may_open(store: Store) -> None:
    """As on a network file system: what streams gives its connection back before rows are written."""
    two_answered(store)
    store.add([judgement(0, 0, 0, 4.0), judgement(0, 1, 0, 3.0)])
    store.close()
    alone = Store(store.path, write=True, alone=True)
    assert [scores for _, scores in alone.contenders(1, "M1", "judge")] == [(4.0,), (3.0,), (), ()]
    assert [key for key, _ in alone.chats(1, "M1")] == [ids.prompt_id(1, 1, slot) for slot in (0, 1)]
    mine_again(alone, "M1", *mined(0))
    assert alone.mining_outcomes(1, "M1") == {"pair": 1}
    alone.close()


def test_mining_again_replaces_the_rows_of_that_policy_alone(store: Store) -> None:
    two_answered(store)
    mine_again(store, "M2", *mined(0, idx=2))
    mine_again(store, "M1", *mined(0), *mined(1))
    tie = r.Mining(run_id=1, prompt_id=ids.prompt_id(1, 1, 1), outcome="tie", margin=0.0)
    mine_again(store, "M1", *mined(0, chosen_score=5.0), tie)
    assert store.mining_outcomes(1, "M1") == {"pair": 1, "tie": 1}
    pairs = [tuple(p) for p in store.rows("SELECT id, margin FROM pair ORDER BY id")]
    assert pairs == [(mined(0)[1].id, 2.0), (mined(0, idx=2)[1].id, 1.0)]


def test_mining_that_fails_leaves_the_rows_there_were(store: Store) -> None:
    two_answered(store)
    mine_again(store, "M1", *mined(0))
    store.add([r.TrainedOn(run_id=1, policy="M2", position=0, kind="pair", pair_id=mined(0)[1].id)])
    for records in ([*mined(1), *mined(9)], []):  # a prompt that is not there; a pair a training has read
        with pytest.raises(IntegrityError):
            mine_again(store, "M1", *records)
    assert [p.id for p in store.pairs_to_train(1, "M1")] == [mined(0)[1].id]


def test_a_pair_a_person_dropped_does_not_train(store: Store) -> None:
    two_answered(store)
    mine_again(store, "M1", *mined(0), *mined(1))
    for slot, said in enumerate(("drop", "keep")):
        store.add([r.Review(run_id=1, **sides(slot), review=said, at="now")])
    assert store.dropped(1) == {tuple(sides(0).values())}
    kept = [(p.id, p.chosen, p.rejected) for p in store.pairs_to_train(1, "M1")]
    assert kept == [(mined(1)[1].id, ids.pack_ids([1, 0]), ids.pack_ids([1, 1]))]


def test_readers_and_the_writer_never_wait_for_each_other(store: Store) -> None:
    views = Views(store.path, write=False)
    with store.transaction() as writing:
        store.add([store.event(1, "new")], writing)
        assert count(views, "event") == 0
    with views.transaction() as reading:
        assert reading.exec_driver_sql("SELECT count(*) FROM event").scalar() == 1
        store.add([store.event(1, "newer")])
        assert reading.exec_driver_sql("SELECT count(*) FROM event").scalar() == 1
    assert count(views, "event") == 2
    views.close()


@pytest.mark.parametrize("folder", ["plain", "with space", "50%20", "a#b", "why?", "ä'\"b"])
def test_a_store_lies_where_it_should_and_a_view_never_writes_to_it(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "selfreward.db"
    path.parent.mkdir()
    Store(path, write=True).close()
    assert [p.name for p in tmp_path.iterdir()] == [folder]
    before = path.read_bytes()
    views = Views(path, write=False)
    assert count(views, "run") == 0
    with pytest.raises(StoreError, match="readonly"):
        views.add([r.Run(id=1, name="a", recipe="{}", fingerprint="f", seed=0, created_at="now")])
    views.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("door", [Store, Views])
@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        ("CREATE TABLE alembic_version AS SELECT 'v9' AS version_num", "was made by a later version .*v9.*"),
        ("CREATE TABLE recipes (name)", "is a SQLite file of something else"),
        (None, r"is damaged \(file is not a database\), and there is no backup .*"),
    ],
)
def test_what_is_no_store_of_this_version_is_refused_in_one_line_and_left_alone(
    tmp_path: Path, ddl: str | None, reason: str, door: type[Store]
) -> None:
    path = tmp_path / "selfreward.db"
    if ddl is None:
        path.write_text("a shopping list\n" * 100)
    else:
        other = sqlite3.connect(path)
        other.execute(ddl)
        other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=rf"^{path} {reason}$"):
        door(path, write=door is Store)
    assert path.read_bytes() == before


HOLD = (
    "import subprocess, sys; from pathlib import Path; from selfreward.store import Lock\n"
    "with Lock(Path(sys.argv[1])):\n"
    "    started = subprocess.Popen(['sleep', '60'], stdout=2, close_fds=False)\n"
    "    print(started.pid, flush=True); sys.stdin.read()"
)


def child(code: str, argument: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, argument], text=True, stdin=pipe, stdout=pipe)


def test_the_lock_is_its_holders_alone_and_ends_with_it(tmp_path: Path) -> None:
    with child(HOLD, str(tmp_path)) as holder:
        orphan = int(holder.stdout.readline())  # type: ignore[union-attr]
        for _ in range(2):  # being refused changes nothing
            with pytest.raises(StoreError, match=rf"^{tmp_path} is in use by process {holder.pid} on .*$"):
                Lock(tmp_path).__enter__()
        holder.kill()
    try:
        with Lock(tmp_path):  # the name it left is no holder, and its child has not inherited it
            os.kill(orphan, 0)
    finally:
        os.kill(orphan, signal.SIGKILL)


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="the kernel's list of locks is Linux's")
def test_whether_the_lock_is_held_is_seen_without_touching_it(tmp_path: Path) -> None:
    assert is_held(tmp_path) is False
    with child(HOLD, str(tmp_path)) as holder:
        orphan = int(holder.stdout.readline())  # type: ignore[union-attr]
        assert is_held(tmp_path) is True
        holder.kill()
    os.kill(orphan, signal.SIGKILL)
    assert (tmp_path / "lock").exists() and is_held(tmp_path) is False
