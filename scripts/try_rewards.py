"""One iteration of the demo policy with each reward: how many pairs it makes, and how wide their margins are.

    python scripts/try_rewards.py [NAME …] [--in FOLDER]

Prompts are one-digit sums with their answers, and small functions with tests; sizes are for two CPU cores.
Prints one JSON line a reward. `external` needs a server of your own, `reward-model` a classifier: both are
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from selfreward.scorers import lint
from selfreward.store import Views

SUMS = [
    {"prompt": f"What is {a} plus {b}?", "reference": str(a + b)} for a in range(1, 9) for b in range(a, 9, 2)
]
FUNCTIONS = {  # what it is to do, with a call and its value
    "returns the sum of a and b": ("add(a, b)", "add(2, 3) == 5"),
    "returns twice x": ("double(x)", "double(4) == 8"),
    "returns the square of x": ("square(x)", "square(3) == 9"),
    "returns the larger of a and b": ("larger(a, b)", "larger(2, 7) == 7"),
    "returns True if n is even": ("is_even(n)", "is_even(4) and not is_even(3)"),
    "returns the length of the text s": ("length(s)", "length('abc') == 3"),
    "returns the text s in upper case": ("upper(s)", "upper('ab') == 'AB'"),
    "returns the text s backwards": ("backwards(s)", "backwards('abc') == 'cba'"),
    "returns the first item of the list x": ("first(x)", "first([5, 6]) == 5"),
    "returns the last item of the list x": ("last(x)", "last([5, 6]) == 6"),
    "returns the sum of the numbers in the list x": ("total(x)", "total([1, 2, 3]) == 6"),
    "returns the largest number in the list x": ("highest(x)", "highest([1, 9, 3]) == 9"),
    "returns x minus 1": ("before(x)", "before(5) == 4"),
    "returns the absolute value of x": ("size(x)", "size(-3) == 3"),
    "returns the number n as a text": ("as_text(n)", "as_text(7) == '7'"),
    "returns the list x sorted": ("in_order(x)", "in_order([3, 1, 2]) == [1, 2, 3]"),
}
CODE = [
    {
        "prompt": f"Write a Python function {call} that {what}. Give the code alone.",
        "checks": {"tests": f"assert {test}"},
    }
    for what, (call, test) in FUNCTIONS.items()
]
TOOLS = [tool for tool in lint.COMMANDS if not lint.missing([tool])]  # of the linters those that are there
SHORT = {"start": {"sft": None}}
TAUGHT = {"start": {"sft": {"examples": 24, "judge_examples": 0, "batch": 8, "micro_batch": 4}}}
RECIPES: dict[str, dict[str, Any]] = {
    "rule": {"rewards": [{"type": "rule"}]},
    "majority": {"rewards": [{"type": "majority"}], "candidates": {"n": 6}},
    "rlpr": {"rewards": [{"type": "rlpr"}], "pairs": {"spread_ema": 0.9}},
    "rlif": {"rewards": [{"type": "rlif", "i_know": True}]},
    "direct-10": {"rewards": [{"type": "direct-10"}]},
    "aspects": {"rewards": [{"type": "aspects"}]},
    "implicit": {"rewards": [{"type": "implicit"}], **TAUGHT},
    "mixed": {
        "rewards": [
            {"type": "rule", "role": "gate"},
            {"type": "judge"},
            {"type": "length", "low": 2, "best": 6},
        ]
    },
    "anchored": {
        "rewards": [{"type": "rule"}],
        "candidates": {"anchor": {"n": 2}},
        "pairs": {"rule": "anchored"},
    },
    "code": {"rewards": [{"type": "code", "tools": TOOLS}], "prompts": {"from": "code.jsonl"}},
}


def main() -> None:
    """Runs what is asked for, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all without any")
    parser.add_argument("--in", dest="folder", type=Path, help="where to run and leave the runs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        for name in asked.names or list(RECIPES):
            print(json.dumps(one(asked.folder or Path(aside), name)), flush=True)


def one(folder: Path, name: str) -> dict[str, Any]:
    """The run of one reward, and what it left."""
    here = folder / "iterations"
    here.mkdir(parents=True, exist_ok=True)
    for file, rows in (("sums.jsonl", SUMS), ("code.jsonl", CODE)):
        (here / file).write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (here / f"{name}.yaml").write_text(yaml.safe_dump(recipe(name)), encoding="utf-8")
    start = time.monotonic()
    command = [sys.executable, "-P", "-m", "selfreward.cli", "iterate", "--run", name, "--to", "M2"]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
    found = {"reward": name, "exit": done.returncode, "seconds": round(time.monotonic() - start)}
    if done.returncode:
        found["said"] = done.stderr.strip().splitlines()[-1:]
    views = Views(here / name / "selfreward.db", write=False)
    try:
        pairs = views.pair_numbers("M1")
        margins = sorted(round(p.margin, 4) for p in pairs)
        found |= {"pairs": len(pairs), "margins": margins[:: max(1, len(margins) // 4)]}
        return found | {"outcomes": {r.outcome: r.n for r in views.mining_counts("M1")}}
    finally:
        views.close()


def recipe(name: str) -> dict[str, Any]:
    """Small sizes, and what the reward needs beside them."""
    own = RECIPES[name]
    tokens = 96 if name == "code" else 48
    sizes: dict[str, Any] = {
        "model": "smollm2-135m-instruct",
        "prompts": {"from": "sums.jsonl", "count": len(CODE) if name == "code" else len(SUMS)},
        "candidates": {"n": 4, "sampling": {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": tokens}},
        "judge": {"mode": "expected", "samples": 1, "sampling": {"max_new_tokens": 128}},
        "training": {"batch": 4, "micro_batch": 4, "max_length": 512, "lr": 1e-4},
        "probe": {"count": 8, "max_new_tokens": 24},
        "evaluate": None,
        "gate": {"on_collapse": "warn"},
    }
    for section, value in (SHORT | own).items():
        merged = isinstance(value, dict) and isinstance(sizes.get(section), dict)
        sizes[section] = sizes[section] | value if merged else value
    return sizes


if __name__ == "__main__":
    main()
