"""The demo: M0 to M3 with a real 135M chat model on the CPU, then what it left, in words for a newcomer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent / "selfreward"


def tell(*arguments: str) -> None:
    """Runs a command of ours in sight of the reader."""
    print(f"\n$ selfreward {' '.join(arguments)}", flush=True)
    code = subprocess.run([str(BIN), *arguments], check=False).returncode
    if code != 0:
        sys.exit(code)


def main() -> None:
    """The loop, then a look at its result."""
    start = time.monotonic()
    tell("iterate", "--run", "demo", "--to", "M3")
    minutes = (time.monotonic() - start) / 60
    tell("status", "--run", "demo")
    tell("pairs", "stats", "--run", "demo")
    listed = [str(BIN), "pairs", "list", "--run", "demo", "--sort", "-margin", "--limit", "1", "--json"]
    best = json.loads(subprocess.run(listed, check=True, capture_output=True, text=True).stdout)[0]["id"]
    tell("pairs", "show", str(best), "--run", "demo")
    print(
        f"\nM3 stands after {minutes:.1f} minutes."
        " Everything is in iterations/demo/selfreward.db, for example:\n"
        "  sqlite3 iterations/demo/selfreward.db 'SELECT policy, outcome, count(*) FROM mining"
        " JOIN prompt ON prompt.id = prompt_id GROUP BY 1, 2'\n"
        "Next, in the environment that was just made (. .venv/bin/activate):\n"
        "  selfreward pairs review                   keep or drop pairs; a dropped one does not train again\n"
        "  selfreward ui                             the same and more in the browser\n"
        "  selfreward report --html demo.html        a file to send; the newest one is in iterations/demo\n"
        "A 135M judge is close to a coin: this shows that the loop is sound, not that the model got wiser.\n"
        "`make prove` shows learning, with a rule as the reward."
    )


if __name__ == "__main__":
    main()
