"""The trainer's process: one training, under its folder's lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path

from selfreward.engines.memory import ran_out
from selfreward.engines.process import join_driver, tie_to_parent
from selfreward.errors import BadInput, SelfRewardError, WorkFailed
from selfreward.files import MAKE_ROOM, disk_is_full, write_json
from selfreward.training.job import REFUSED
from selfreward.training.trainer import train


def main() -> int:
    """Trains under the folder's lock, held by the first process, and ends with the code of what went wrong.

    A refusal of ours is left in `refused.json` too: a launcher keeps exit codes to itself.
    """
    folder = Path(sys.argv[1])
    if "RANK" in os.environ:
        tie_to_parent(sys.argv[1])
    else:
        join_driver(watch=True)
    first = os.environ.get("RANK", "0") == "0"
    with open(folder / "lock", "a", encoding="utf-8") as lock:
        if first:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / REFUSED).unlink(missing_ok=True)
        try:
            train(folder)
        except SelfRewardError as error:
            return _refuse(folder, error) if first else error.exit_code
        except Exception as error:
            if ran_out(error):  # whichever process it was
                return _refuse(folder, WorkFailed(str(error).partition("\n")[0]), memory=True)
            if not disk_is_full(error, folder):
                raise
            return _refuse(folder, BadInput(f"{folder} has no room left: {MAKE_ROOM}"))
    return 0


def _refuse(folder: Path, error: SelfRewardError, *, memory: bool = False) -> int:
    """Says why in the log and, where the disk has room, for the driver."""
    print(error, file=sys.stderr)
    with contextlib.suppress(OSError):
        write_json(folder / REFUSED, {"exit_code": error.exit_code, "message": str(error), "memory": memory})
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
