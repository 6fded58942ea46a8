"""A sign of life in a folder that several machines see: who works there, renewed while they do.

A lock of the kernel knows its own machine; on a network file system it may not know others. The file's time
is compared with that of a file written just now, so that both are the file server's clock.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from selfreward.errors import StoreError

NAME = "lease.json"
BEAT = 10.0  # seconds between two signs of life
SILENT = 60.0  # seconds without one, after which the holder is taken for gone


class Lease:
    """Held from `with` to its end. `said` tells of a holder that was taken for gone, or is empty."""

    def __init__(self, folder: Path, beat: float = BEAT, silent: float = SILENT) -> None:
        self.path = folder / NAME
        self.said = ""
        self._beat, self._silent = beat, silent
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        holder = read(self.path.parent)
        if holder is not None:
            age = _age(self.path)
            told = f"process {holder['pid']} on {holder['host']}"
            if _is_alive(holder) and not _is_own(holder) and age < self._silent:
                raise StoreError(
                    f"{self.path.parent} is in use by {told}, which gave a sign of life {age:.0f} s ago: "
                    f"wait for it, or stop it there; after {self._silent:.0f} s of silence it counts as gone"
                )
            self.said = f"taken over from {told}, silent for {age:.0f} s"
        self._write()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if _is_own(read(self.path.parent)):
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises `StoreError` if another process has taken the lease over, which took this one for gone."""
        holder = read(self.path.parent)
        if holder is not None and not _is_own(holder):
            raise StoreError(
                f"{self.path.parent} was taken over by process {holder['pid']} on {holder['host']} "
                "while this one gave no sign of life: everything stored is whole, this process stops"
            )

    def _write(self) -> None:
        told = {"host": socket.gethostname(), "pid": os.getpid(), "since": int(time.time())}
        beside = self.path.with_name(f"{NAME}.{os.getpid()}.part")
        beside.write_text(json.dumps(told), encoding="utf-8")
        beside.rename(self.path)

    def _renew(self) -> None:
        while not self._stop.wait(self._beat):
            with suppress(OSError):  # a file server that is away for a moment
                if _is_own(read(self.path.parent)):
                    os.utime(self.path)


def read(folder: Path) -> dict[str, Any] | None:
    """Who says to work in a folder: host, pid, since; None for nobody, or for a file that is none of ours."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"host", "pid"} <= found.keys():
            return found
    return None


def is_fresh(folder: Path, silent: float = SILENT) -> bool:
    """Whether somebody works in the folder and gave a sign of life lately. Asks without writing."""
    holder = read(folder)
    if holder is None or not _is_alive(holder):
        return False
    with suppress(OSError):
        return time.time() - (folder / NAME).stat().st_mtime < silent
    return False


def _is_own(holder: dict[str, Any] | None) -> bool:
    return holder is not None and (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())


def _is_alive(holder: dict[str, Any]) -> bool:
    """False only where it can be seen: a process of this host that is gone."""
    if holder["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _age(path: Path) -> float:
    """Seconds since the last sign of life, by the file server's clock."""
    probe = path.with_name(f"{NAME}.{os.getpid()}.now")
    try:
        probe.write_text("", encoding="utf-8")
        return max(0.0, probe.stat().st_mtime - path.stat().st_mtime)
    finally:
        probe.unlink(missing_ok=True)
