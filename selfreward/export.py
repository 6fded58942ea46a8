"""Pairs as files that TRL and `datasets` read: conversational preference rows in three forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfreward.errors import BadInput
from selfreward.files import check_place, place_folder, remove_folder, write_text


def write_pairs(views: Any, of: str | None, to: Path) -> int:
    """Writes every pair that no person dropped; returns how many. It appears whole or not at all.

    A name without an ending is a folder for `datasets.load_from_disk`.
    """
    if to.suffix not in (".jsonl", ".parquet", ""):
        raise BadInput(
            f"{to}: the name should end in .jsonl or .parquet, or in nothing for a folder of `datasets`"
        )
    if not to.suffix and to.is_dir():
        raise BadInput(f"{to} is there already: name a new folder")
    check_place(to)
    system = views.system()
    every = views.pairs(of=of, min_margin=0.0, search=None, limit=2**53, sort="id")
    rows = [_row(r, system) for r in every if r.review != "drop"]
    try:
        match to.suffix:
            case ".jsonl":
                write_text(to, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
            case ".parquet":
                _write_parquet(rows, to)
            case _:
                _write_folder(rows, to)
    except OSError as error:
        raise BadInput(f"{to} cannot be written: {error.strerror or error}") from None
    return len(rows)


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow

    chat = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    kinds = {
        "prompt": chat,
        "chosen": chat,
        "rejected": chat,
        "policy": pyarrow.string(),
        "pair_id": pyarrow.int64(),
    }
    kinds |= {"score_chosen": pyarrow.float64(), "score_rejected": pyarrow.float64()}
    return pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(kinds))


def _write_parquet(rows: list[dict[str, Any]], to: Path) -> None:
    import pyarrow.parquet

    beside = to.with_name(to.name + ".part")
    try:
        pyarrow.parquet.write_table(_table(rows), beside)
        beside.rename(to)
    finally:
        beside.unlink(missing_ok=True)


def _write_folder(rows: list[dict[str, Any]], to: Path) -> None:
    from datasets import Dataset
    from datasets.table import InMemoryTable

    beside = to.with_name(to.name + ".part")
    remove_folder(beside)
    try:
        Dataset(InMemoryTable(_table(rows))).save_to_disk(beside)
        place_folder(beside, to)
    finally:
        remove_folder(beside)


def _row(r: Any, system: str | None) -> dict[str, Any]:
    """The libraries' field names: `prompt`, `chosen`, `rejected` as lists of messages, scores beside them.

    The recipe's system turn is part of the prompt the model saw, so it stands first.
    """
    chat = json.loads(r.messages)
    if system and chat[0]["role"] != "system":
        chat = [{"role": "system", "content": system}, *chat]
    return {
        "prompt": chat,
        "chosen": [{"role": "assistant", "content": r.chosen}],
        "rejected": [{"role": "assistant", "content": r.rejected}],
        "score_chosen": r.chosen_score,
        "score_rejected": r.rejected_score,
        "policy": r.policy,
        "pair_id": r.id,
    }
