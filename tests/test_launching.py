"""How trainings of several processes are started: here, on several machines, and under Slurm."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from selfreward.errors import BadInput, RecipeError
from selfreward.recipe_file import parse
from selfreward.training.job import write_job
from selfreward.training.launch import run
from selfreward.training.launching import Launch, lines, meeting, shown
from selfreward.training.trainer import check_active
from tests.runner import command, write_recipe
from tests.test_ddp import THIRTEEN, launch, losses
from tests.test_training import WEIGHTS, spec_for

OWN = ["-P", "-m", "torch.distributed.run", "--nproc-per-node", "4"]
NAME = "37c3dd46d03065b3"  # of /runs/job
MEET = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", NAME, "--rdzv-endpoint"]
TRAIN = ["-m", "selfreward.training", "/runs/job"]


def test_one_machine_needs_torchrun_alone() -> None:
    assert lines(Launch(4), "/runs/job", "python") == [["python", *OWN, "--standalone", *TRAIN]]


def test_a_launcher_of_all_machines_is_put_before_it_once() -> None:
    """Such as srun, which starts it on each machine; where they meet is the same word on all."""
    srun = ("srun", "--nodes", "{nodes}", "--comment={master}")
    (found,) = lines(Launch(4, 2, srun, "first"), "/runs/job", "python")
    assert found[:4] == ["srun", "--nodes", "2", "--comment=first"]
    assert found[4:] == ["python", *OWN, *MEET, "first:29500", *TRAIN]


def test_a_launcher_of_one_machine_is_started_for_each() -> None:
    found = lines(Launch(4, 2, ("ssh", "node{rank}"), "first"), "/runs/job", "python")
    assert [line[:2] for line in found] == [["ssh", "node0"], ["ssh", "node1"]]
    assert found[0][2:] == found[1][2:]
    assert shown(Launch(4, 2, ("ssh", "a b{rank}"), "m"), "/j", "py").startswith("ssh 'a b0' py -P -m ")


def test_two_trainings_that_meet_at_one_master_keep_apart() -> None:
    """Torchrun joins whoever comes with the same name, and would average the gradients of both."""
    names = {meeting(folder) for folder in ("/runs/a/M2/training", "/runs/b/M2/training")}
    assert len(names) == 2 and meeting("/runs/job") == NAME


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"nodes": 2}, "training.nodes and training.launch come together"),
        ({"launch": ["srun"]}, "training.nodes and training.launch come together"),
        ({"nodes": 2, "launch": ["ssh", "{host}"]}, r"training.launch has \{host\}"),
    ],
)
def test_machines_that_cannot_be_started_are_refused(training: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse({"model": "m", "training": training}, "r.yaml")


def test_other_processes_than_were_asked_for_stop_a_training() -> None:
    """`accelerate launch --cpu --num_processes 2` starts one and says nothing."""
    spec = spec_for(Path("base"), processes=2)
    check_active(spec, "MULTI_CPU", 2)
    with pytest.raises(BadInput, match=r"2 processes were asked for and 1 train together \(NO\)"):
        check_active(spec, "NO", 1)
    check_active(spec_for(Path("base")), "NO", 1)


def test_print_launch_shows_the_commands_and_starts_nothing(tiny_policy: Path, tmp_path: Path) -> None:
    machines = {"processes": 2, "nodes": 2, "launch": ["ssh", "n{rank}"], "batch": 4, "micro_batch": 1}
    write_recipe(tmp_path, tiny_policy, training=machines)
    done = command(tmp_path, "iterate", "--print-launch")
    told = [line for line in done.stdout.splitlines() if line.startswith("ssh ")]
    assert [line.split()[1] for line in told] == ["n0", "n1"]
    assert all("--nnodes 2" in line and line.endswith("/iterations/t/M2/training") for line in told)
    assert not (tmp_path / "iterations/t/logs").exists() and not (tmp_path / "iterations/t/M2").exists()


def test_the_first_command_that_fails_ends_the_others() -> None:
    start = time.monotonic()
    quick = [sys.executable, "-c", "raise SystemExit(3)"]
    slow = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert run([slow, quick], signal.SIGKILL) == 3
    assert time.monotonic() - start < 300


@pytest.mark.slow
def test_two_launchers_that_meet_train_what_one_process_trains(tiny_policy: Path, tmp_path: Path) -> None:
    """As on two machines, here both this one: a step of 4 pairs is 2 of each."""
    spec = spec_for(tiny_policy, batch=4, micro_batch=2, lr=1e-3, epochs=1)
    alone = launch(tmp_path / "1", spec, 1)
    job = tmp_path / "2"
    write_job(job, spec_for(tiny_policy, batch=4, micro_batch=2, lr=1e-3, epochs=1, processes=2), THIRTEEN)
    two = Launch(1, 2, ("env", "OMP_NUM_THREADS=1", "NODE={rank}"), "localhost")
    assert run(lines(two, str(job), sys.executable), signal.SIGTERM) == 0
    assert losses(job) == pytest.approx(losses(tmp_path / "1"), abs=1e-4)
    left, right = load_file(alone / WEIGHTS), load_file(job / "adapter" / WEIGHTS)
    assert max(float((left[k] - right[k]).abs().max()) for k in left) < 1e-4
    assert json.loads((job / "adapter" / "proof.json").read_text())["world_size"] == 2


def sbatch() -> str:
    """The script in docs/scaling.md."""
    text = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
    (found,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", text, re.DOTALL)
    return str(found)


@pytest.mark.parametrize(("code", "queued"), [(130, "requeue 7\n"), (4, ""), (0, "")])
def test_the_slurm_script_queues_an_interrupted_run_again_and_no_other(
    tmp_path: Path, code: int, queued: str
) -> None:
    """Slurm's part is played by words on the PATH; USR1 comes while the run works."""
    assert "#SBATCH --requeue\n" in sbatch() and "#SBATCH --signal=B:USR1@120\n" in sbatch()
    works = "trap 'exit 130' TERM; touch up; for i in $(seq 600); do sleep 0.1; done"
    ends = works if code == 130 else f"exit {code}"
    for name, body in {"selfreward": ends, "scontrol": 'echo "$@" >> queue'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(sbatch())
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    job = subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=environment)
    while code == 130 and not (tmp_path / "up").exists():
        assert job.poll() is None
        time.sleep(0.05)
    if code == 130:
        job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=60) == code
    queue = tmp_path / "queue"
    assert (queue.read_text() if queue.exists() else "") == queued
