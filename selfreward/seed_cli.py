"""The command `seed build`: SFT and judge examples from answers that people ranked or rated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from selfreward.errors import BadInput

HUB = {"oasst1": "OpenAssistant/oasst1", "oasst2": "OpenAssistant/oasst2"}
FILES = ("instructions", "judge", "calibration")


def build(
    source: Annotated[str, typer.Option("--from", help="oasst1 or oasst2 (from the hub), or a JSONL file.")],
    out: Annotated[Path, typer.Option("--out", help="A folder for the three files.")] = Path("seed"),
    lang: Annotated[str, typer.Option("--lang", help="Only this language.")] = "en",
    held_out: Annotated[
        float, typer.Option("--held-out", min=0.0, max=0.9, help="Share of ordered prompts for calibration.")
    ] = 0.25,  # 541 of 2,171 (2401.10020, table 1)
    seed: Annotated[int, typer.Option("--seed", help="Draws what is held out and what is thinned.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Make seed instructions, judge examples and a held-out calibration file from human rankings."""
    from selfreward import seeding
    from selfreward.files import write_text

    paths = {name: out / f"{name}.jsonl" for name in FILES}
    taken = next((p for p in paths.values() if p.exists()), None)
    if taken:
        raise BadInput(f"{taken} exists already: give another folder with --out")
    try:
        found = seeding.build(seeding.groups_of(_rows(source), lang), seed, held_out)
    except ValueError as error:
        raise BadInput(f"{source}: {error}; see docs/judges.md for the forms") from None
    if not found.instructions and not found.calibration:
        raise BadInput(f"{source} has no ranked or rated answer in {lang!r}: give another file, or --lang")
    lines = {name: getattr(found, name) for name in FILES}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, path in paths.items():
            if lines[name]:
                text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines[name])
                write_text(path, text.encode("utf-8", "replace").decode())
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror}; give another folder with --out") from None
    told = {name: len(lines[name]) for name in FILES} | {"left_out": +found.left_out}
    if as_json:
        typer.echo(json.dumps(told))
        return
    for name, path in paths.items():
        typer.echo(f"{path}: {len(lines[name])} lines" if lines[name] else f"{path}: not written, no line")
    for reason, count in (+found.left_out).items():
        typer.echo(f"left out: {count} {reason}")
    if not found.judge:
        typer.echo(
            "selfreward: note: no judge example: they need a quality people gave, not ranks alone", err=True
        )


def _rows(source: str) -> list[dict[str, Any]]:
    from selfreward.jsonl import numbered_rows

    return _fetched(source) if source in HUB else [row for _, row in numbered_rows(Path(source))]


def _fetched(source: str) -> list[dict[str, Any]]:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from datasets import disable_progress_bars, load_dataset

        disable_progress_bars()
        rows = load_dataset(HUB[source], split="train")
    except ImportError:
        raise BadInput(
            f"{source} needs the package datasets: install it, or give a file with --from"
        ) from None
    except Exception as error:  # the library raises a dozen kinds; each ends in the same next move
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise BadInput(f"{source} cannot be had from the hub: {why}. Give a local file with --from") from None
    return [dict(row) for row in rows]
