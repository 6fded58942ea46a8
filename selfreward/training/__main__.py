"""The trainer's process: one training, under its folder's lock."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from selfreward.engines.process import join_driver, tie_to_parent
from selfreward.errors import SelfRewardError
from selfreward.files import write_json
from selfreward.training.job import REFUSED
from selfreward.training.trainer import train


def main() -> int:
    """Trains under the folder's lock, held by the first process, and ends with the code of what went wrong.

    A refusal of ours is left in `refused.json` too: a launcher keeps exit codes to itself.
    """
    if "RANK" in os.environ:
        tie_to_parent()
    else:
        join_driver(watch=True)
    folder = Path(sys.argv[1])
    first = os.environ.get("RANK", "0") == "0"
    with open(folder / "lock", "a", encoding="utf-8") as lock:
        if first:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / REFUSED).unlink(missing_ok=True)
        try:
            train(folder)
        except SelfRewardError as error:
            print(error, file=sys.stderr)
            if first:
                write_json(folder / REFUSED, {"exit_code": error.exit_code, "message": str(error)})
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
