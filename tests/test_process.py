"""Children die with their driver, and a driver never holds a tensor library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfreward.engines import process
from selfreward.engines.client import EngineClient
from selfreward.errors import WorkFailed
from selfreward.protocols import Request, Sampling

ASK = [{"role": "user", "content": "Say something long."}]

DRIVER = """
import sys, time
from pathlib import Path
from selfreward.engines.client import EngineClient
from selfreward.protocols import Request, Sampling
settings = {"model": sys.argv[1], "dtype": "float32", "threads": 1}
client = EngineClient("transformers", settings, Path(sys.argv[2]))
ask = [{"role": "user", "content": "a"}]
client.chat_ids([ask])
print(client._child.process.pid, flush=True)
if sys.argv[3] == "busy":
    client.generate([Request(ask, s, Sampling(1.0, 1.0, 0, 3000)) for s in range(64)])
time.sleep(600)
"""


def _gone(pid: int, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_an_engine_child_dies_with_its_driver(tiny_policy: Path, tmp_path: Path, state: str) -> None:
    arguments = [sys.executable, "-c", DRIVER, str(tiny_policy), str(tmp_path / "log"), state]
    driver = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    child = int(driver.stdout.readline())
    time.sleep(0.5)
    assert not _gone(child, 0.0)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert _gone(child, 10.0)


def test_a_trainer_dies_at_the_end_of_its_pipe(tmp_path: Path) -> None:
    child = process.start("tests.sleeper", [], tmp_path / "log")
    assert child.process.poll() is None
    assert child.pipe.recv() == "ready"
    child.pipe.close()
    assert child.process.wait(timeout=10) == 1


def test_a_child_inherits_neither_locks_nor_other_files(tmp_path: Path) -> None:
    with open(tmp_path / "held", "w"):
        child = process.start("tests.sleeper", [], tmp_path / "log")
        assert child.pipe.recv() == "ready"
        targets = [
            os.readlink(f"/proc/{child.process.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{child.process.pid}/fd")
        ]
        child.close()
    assert str(tmp_path / "held") not in targets


def test_telemetry_is_off_in_every_child(tmp_path: Path) -> None:
    child = process.start("tests.sleeper", [], tmp_path / "log")
    child.pipe.recv()
    given = dict(
        pair.split("=", 1)
        for pair in Path(f"/proc/{child.process.pid}/environ").read_text().split("\0")
        if "=" in pair
    )
    child.close()
    wanted = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    assert wanted.items() <= given.items()


def test_a_child_that_dies_is_started_again_and_asked_the_same(tiny_policy: Path, tmp_path: Path) -> None:
    """Waiting once succeeded though every worker had died, and the stage was recorded as done."""
    told: list[tuple[str, str]] = []
    settings = {"model": str(tiny_policy), "dtype": "float32", "threads": 1}
    client = EngineClient("transformers", settings, tmp_path / "log", trouble=lambda *said: told.append(said))
    block = [Request(ASK, seed, Sampling(1.0, 1.0, 0, 4)) for seed in range(3)]
    wanted = client.generate(block)
    assert client._child is not None
    client._child.process.kill()
    assert client.generate(block) == wanted
    ((kind, reason),) = told
    assert kind == "restart" and "died with code -9" in reason
    client.close()


def test_an_error_in_the_child_is_told_and_the_child_lives_on(tiny_policy: Path, tmp_path: Path) -> None:
    client = EngineClient(
        "transformers", {"model": str(tiny_policy), "dtype": "float32", "threads": 1}, tmp_path / "log"
    )
    with pytest.raises(WorkFailed, match="generate"):
        client.generate(
            [Request(ASK, 0, Sampling(1.0, 1.0, 0, 4), adapter=str(tmp_path / "no-adapter-here"))]
        )
    assert client.generate([Request(ASK, 0, Sampling(1.0, 1.0, 0, 4))])[0].fault is None
    client.close()
