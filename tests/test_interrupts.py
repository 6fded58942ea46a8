"""Signals: what is in hand is finished or saved, nothing stays alive, and the same command goes on."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from selfreward import stopping
from selfreward.errors import Interrupted
from selfreward.stages import trainer_child
from tests.nursery import Nursery
from tests.runner import query
from tests.torture import COMMAND, SHORT, Damage, damage, prepare

FIRST_BLOCK = "engines.child 1: batch 6 in transformers_engine._generate #1"  # 2 prompts, 3 candidates each


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_to_all_finishes_the_block_and_the_same_command_goes_on(
    nursery: Nursery, short_run: Path, tiny_policy: Path, tmp_path: Path, name: str
) -> None:
    """As from a terminal or Slurm: every process gets it while the first block of candidates is made."""
    folder = prepare(tmp_path / "run", tiny_policy, **SHORT)
    ended = nursery.run(folder, *COMMAND, faults={"at": [FIRST_BLOCK], "do": name})
    assert ended.code == 130, ended.said
    assert f"{name}: finishing what is in hand" in ended.said
    assert f"stopped by {name}" in ended.said and "the same command goes on" in ended.said
    assert not ended.left
    assert query(folder, "SELECT count(*) FROM candidate") == [(6,)]
    assert nursery.run(folder, *COMMAND).code == 0
    assert damage(folder, short_run) == Damage()


def test_a_second_ctrl_c_stops_at_once(
    nursery: Nursery, short_run: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    """The block in hand would take an hour."""
    folder = prepare(tmp_path / "run", tiny_policy, **SHORT)
    faults = {"at": [FIRST_BLOCK], "do": "SIGINT SIGINT", "hold": 3600}
    ended = nursery.run(folder, *COMMAND, faults=faults)
    assert ended.code == 130 and "stopped at once" in ended.said and not ended.left, ended.said
    assert query(folder, "SELECT count(*) FROM candidate") == [(0,)]
    assert nursery.run(folder, *COMMAND).code == 0
    assert damage(folder, short_run) == Damage()


def test_a_training_that_is_asked_to_stop_saves_the_step_it_is_at(
    nursery: Nursery, short_run: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    """Checkpoints are due every 50 steps; asked while step 1 is told, it saves step 2; step 3 comes next."""
    options = {"training": {"save_steps": 50}}
    folder = prepare(tmp_path / "run", tiny_policy, **SHORT, **options)
    job = folder / "iterations/t/M2/training"
    faults = {"at": ["training 2: step 1 in *"], "do": "SIGTERM", "hold": 3}
    ended = nursery.run(folder, *COMMAND, faults=faults)
    assert ended.code == 130 and "M2: saved at step 2 of" in ended.said and not ended.left, ended.said
    assert [p.parent.name for p in (job / "checkpoints").glob("*/complete.json")] == ["checkpoint-2"]
    log = folder / "points.jsonl"
    done = nursery.run(folder, *COMMAND, faults={"log": str(log)})
    assert done.code == 0, done.said
    steps = [x for x in map(json.loads, log.read_text().splitlines()) if x[2] == "step"]
    assert steps[0][3] == "3"
    assert damage(folder, short_run) == Damage()


@pytest.fixture
def own_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("own_handlers")
def test_after_the_grace_a_block_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "GRACE", 1)
    told: list[str] = []
    with (
        pytest.raises(Interrupted, match=r"stopped by SIGTERM, 1 s later"),
        stopping.on_signals(told.append) as stop,
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == "SIGTERM" and len(told) == 1
        os.kill(os.getpid(), signal.SIGTERM)  # again: supervisors repeat it
        time.sleep(30)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and signal.alarm(0) == 0


@pytest.mark.usefixtures("own_handlers")
def test_another_ctrl_c_on_the_way_out_is_no_traceback() -> None:
    """A process that was asked to stop prints its line and leaves; one that was not listens as before."""
    before = signal.getsignal(signal.SIGINT)
    with stopping.on_signals(lambda _: None):
        pass
    assert signal.getsignal(signal.SIGINT) == before
    with stopping.on_signals(lambda _: None) as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.asked == "SIGINT"
    os.kill(os.getpid(), signal.SIGINT)  # raised KeyboardInterrupt here


def test_a_successor_waits_for_the_trainers_lock(tmp_path: Path) -> None:
    told: list[str] = []
    work = SimpleNamespace(progress=SimpleNamespace(say=told.append))
    with open(tmp_path / "lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=trainer_child.await_earlier, args=(work, tmp_path))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and "waiting for an earlier training" in told[0]
        fcntl.flock(held, fcntl.LOCK_UN)
        waiting.join(10)
    assert not waiting.is_alive()
