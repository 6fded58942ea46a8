"""Where a suite's questions are: a file that is given, or the hub once and then the run's own copy."""

from __future__ import annotations

import json
from pathlib import Path

from selfreward.errors import BadInput
from selfreward.evaluation import suites
from selfreward.evaluation.suites import Suite
from selfreward.files import write_text
from selfreward.jsonl import numbered_rows

FOLDER = "suites"  # in the run's folder: what came from the hub, so that every policy gets the same


def known(given: str, data: Path | None) -> Suite:
    """The suite of that name, or a file of the user's own. Raises `BadInput` where it is neither."""
    suite = suites.KNOWN.get(given) or Suite(given, "own")
    if suite.rule == "own" and data is None and not Path(given).is_file():
        told = ", ".join(suites.KNOWN)
        raise BadInput(f"{given!r} is no suite and no file: --suite takes {told} or a JSONL file")
    return suite


def file_of(suite: Suite, data: Path | None, run_folder: Path) -> Path:
    """The file with the suite's questions; a known suite without one is fetched once and kept in the run."""
    if data is not None or suite.rule == "own":
        return data or Path(suite.name)
    kept = run_folder / FOLDER / f"{suite.name}.jsonl"
    if not kept.exists():
        from selfreward.evaluation import hub

        rows = hub.fetch(suite)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, "".join(json.dumps(row) + "\n" for row in rows))
    return kept


def rows_of(suite: Suite, data: Path | None, run_folder: Path) -> tuple[suites.Numbered, str]:
    """The questions with their line numbers, and the file they are from."""
    path = file_of(suite, data, run_folder)
    return numbered_rows(path), str(path)
