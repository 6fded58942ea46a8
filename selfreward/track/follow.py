"""The driver's side of a tracker: starts it, ends it, and never waits for it longer than a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from selfreward.engines import process
from selfreward.errors import BadInput
from selfreward.track.trackers import HERE

PATIENCE = 30.0  # seconds a finished command waits for its tracker


@contextmanager
def followed(database: Path, kind: str, texts: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Has the run followed while the block lasts; what fails in the tracker is a line and no more.

    Raises `BadInput` before anything starts where the tracker is not installed.
    """
    if kind == "none":
        yield
        return
    if find_spec(kind) is None:
        raise BadInput(f"track is {kind}, which is not installed: `pip install {kind}` brings it")
    folder = database.parent / "tracking" / kind
    job = {"database": str(database), "kind": kind, "folder": str(folder), "texts": texts}
    log = database.parent / "logs" / "track.log"
    child = process.start("selfreward.track", [json.dumps(job)], log, extra=HERE)
    try:
        yield
    finally:
        if child.close(PATIENCE):
            say(f"{kind} did not follow to the end: {child.log_tail(1)} (log: {log})")
