"""Pairs as files that TRL and `datasets` read: conversational preference rows, JSONL or Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfreward.errors import BadInput
from selfreward.files import write_text


def write_pairs(views: Any, of: str | None, to: Path) -> int:
    """Writes every pair that no person dropped; returns how many. The file appears whole or not at all."""
    if to.suffix not in (".jsonl", ".parquet"):
        raise BadInput(f"{to}: the name should end in .jsonl or .parquet")
    if not to.parent.is_dir():
        raise BadInput(f"{to.parent} is no folder")
    rows = [
        _row(r)
        for r in views.pairs(of=of, min_margin=0.0, search=None, limit=2**53, sort="id")
        if r.review != "drop"
    ]
    if to.suffix == ".jsonl":
        write_text(to, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    else:
        import pyarrow
        import pyarrow.parquet

        beside = to.with_name(to.name + ".part")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), beside)
        beside.rename(to)
    return len(rows)


def _row(r: Any) -> dict[str, Any]:
    """The libraries' field names: `prompt`, `chosen`, `rejected` as lists of messages, scores beside them."""
    return {
        "prompt": json.loads(r.messages),
        "chosen": [{"role": "assistant", "content": r.chosen}],
        "rejected": [{"role": "assistant", "content": r.rejected}],
        "score_chosen": r.chosen_score,
        "score_rejected": r.rejected_score,
        "policy": r.policy,
        "pair_id": r.id,
    }
