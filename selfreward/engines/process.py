"""Child processes that cannot outlive their driver.

Both sides are here: the driver starts a child with a control pipe, the child ties its life to it. A child
stays in the driver's process group, inherits no lock (descriptors are closed on exec), writes its log to a
file, and dies with the driver by the kernel's parent-death signal on Linux and by the end of the pipe
everywhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair

from selfreward.points import reach

QUIET = {  # nothing leaves the machine, and a log is a log
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
# A default: idle threads give the core back, or a busy machine runs 10 x slower.
SPIN = {"GOMP_SPINCOUNT": "10000"}
PR_SET_PDEATHSIG = 1


class Child:
    """A started process, its control pipe and its log."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Connection, log: Path) -> None:
        self.process, self.pipe, self.log = process, pipe, log

    def log_tail(self, lines: int = 3) -> str:
        """The last words of a child that failed, on one line."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        kept = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(kept[-lines:])

    def close(self, patience: float = 20.0) -> int:
        """Ends the pipe, waits for the exit code, and kills only a child that does not leave.

        Returns the code.
        """
        self.pipe.close()
        try:
            return self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def start(
    module: str,
    arguments: Sequence[str],
    log: Path,
    threads: int | None = None,
    extra: Mapping[str, str] | None = None,
) -> Child:
    """Starts `python -m module ARGUMENTS` with a control pipe.

    Call it from the main thread (PDEATHSIG is per thread).
    """
    reach("start", module)
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = socketpair()
    environment = (
        os.environ | QUIET | {"SELFREWARD_PIPE": str(theirs.fileno()), "SELFREWARD_DRIVER": str(os.getpid())}
    )
    environment |= extra or {}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[theirs.fileno()],
        )
    theirs.close()
    reach("started", module)
    return Child(process, Connection(ours.detach()), log)


def join_driver(watch: bool) -> Connection:
    """In the child: takes the control pipe and ties this process's life to the driver's.

    With `watch` a thread waits for the end of the pipe (a trainer reads nothing from it); without, the
    child's own reading of requests sees the end.
    """
    driver = int(os.environ.pop("SELFREWARD_DRIVER"))
    _die_with_parent(driver)
    _leave_signals()
    pipe = Connection(int(os.environ.pop("SELFREWARD_PIPE")))
    if watch:
        threading.Thread(target=_exit_at_end, args=(pipe,), daemon=True).start()
    return pipe


def tie_to_parent(told: str) -> None:
    """In a grandchild: ends with the process that started it, and leaves signals to the driver.

    `told` stands in that process's command line. Who is the parent by now may be another, that took this one
    over from a parent that died.
    """
    parent = os.getppid()
    _die_with_parent(parent)
    if sys.platform == "linux" and os.fsencode(told) not in _command_line(parent):
        os._exit(1)
    _leave_signals()


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _leave_signals() -> None:
    """A terminal's Ctrl-C and Slurm's warnings reach every process; the driver decides what is done."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _die_with_parent(driver: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != driver:  # it died before the call
        os._exit(1)


def _exit_at_end(pipe: Connection) -> None:
    try:
        while True:
            pipe.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
