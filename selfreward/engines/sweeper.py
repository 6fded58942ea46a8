"""Ends what a Ray of our own would leave behind; started beside it, it outlives whoever uses that Ray.

`python -m selfreward.engines.sweeper FOLDER` waits for the end of its standard input, which comes however the
engine child ends, then kills every process that still works in that Ray's folder, and removes the folder. A
Ray that is killed otherwise leaves its agents for minutes (seen with 2.60).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

LOOKS = 50  # a tenth of a second apart


def holders(folder: str, spared: set[int]) -> list[int]:
    """Processes that have the folder in their command line or a file of it open: Ray's and its workers'."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) not in spared and _is_of(process, folder):
                found.append(int(process.name))
    return found


def _is_of(process: Path, folder: str) -> bool:
    if folder.encode() in (process / "cmdline").read_bytes():
        return True
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith(f"{folder}/"):
                return True
    return False


def sweep(folder: str, spared: set[int]) -> None:
    """Kills till nobody is left: what is dying may have started another."""
    for _ in range(LOOKS):
        left = holders(folder, spared)
        if not left:
            break
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()  # it ends by itself, or has ended
    sys.stdin.buffer.read()
    sweep(sys.argv[1], {os.getpid(), parent})
