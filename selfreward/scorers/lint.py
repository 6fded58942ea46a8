"""What pylint, flake8 and mypy find in pieces of code, by severity. None of the three runs the code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SECONDS = 600  # for one tool on all the pieces of a block
INFO, LOW, MEDIUM, HIGH, CRITICAL = "info", "low", "medium", "high", "critical"
COMMANDS = {
    "pylint": [
        "--rcfile=/dev/null", "--persistent=n", "--score=n", "--jobs=1", "--reports=n",
        "--disable=duplicate-code,missing-module-docstring,invalid-name", "--msg-template={path}:{category}:",
    ],
    "flake8": ["--isolated", "--jobs=1", "--max-line-length=100", "--format=%(path)s:%(code)s:"],
    "mypy": [
        "--config-file=", "--cache-dir=/dev/null", "--no-incremental", "--no-color-output",
        "--no-error-summary", "--follow-imports=silent", "--hide-error-context",
    ],
}  # fmt: skip
PYLINT = {"convention": INFO, "refactor": LOW, "warning": MEDIUM, "error": HIGH, "fatal": CRITICAL}
FLAKE8 = (("E9", CRITICAL), ("F82", HIGH), ("F", MEDIUM), ("C", LOW), ("E", INFO), ("W", INFO))
MYPY = {"note": INFO, "warning": LOW, "error": MEDIUM}
_FINDING = re.compile(r"(?:.*/)?c(\d+)\.py(?::\d+)*:\s*([A-Za-z]+\d*):")


def missing(tools: Sequence[str]) -> list[str]:
    """Which of the tools this Python does not have."""
    return [tool for tool in tools if importlib.util.find_spec(tool) is None]


def findings(pieces: Sequence[str], tools: Sequence[str]) -> list[list[str]] | None:
    """The severity of every finding in each piece; None where a tool did not do its work."""
    found: list[list[str]] = [[] for _ in pieces]
    if not pieces:
        return found
    with tempfile.TemporaryDirectory() as folder:
        for i, code in enumerate(pieces):
            (Path(folder) / f"c{i}.py").write_text(code.rstrip() + "\n", encoding="utf-8")
        for tool in tools:
            told = _run(tool, folder, len(pieces))
            if told is None:
                return None
            for place, severity in read(tool, told):
                found[place].append(severity)
    return found


def _run(tool: str, folder: str, n: int) -> str | None:
    """What the tool writes; None where it crashed or took too long."""
    names = [f"c{i}.py" for i in range(n)]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-s", "-m", tool, *COMMANDS[tool], *names],
            cwd=folder,
            env={"HOME": folder, "PYLINTHOME": folder, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    whole = done.returncode < 32 if tool == "pylint" else done.returncode in (0, 1)
    return done.stdout if whole and done.returncode >= 0 else None


def read(tool: str, told: str) -> list[tuple[int, str]]:
    """(piece, severity) of every finding in a tool's output; lines in no known form are its talk."""
    found = []
    for line in told.splitlines():
        at = _FINDING.match(line)
        severity = _severity(tool, at[2]) if at else None
        if at and severity:
            found.append((int(at[1]), severity))
    return found


def _severity(tool: str, kind: str) -> str | None:
    match tool:
        case "pylint":
            return PYLINT.get(kind)
        case "mypy":
            return MYPY.get(kind)
    return next((severity for start, severity in FLAKE8 if kind.startswith(start)), None)
