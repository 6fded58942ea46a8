"""A training of several processes, tied to the driver as a single trainer would be.

`python -m selfreward.training.launch FOLDER` starts the command lines of FOLDER/launch.json. They end with
this process, which knows no tensor library; the first that fails ends the others.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from selfreward.engines.process import PR_SET_PDEATHSIG, join_driver
from selfreward.training.job import LAUNCH

LOOK = 0.1  # seconds between two looks at whether one has ended
PATIENCE = 60.0  # seconds a launcher may take to end what it started elsewhere


def run(lines: list[list[str]], parting: signal.Signals) -> int:
    """Starts all lines and waits; 0, or the code of the first that failed. `parting` comes when we die."""
    tie = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    here = os.getpid()

    def tied() -> None:
        if tie is not None:
            tie(PR_SET_PDEATHSIG, parting)
            if os.getppid() != here:  # we died before the call
                os._exit(1)

    running = {}
    for line in lines:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, preexec_fn=tied)
        running[process.pid] = process
    while running:
        ended, code = _next_end(running)
        del running[ended]
        if code:
            _part(list(running.values()), parting)
            return code if code > 0 else 1
    return 0


def _next_end(running: dict[int, subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Waits for the first to end: its process id and exit code."""
    while True:
        for pid, process in running.items():
            if (code := process.poll()) is not None:
                return pid, code
        time.sleep(LOOK)


def _part(others: list[subprocess.Popen[bytes]], parting: signal.Signals) -> None:
    for process in others:
        process.send_signal(parting)
    for process in others:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    join_driver(watch=True)
    told = json.loads((Path(sys.argv[1]) / LAUNCH).read_text(encoding="utf-8"))
    if not told["elsewhere"]:  # torchrun leaves signals to the driver, as its ranks do, and ends these soon
        os.environ |= {"PET_SIGNALS_TO_HANDLE": "SIGQUIT", "PET_SHUTDOWN_TIMEOUT": "5"}
    # a launcher such as srun must be asked, or what it started elsewhere goes on
    sys.exit(run(told["lines"], signal.SIGTERM if told["elsewhere"] else signal.SIGKILL))
