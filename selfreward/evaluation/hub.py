"""Suites from the hub: rows of a published dataset, as JSON objects; fetched once, kept by who asked."""

from __future__ import annotations

import json
import os
from typing import Any

from selfreward.errors import BadInput
from selfreward.evaluation.suites import Suite


def fetch(suite: Suite) -> list[dict[str, Any]]:
    """All rows of a known suite. Raises `BadInput`, one line that names `--data`, where it cannot be had."""
    assert suite.hub is not None
    name, config, split = suite.hub
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from datasets import disable_progress_bars, load_dataset
    except ImportError:
        raise BadInput(
            f"{suite.name} comes from the hub with the package datasets, which is not installed: "
            f"`pip install datasets`, or give its questions with --data PATH"
        ) from None
    disable_progress_bars()
    try:
        rows = load_dataset(name, config, split=split)
    except Exception as error:  # the library raises a dozen kinds; each ends in the same next move
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInput(
            f"{suite.name} cannot be had from the hub ({name}): {why[0][:160]}. "
            f"Without a network give its questions with --data PATH"
        ) from None
    return [json.loads(json.dumps(dict(row), default=str)) for row in rows]
