"""Runs code nobody has read in a child that can neither write, nor talk, nor stay (`confined`).

A program that breaks a limit has failed its tests. A child that never began, or that the clock ended before
its CPU limit did, has shown nothing: a fault.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from selfreward.scorers import confined

CHILD = Path(confined.__file__)
PATIENCE = 10  # seconds by the clock for each second of CPU: a busy machine must not decide a score


@dataclass(frozen=True, slots=True)
class Outcome:
    """`passed`, or not with the reason in a word; or the `fault` of a run that shows nothing."""

    passed: bool = False
    reason: str | None = None
    fault: str | None = None


def run(code: str, tests: str, *, seconds: int, memory_mib: int) -> Outcome:
    """The tests after the code, in one module's names; `seconds` of CPU."""
    nonce = secrets.token_hex(16)
    task = {"code": code, "tests": tests, "nonce": nonce, "seconds": seconds, "memory_mib": memory_mib}
    try:
        done = subprocess.run(
            [sys.executable, "-S", "-s", "-P", "-B", str(CHILD)],
            input=json.dumps(task).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            timeout=PATIENCE * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(fault="timeout")
    said = [line[len(nonce) + 1 :] for line in _lines(done.stdout) if line.startswith(nonce + " ")]
    match said:
        case [confined.READY, confined.PASSED]:
            return Outcome(passed=True)
        case [confined.READY, last] if last.startswith(confined.FAILED):
            return Outcome(reason=last.removeprefix(confined.FAILED).strip())
        case [confined.READY]:
            return Outcome(reason="ended")
    return Outcome(fault="sandbox_failed")


def _lines(told: bytes) -> list[str]:
    return told.decode("utf-8", errors="replace").splitlines()
