"""Whole runs at the price of their work: a process that has imported everything forks drivers and children.

A driver here is the real command line in a process of its own, its children are real processes with the real
pipes, logs, locks and parent-death signals; only the seconds of importing torch are saved. Each driver leads
a process group, so that `kill -9` of a group is a power cut for the whole run. `python -m tests.nursery`
serves; `Nursery` asks.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

WARM = (  # what children import late
    "torch", "torch._dynamo", "torch.distributed", "transformers", "transformers.models.auto", "datasets",
    "transformers.models.llama.modeling_llama", "accelerate", "peft", "peft.tuners.lora", "trl",
    "trl.trainer.dpo_trainer", "trl.trainer.sft_trainer", "alembic.command", "alembic.config", "sqlmodel",
    "selfreward.cli", "selfreward.loop", "selfreward.runs", "selfreward.stages.train", "selfreward.show.run",
    "selfreward.show.progress", "selfreward.engines.transformers_engine", "selfreward.engines.decode",
    "selfreward.training.trainer",
)  # fmt: skip
PR_SET_CHILD_SUBREAPER = 36
GONE = 10.0  # seconds within which nothing of a dead run may be alive


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended; `left` names the processes that outlived its driver by `GONE` seconds."""

    code: int
    said: str
    left: list[str]
    seconds: float


class Nursery:
    """The asking side."""

    def __init__(self) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def run(
        self,
        folder: Path,
        *arguments: str,
        faults: Mapping[str, Any] | None = None,
        after: float | None = None,
        send: int = signal.SIGKILL,
        to: str = "group",
        timeout: float = 300.0,
        keep: Path | None = None,
    ) -> Ended:
        """`selfreward ARGUMENTS` in `folder`; after that many seconds `send` goes to the group or driver.

        Whenever the group has stopped (`do: stop`), `folder` is copied to the next number in `keep`.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = {
            "folder": str(folder), "arguments": arguments, "faults": faults, "after": after,
            "send": int(send), "to": to, "timeout": timeout, "keep": str(keep) if keep else None,
        }  # fmt: skip
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        return Ended(**found)


def serve() -> None:
    """One run at a time, until standard input ends."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans come here, to be seen and counted
    for name in WARM:
        __import__(name)
    for line in sys.stdin:
        print(json.dumps(_one(json.loads(line))), flush=True)


def _one(asked: dict[str, Any]) -> dict[str, Any]:
    said = Path(asked["folder"]) / "said.txt"
    said.write_text("")
    start = time.monotonic()
    driver = os.fork()
    if driver == 0:
        _drive(asked, said)
    with contextlib.suppress(OSError):
        os.setpgid(driver, driver)
    code = _await(driver, asked, start)
    seconds = time.monotonic() - start
    left = _left(driver)
    return {"code": code, "said": said.read_text(errors="replace"), "left": left, "seconds": seconds}


def _await(driver: int, asked: dict[str, Any], start: float) -> int:
    """The driver's exit code, negative for a signal; signals are sent on the way."""
    due, kept = asked["after"], 0
    while True:
        pid, status = os.waitpid(driver, os.WNOHANG | (os.WUNTRACED if asked["keep"] else 0))
        if pid and os.WIFSTOPPED(status):
            _keep(driver, Path(asked["folder"]), Path(asked["keep"]) / f"{kept:04}")
            kept += 1
            continue
        if pid:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - start
        if due is not None and passed >= due:
            due = None
            (os.killpg if asked["to"] == "group" else os.kill)(driver, asked["send"])
        if passed > asked["timeout"]:
            os.killpg(driver, signal.SIGKILL)
        time.sleep(0.003)


def _keep(group: int, folder: Path, copy: Path) -> None:
    """Copies a folder while all that a run has started stands still, with the inodes its files had."""
    while not all(state in "TZX" for _, state in _members(group)):
        time.sleep(0.001)
    shutil.copytree(folder, copy)
    inodes = {p.stat().st_ino: str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    copy.with_suffix(".json").write_text(json.dumps(inodes))
    os.killpg(group, signal.SIGCONT)


def _members(group: int) -> Iterator[tuple[int, str]]:
    """Processes of a group with their states, as /proc spells them."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(own) == group:
                yield int(entry.name), state


def _left(group: int) -> list[str]:
    """Waits until the group is empty; names what is not gone in time, and ends it."""
    end = time.monotonic() + GONE
    while time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return []
        time.sleep(0.003)
    found = []
    for pid, _ in _members(group):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
    os.killpg(group, signal.SIGKILL)
    return found


def _drive(asked: dict[str, Any], said: Path) -> None:
    """In the fork: becomes the command line, whose children are forks too."""
    from selfreward import cli, points
    from selfreward.engines import process

    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(asked["folder"])
        _wire(os.open(said, os.O_WRONLY | os.O_APPEND), keep=())
        os.environ["SELFREWARD_FAULTS"] = json.dumps(asked["faults"]) if asked["faults"] else ""
        points.PLAN = points.plan()
        process.subprocess = SimpleNamespace(  # type: ignore[assignment]
            Popen=Fork, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT,
            TimeoutExpired=subprocess.TimeoutExpired,
        )  # fmt: skip
        sys.argv = ["selfreward", *asked["arguments"]]
        code = _code_of(cli.main)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _code_of(call: Any) -> int:
    """The exit code a process would end with."""
    try:
        call()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def _wire(out: int, keep: Sequence[int]) -> None:
    """Standard streams as a fresh process has them; every other file is closed, as on exec."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, *keep):
            with contextlib.suppress(OSError):
                os.close(int(name))
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)


class Fork:
    """What `subprocess.Popen` is to `selfreward.engines.process`, without the import of a fresh Python."""

    def __init__(
        self,
        line: list[str],
        *,
        stdin: int,
        stdout: Any,
        stderr: int,
        env: dict[str, str],
        pass_fds: list[int],
    ) -> None:
        self.returncode: int | None = None
        if line[3] == "selfreward.training.launch":  # torchrun's ranks are fresh processes
            self._real: Any = subprocess.Popen(
                line, stdin=stdin, stdout=stdout, stderr=stderr, env=env, pass_fds=pass_fds
            )
            self.pid = self._real.pid
            return
        self._real = None
        self.pid = os.fork()
        if self.pid == 0:
            self._become(line[3], line[4:], stdout.fileno(), env, pass_fds)

    def _become(
        self, module: str, arguments: list[str], out: int, env: dict[str, str], keep: list[int]
    ) -> None:
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.alarm(0)
            _wire(out, keep)
            os.environ.clear()
            os.environ.update(env)
            from selfreward import points

            points.PLAN = points.plan()
            sys.argv = [module, *arguments]
            code = _code_of(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))
        finally:
            sys.stdout.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self._real is not None:
            self.returncode = self._real.poll()
        elif self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the exit code."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("child", timeout or 0.0)
            time.sleep(0.003)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """As by kill -9."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
