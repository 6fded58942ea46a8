"""The trainer's process: one training, under its folder's lock."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

from selfreward.errors import SelfRewardError
from selfreward.training.trainer import train


def main() -> int:
    """Holds the folder's lock, trains, and ends with the exit code of what went wrong."""
    from selfreward.engines.process import join_driver

    join_driver(watch=True)
    folder = Path(sys.argv[1])
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            train(folder)
        except SelfRewardError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
