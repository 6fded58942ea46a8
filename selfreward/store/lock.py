"""One writer per store: a file lock that lives exactly as long as its owner."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from pathlib import Path
from typing import IO

from selfreward.errors import StoreError
from selfreward.store import lease


class Lock:
    """Held from `with` to the end of the process; a crash releases it, children don't inherit it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> Lock:
        self._file = open(self.path, "a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):  # a file system without such locks: the lease stands
                return self
            self._file.seek(0)
            holder = self._holder(self._file.read())
            self._file.close()
            raise StoreError(f"{self.path.parent} is in use by {holder}: wait for it, or stop it") from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(
            json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)})
        )
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @staticmethod
    def _holder(text: str) -> str:
        try:
            found = json.loads(text)
            return f"process {found['pid']} on {found['host']} ({found['command']})"
        except (ValueError, KeyError):
            return "another process"


def is_held(folder: Path) -> bool | None:
    """Whether a process on this machine holds the run's lock; None where that can't be seen.

    Read from the kernel's list: trying the lock could make an `iterate` that starts just then fail.
    """
    if lease.is_fresh(folder):
        return True
    try:
        inode = (folder / "lock").stat().st_ino
    except OSError:
        return False
    try:
        held = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    fields = [line.split() for line in held.splitlines()]
    return any("FLOCK" in f and any(x.endswith(f":{inode}") for x in f) for f in fields)
