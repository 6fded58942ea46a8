"""Engines spread over Ray workers: the rows of one worker, whoever dies, hangs, leaves or joins meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from selfreward.engines.client import EngineClient
from selfreward.engines.transformers_engine import TransformersEngine
from selfreward.errors import BadInput
from selfreward.protocols import Choice, Completion, Request, Sampling, Scored
from tests.ray_nodes import Nodes, nodes
from tests.runner import iterate, tables, write_recipe
from tests.test_engine import _adapter

pytest.importorskip("ray", reason="ray is not installed: `make install` brings it")
SCORES = (" 1", " 2", " 3")
LONG = {"tokens": 1500, "n": 32}  # seconds of work for a worker, even of two layers


def block_of(k: int, tokens: int = 12, adapter: str | None = None, n: int = 6) -> list[Request]:
    options = Sampling(max_new_tokens=tokens)
    chat = [{"role": "user", "content": f"Name thing {k}."}]
    return [Request(chat, 100 * k + i, options, adapter) for i in range(n)]


@pytest.fixture(scope="module")
def policy(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy with one stop token instead of 27: an answer takes some 260 tokens."""
    folder = tmp_path_factory.mktemp("talks") / "policy"
    shutil.copytree(tiny_policy, folder)
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 2}))
    return folder


@pytest.fixture(scope="module")
def alone(policy: Path) -> TransformersEngine:
    return TransformersEngine(str(policy), dtype="float32", batch=16, threads=1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("nodes") / "log") as found:
        yield found


def pooled(policy: Path, log: Path, **pool: Any) -> EngineClient:
    own = {"workers": 2, "address": None, "gpus": 1, "rows": 16, "timeout": 600.0} | pool
    settings = {"model": str(policy), "dtype": "float32", "batch": 16, "threads": 1, "pool": own}
    return EngineClient("transformers", settings, log)


@pytest.fixture
def pool(policy: Path, cluster: Nodes, tmp_path: Path) -> Iterator[EngineClient]:
    """Two workers on a cluster with one node of two CPUs."""
    cluster.tell("add 2")
    found = pooled(policy, tmp_path / "log", address=cluster.address)
    yield found
    found.close()
    cluster.tell("remove -1")


def until(true: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)
    return found


def ready(log: Path) -> list[int]:
    """The workers' processes, in the order they came."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return [int(p) for p in re.findall(r"a worker is ready: .*, process (\d+)", text)]


def begun(threads: ThreadPoolExecutor, engine: EngineClient, blocks: list[Any]) -> list[Future[Any]]:
    engine.start()
    return [threads.submit(engine.generate, block) for block in blocks]


def test_a_worker_larger_than_any_node_is_one_line(policy: Path, cluster: Nodes, tmp_path: Path) -> None:
    """The cluster's first test: Ray takes a while to notice that a node has gone."""
    engine = pooled(policy, tmp_path / "log", address=cluster.address)
    with pytest.raises(BadInput, match="a worker takes 1 CPUs and no node of the cluster has more than 0"):
        engine.generate(block_of(0))
    engine.close()


def test_the_rows_of_a_pool_are_those_of_one_engine(
    pool: EngineClient, alone: TransformersEngine, policy: Path, tmp_path: Path
) -> None:
    """Six blocks on two workers at once, half of them with an adapter that each worker must be sent first."""
    worn = _adapter(tmp_path / "adapter", policy, 1)
    assert pool.invariant and pool.at_once == 3
    chat = [[{"role": "user", "content": "Name it."}]]
    assert pool.chat_ids(chat) == alone.chat_ids(chat)
    blocks = [block_of(k, adapter=worn if k % 2 else None) for k in range(6)]
    pool.generate(blocks[0])
    until(lambda: len(ready(tmp_path / "log")) == 2)
    with ThreadPoolExecutor(6) as threads:
        found = [f.result(timeout=300) for f in begun(threads, pool, blocks)]
    assert found == [alone.generate(block) for block in blocks]
    choices = [Choice(chat[0], "Score:", SCORES, a) for a in (None, worn)]
    assert pool.choice_logprobs(choices) == alone.choice_logprobs(choices)
    given = [Scored((1, 40, 41), found[k][0].token_ids, worn) for k in range(3)]
    assert pool.token_logprobs(given) == alone.token_logprobs(given)


def test_a_killed_worker_loses_its_block_in_flight_and_that_is_made_again(
    pool: EngineClient, alone: TransformersEngine, tmp_path: Path
) -> None:
    blocks = [block_of(k, **LONG) for k in range(2)]
    with ThreadPoolExecutor(2) as threads:
        [f.result(timeout=200) for f in begun(threads, pool, [block_of(9)])]
        first = until(lambda: len(ready(tmp_path / "log")) == 2 and ready(tmp_path / "log"))[0]
        found = begun(threads, pool, blocks)
        time.sleep(0.5)
        os.kill(first, signal.SIGKILL)
        rows = [f.result(timeout=200) for f in found]
    assert rows == [alone.generate(block) for block in blocks]
    log = (tmp_path / "log").read_text(errors="replace")
    assert log.count("is lost:") == 1, "the kill came while its block was in flight"


def test_a_worker_that_hangs_is_noticed_and_its_block_made_by_another(
    policy: Path, cluster: Nodes, alone: TransformersEngine, tmp_path: Path
) -> None:
    cluster.tell("add 2")
    engine = pooled(policy, tmp_path / "log", address=cluster.address, timeout=8.0)
    blocks = [block_of(k) for k in range(2)]
    with ThreadPoolExecutor(4) as threads:
        [f.result(timeout=300) for f in begun(threads, engine, blocks)]
        until(lambda: len(ready(tmp_path / "log")) == 2)
        os.kill(ready(tmp_path / "log")[0], signal.SIGSTOP)
        rows = [f.result(timeout=300) for f in begun(threads, engine, blocks)]
    assert rows == [alone.generate(block) for block in blocks]
    assert "finished no row in 8 s" in (tmp_path / "log").read_text()
    engine.close()
    cluster.tell("remove -1")


def test_a_node_that_joins_is_used_and_one_that_leaves_loses_only_its_blocks(
    policy: Path, cluster: Nodes, alone: TransformersEngine, tmp_path: Path
) -> None:
    """Room for one worker of two; the second starts with the second node, and then the first node goes."""
    cluster.tell("add 1")
    engine = pooled(policy, tmp_path / "log", address=cluster.address)
    with ThreadPoolExecutor(4) as threads:
        begun(threads, engine, [block_of(9)])[0].result(timeout=300)
        assert len(ready(tmp_path / "log")) == 1
        cluster.tell("add 1")
        begun(threads, engine, [block_of(9)])[0].result(timeout=300)
        until(lambda: len(ready(tmp_path / "log")) == 2)
        blocks = [block_of(k, **LONG) for k in range(3)]
        found = begun(threads, engine, blocks)
        time.sleep(0.5)
        cluster.tell("remove -2")
        rows = [f.result(timeout=200) for f in found]
    assert rows == [alone.generate(block) for block in blocks]
    engine.close()
    cluster.tell("remove -1")


def test_a_block_that_ends_three_workers_becomes_faults_and_the_next_is_made(
    policy: Path, cluster: Nodes, alone: TransformersEngine, tmp_path: Path
) -> None:
    cluster.tell("add 1")
    engine = pooled(policy, tmp_path / "log", address=cluster.address, workers=1)
    with ThreadPoolExecutor(2) as threads:
        bad, good = begun(threads, engine, [block_of(0, **LONG), block_of(1)])
        for n in range(3):
            worker = until(lambda n=n: len(ready(tmp_path / "log")) > n and ready(tmp_path / "log")[n])
            time.sleep(0.3)
            os.kill(worker, signal.SIGKILL)
        assert bad.result(timeout=300) == [Completion(None, fault="worker_died")] * 32
        assert good.result(timeout=300) == alone.generate(block_of(1))
    engine.close()
    cluster.tell("remove -1")


DRIVER = """
import sys, time
from pathlib import Path
from selfreward.engines.client import EngineClient
from tests.test_pool import block_of, pooled
engine = pooled(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
engine.generate(block_of(0, 4))
print("up", flush=True)
time.sleep(600)
"""


def test_nothing_of_ray_outlives_a_killed_driver(policy: Path, tmp_path: Path) -> None:
    """A Ray of our own: its folder is named in the command lines of its processes."""
    arguments = [sys.executable, "-c", DRIVER, str(policy), str(tmp_path / "log")]
    driver = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline() == "up\n"
    (worker,) = ready(tmp_path / "log")
    folder = next(f for f in files_of(worker) if "/selfreward-ray-" in f)
    folder = re.match(r".*?/selfreward-ray-[^/]+", folder)[0]  # type: ignore[index]
    assert len(users_of(folder)) > 4  # raylet, its agents, the worker
    listening = {a for p in users_of(folder) for a in addresses_of(p)}
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "nothing of it listens to others"
    driver.kill()
    driver.communicate()
    until(lambda: not users_of(folder), 30)
    until(lambda: not Path(folder).exists(), 10)


def files_of(process: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{process}/fd").glob("*"):
        try:
            found.append(os.readlink(entry))
        except OSError:
            continue
    return found


def users_of(folder: str) -> list[int]:
    """Processes with the folder in their command line or a file of it open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            named = folder.encode() in (process / "cmdline").read_bytes()
            if named or any(f.startswith(folder) for f in files_of(int(process.name))):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def addresses_of(process: int) -> list[str]:
    """Where a process listens, from the kernel's own tables."""
    mine = {f[8:-1] for f in files_of(process) if f.startswith("socket:[")}
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in mine:
                raw = bytes.fromhex(words[1].partition(":")[0])
                host = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                found.append(socket.inet_ntop(family, host))
    return found


def test_an_address_nobody_answers_is_one_line(policy: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: nobody else can be there either
        engine = pooled(policy, tmp_path / "log", address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(BadInput, match=r"ray_address 127\.0\.0\.1:\d+: nobody answers there") as told:
            engine.generate(block_of(0))
    assert "\n" not in str(told.value)
    engine.close()


def test_a_cluster_that_lost_its_last_node_is_one_line(policy: Path, cluster: Nodes, tmp_path: Path) -> None:
    cluster.tell("add 1")
    engine = pooled(policy, tmp_path / "log", address=cluster.address, workers=1, timeout=8.0)
    with ThreadPoolExecutor(1) as threads:
        begun(threads, engine, [block_of(9)])[0].result(timeout=300)
        cluster.tell("remove -1")
        (lost,) = begun(threads, engine, [block_of(0)])
        with pytest.raises(BadInput, match="no node of the cluster has more than 0"):
            lost.result(timeout=300)
    engine.close()


@pytest.mark.slow
def test_a_run_on_two_workers_leaves_the_rows_of_a_run_on_one(tiny_policy: Path, tmp_path: Path) -> None:
    """From the probe of M0 to the pairs of M1, workers of our own Ray; `made_from` does not name them.

    Judgements alone are numbered in the order their blocks come, and compared without the number.
    """
    found = {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        write_recipe(folder, tiny_policy, start={"sft": None}, compute={"workers": workers})
        done = iterate(folder, "--to", "M2", "--pause-before", "train")
        assert done.returncode == 0, done.stdout + done.stderr
        found[workers] = tables(folder)
        said = found[workers]["judgement"]  # numbered as their blocks came, which differs
        found[workers]["judgement"] = sorted(row[1:] for row in said)
    assert found[1]["pair"] and found[1]["evaluation"]
    assert found[2] == found[1]
