"""Copies of a store that is being written, for those who read it meanwhile, and where the newest rows are."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from selfreward.errors import StoreError
from selfreward.store import lease

SNAPSHOT = "selfreward.snapshot.db"
ELSEWHERE = "store.json"  # says that the newest rows are on a machine's own disk
SHARE_OF_TIME = 0.02  # of a run that copying snapshots may take


class Mirror:
    """Keeps a copy of an open store: after blocks, when one is due, or only when a stage is done."""

    def __init__(self, copy_to: Callable[[Path], None], target: Path, *, after_blocks: bool) -> None:
        self.target = target
        self._copy_to, self._after_blocks = copy_to, after_blocks
        self._due = 0.0

    def block_ended(self) -> None:
        """Copies if it is time; a copy that fails is tried again later, for the rows themselves are safe."""
        if self._after_blocks and time.monotonic() >= self._due:
            start = time.monotonic()
            with suppress(StoreError):
                self.copy()
            self._due = time.monotonic() + max(1.0, (time.monotonic() - start) / SHARE_OF_TIME)

    def stage_ended(self) -> None:
        """Copies. Raises `StoreError` where that fails."""
        self.copy()

    def copy(self) -> None:
        """The store as it is now, whole, in the target's place."""
        self._copy_to(self.target)


def elsewhere(home: Path) -> dict[str, Any] | None:
    """Host and path of the file with the newest rows, while that is not the run's own."""
    with suppress(OSError, ValueError):
        found = json.loads(home.with_name(ELSEWHERE).read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"host", "path"} <= found.keys():
            return found
    return None


def readable(path: Path) -> Path:
    """The file a reader opens: the snapshot while a writer keeps the store to itself, or died doing so."""
    snapshot = path.with_name(SNAPSHOT)
    torn = Path(f"{path}-journal")
    return snapshot if snapshot.exists() and (lease.is_fresh(path.parent) or torn.exists()) else path
