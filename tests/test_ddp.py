"""Training on several processes: the same rows in the same steps, whatever shares them out."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from selfreward.errors import BadInput
from selfreward.training.job import TrainingSpec, write_job
from selfreward.training.order import in_steps, shares
from tests.runner import iterate, query, write_recipe
from tests.test_training import PAIRS, WEIGHTS, spec_for

THIRTEEN = [
    {
        "prompt_ids": [1, 40 + i, 41],
        "chosen_ids": [50 + i, *([51] * (i % 4)), 2],
        "rejected_ids": [90, 91 + i, *([92] * (i % 3)), 2],
    }
    for i in range(13)
]


def size(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + len(row["chosen_ids"])


def steps_of(rows: list[dict[str, Any]], batch: int) -> list[list[dict[str, Any]]]:
    return [rows[i : i + batch] for i in range(0, len(rows), batch)]


def test_every_row_weighs_the_same_in_its_epoch_and_fillers_nothing() -> None:
    """13 rows in steps of 4: three whole ones and one of a single row beside three fillers of weight 0.

    The mean over a step is then the mean over its real rows: 4/4 each in whole steps, 4 for the single one.
    """
    spec = spec_for(Path("base"), batch=4, epochs=2)
    arranged = in_steps(THIRTEEN, spec, size)
    assert len(arranged) == 2 * 16
    for epoch in (arranged[:16], arranged[16:]):
        assert sorted(r["row"] for r in epoch if r["weight"]) == list(range(13))
        for step in steps_of(epoch, 4):
            assert sum(r["weight"] for r in step) == pytest.approx(4)
        assert sorted(r["weight"] for r in epoch[12:]) == [0, 0, 0, 4]
    assert [r["row"] for r in arranged[:16]] != [r["row"] for r in arranged[16:]]
    assert arranged == in_steps(THIRTEEN, spec, size)


def test_a_broken_epoch_trains_the_beginning_of_its_order() -> None:
    """1.4 epochs of 13 rows are 18.2 rows: the first five of the second order."""
    whole = in_steps(THIRTEEN, spec_for(Path("base"), batch=1, epochs=2), size)
    assert in_steps(THIRTEEN, spec_for(Path("base"), batch=1, epochs=1.4), size) == whole[:18]


def test_a_step_keeps_its_rows_and_sorts_them_by_length() -> None:
    for step in steps_of(in_steps(THIRTEEN, spec_for(Path("base"), batch=4, epochs=1), size), 4):
        lengths = [size(r) for r in step if r["weight"]]
        assert lengths == sorted(lengths)


def test_weights_are_kept_in_proportion() -> None:
    """Weights 1 and 3 in a step of two: 0.5 and 1.5, so that their mean is 1."""
    rows = [THIRTEEN[0] | {"weight": 1.0}, THIRTEEN[1] | {"weight": 3.0}]
    arranged = in_steps(rows, spec_for(Path("base"), batch=2, epochs=1), size)
    assert {r["row"]: r["weight"] for r in arranged} == {0: 0.5, 1: 1.5}


@pytest.mark.parametrize(
    ("batch", "micro", "world", "found"), [(8, 2, 2, (2, 2)), (8, 8, 4, (2, 1)), (6, 1, 3, (1, 2))]
)
def test_a_step_is_shared_evenly(batch: int, micro: int, world: int, found: tuple[int, int]) -> None:
    assert shares(batch, micro, world) == found
    assert found[0] * found[1] * world == batch


@pytest.mark.parametrize(("batch", "micro", "world"), [(2, 1, 4), (6, 2, 2), (5, 1, 2)])
def test_a_step_that_cannot_be_shared_is_refused(batch: int, micro: int, world: int) -> None:
    with pytest.raises(BadInput, match="cannot be shared evenly"):
        shares(batch, micro, world)


def launch(folder: Path, spec: TrainingSpec, world: int, rows: list[Any] = THIRTEEN) -> Path:
    write_job(folder, spec, rows)
    assert torchrun(folder, world).wait(timeout=300) == 0, (folder / "log").read_text()
    return folder / "adapter"


def torchrun(folder: Path, world: int) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    with open(folder / "log", "w") as log:
        return subprocess.Popen(
            [*line, "-m", "selfreward.training", str(folder)],
            stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "train.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["continued", "sft"])
def test_two_processes_train_what_one_trains(tiny_policy: Path, tmp_path: Path, kind: str) -> None:
    """13 rows in steps of 4, two epochs: 8 steps, of which two hold a single real row."""
    spec = spec_for(tiny_policy, batch=4, micro_batch=2, lr=1e-3, method="sft" if kind == "sft" else "dpo")
    rows = THIRTEEN
    if kind == "sft":
        rows = [{"prompt_ids": r["prompt_ids"], "completion_ids": r["chosen_ids"]} for r in rows]
    if kind == "continued":
        parent = launch(tmp_path / "parent", replace(spec, epochs=1), 1)
        spec = replace(spec, parent_adapter=str(parent))
    one, two = (launch(tmp_path / str(n), spec, n, rows) for n in (1, 2))
    assert len(losses(tmp_path / "1")) == 8
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), abs=1e-4)
    left, right = load_file(one / WEIGHTS), load_file(two / WEIGHTS)
    assert max(float((left[k] - right[k]).abs().max()) for k in left) < 1e-4
    assert max(float(left[k].abs().max()) for k in left if "lora_B" in k) > 1e-3  # it did train
    proof = json.loads((two / "proof.json").read_text())
    assert (proof["distributed"], proof["world_size"]) == ("MULTI_CPU", 2)


@pytest.mark.slow
def test_two_processes_resume_to_the_same_adapter(tiny_policy: Path, tmp_path: Path) -> None:
    """Both ranks are killed by the death of their launcher; the checkpoint before is gone on from.

    Then both are asked to stop: they agree on a step, save it and leave, and the rest comes from there.
    """
    spec = spec_for(tiny_policy, batch=4, micro_batch=1, epochs=12, save_steps=3, lr=1e-3)
    whole = launch(tmp_path / "whole", spec, 2)
    cut = tmp_path / "cut"
    write_job(cut, spec, THIRTEEN)
    running = torchrun(cut, 2)
    until(lambda: (cut / "checkpoints").exists() and list((cut / "checkpoints").glob("*/complete.json")))
    running.send_signal(signal.SIGKILL)
    running.wait()
    until(lambda: not ranks_of(cut), 10)
    assert not (cut / "adapter").exists()
    (cut / "stop").touch()  # as a driver that was asked to stop
    assert torchrun(cut, 2).wait(timeout=300) != 0
    assert json.loads((cut / "refused.json").read_text())["exit_code"] == 130
    (cut / "stop").unlink()
    left, right = load_file(launch(cut, spec, 2) / WEIGHTS), load_file(whole / WEIGHTS)
    assert max(float((left[k] - right[k]).abs().max()) for k in left) < 1e-6
    assert losses(cut) == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    with pytest.raises(AssertionError, match="is of 2 processes, this training has 1"):
        launch(cut, spec, 1)


def until(true: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def ranks_of(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(int(process.name))
    return found


def test_a_weight_scales_its_pairs_share_of_the_loss(tiny_policy: Path, tmp_path: Path) -> None:
    """Before the first step every pair's loss is log 2, whatever its weight.

    After it, weights 1 and 3 give (1·a + 3·b) / 4 where a and b are the losses alone; here a weight of 0.001
    beside one of 1 leaves the second pair's loss alone.
    """
    rows = [PAIRS[0] | {"weight": 1e-6}, PAIRS[1] | {"weight": 1.0}]
    spec = spec_for(tiny_policy, batch=2, micro_batch=1, epochs=3)
    both = launch(tmp_path / "both", spec, 1, rows)
    alone = launch(tmp_path / "alone", replace(spec, batch=1), 1, [PAIRS[1]])
    assert losses(tmp_path / "both") == pytest.approx(losses(tmp_path / "alone"), abs=1e-4)
    assert losses(tmp_path / "both")[0] == pytest.approx(math.log(2), abs=1e-5)
    left, right = load_file(both / WEIGHTS), load_file(alone / WEIGHTS)
    assert max(float((left[k] - right[k]).abs().max()) for k in left) < 1e-3


@pytest.mark.slow
def test_no_rank_outlives_its_launcher_or_its_driver(tiny_policy: Path, tmp_path: Path) -> None:
    """The launcher is killed: the ranks are gone and the driver starts others; then the driver is killed."""
    training = {"processes": 2, "micro_batch": 1, "lr": 5e-3, "batch": 2, "save_steps": 1, "lora": {"r": 4}}
    write_recipe(tmp_path, tiny_policy, start={"sft": None}, evaluate=None, training=training)
    job = tmp_path / "iterations" / "t" / "M2" / "training"
    driver = subprocess.Popen(
        [sys.executable, "-m", "selfreward.cli", "iterate", "--to", "M2"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    until(lambda: list((job / "checkpoints").glob("*/complete.json")))
    first = ranks_of(job)
    os.kill(min(first), signal.SIGKILL)  # the launcher has the least number
    until(lambda: not set(first) & set(ranks_of(job)), 10)
    until(lambda: len(ranks_of(job)) >= 4)  # both launchers, both ranks
    driver.send_signal(signal.SIGKILL)
    until(lambda: not ranks_of(job), 10)
    assert "ended with code -9" in driver.communicate(timeout=60)[0]
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 0, done.stdout + done.stderr
    proof = json.loads((tmp_path / "iterations/t/M2/adapter/proof.json").read_text())
    assert proof["world_size"] == 2
    assert query(tmp_path, "SELECT status FROM policy WHERE name = 'M2'") == [("promoted",)]
    assert query(tmp_path, "SELECT count(*) FROM event WHERE kind = 'restart'") == [(1,)]
