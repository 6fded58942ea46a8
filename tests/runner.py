"""Runs `selfreward` in a folder of its own, as a user would, and reads back what it left.

`RUN` is the driver process; at its end it says whether it ever held a tensor library. With SELFREWARD_FAULTS
it is cut off at a point (selfreward/points.py); tests/nursery.py does that faster.
"""

from __future__ import annotations

import copy
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

RUN = """
import sys
from selfreward import cli

try:
    cli.main()
finally:
    heavy = sorted({"torch", "transformers", "trl", "peft", "vllm", "ray"} & sys.modules.keys())
    print("heavy modules:", heavy)
"""

TINY: dict[str, Any] = {
    "report": False,
    "engine": {"batch": 16, "block": 3, "threads": 1},
    "start": {
        "sft": {"examples": 6, "judge_examples": 2, "batch": 4, "micro_batch": 4, "lr": 1e-3, "save_steps": 1}
    },
    "prompts": {"count": 8, "requests": 2, "rounds": 1, "sampling": {"max_new_tokens": 12}},
    "candidates": {"n": 3, "sampling": {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 32}},
    "judge": {"mode": "expected"},
    "training": {"lr": 5e-3, "batch": 2, "micro_batch": 2, "save_steps": 1, "lora": {"r": 4}},
    "probe": {"count": 6, "max_new_tokens": 8},
    "evaluate": {"max_new_tokens": 8},
}

# What an interrupted and an uninterrupted run must agree on, byte for byte.
# Times, attempts and events may differ.
TABLES = {
    "run": "id, name, seed",
    "policy": "run_id, name, idx, parent, adapter, sha256, made_in, status, decision",
    "stage": "run_id, policy, name, made_in, status, made_from, fingerprint, n_done, n_total, n_tokens",
    "prompt": "*", "candidate": "*", "rubric": "*", "scorer": "*", "judgement": "*", "mining": "*",
    "pair": "*", "trained_on": "*", "answer": "*", "evaluation": "*", "metric": "*", "alarm": "*",
}  # fmt: skip


def write_recipe(folder: Path, model: Path, **changes: Any) -> None:
    """iterations/t.yaml in `folder`: the tiny sizes with some sections changed."""
    recipe: dict[str, Any] = {"model": str(model)} | copy.deepcopy(TINY)
    for section, value in changes.items():
        recipe[section] = recipe[section] | value if isinstance(value, dict) and section in recipe else value
    (folder / "iterations").mkdir(exist_ok=True)
    (folder / "iterations" / "t.yaml").write_text(yaml.safe_dump(recipe))


def iterate(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`selfreward iterate ARGUMENTS` in `folder`."""
    return command(folder, "iterate", *arguments, **environment)


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Any command of ours in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def connect(folder: Path) -> sqlite3.Connection:
    """The store of the run `t`, read-only."""
    return sqlite3.connect(f"file:{folder}/iterations/t/selfreward.db?mode=ro", uri=True)


def query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a query on the store of the run `t`."""
    connection = connect(folder)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def tables(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that decides, table by table."""
    return {
        name: query(folder, f"SELECT {columns} FROM {name} ORDER BY 1, 2, 3")
        for name, columns in TABLES.items()
    }
