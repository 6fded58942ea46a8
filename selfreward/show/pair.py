"""One pair in full: both answers, the words that differ, scores, every judgement, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from selfreward.show.console import console, safe, short
from selfreward.wording import Part, differences, visible

WIDE = 100  # columns from which two texts stand side by side
SIDES = (("chosen", "green"), ("rejected", "red"))


def pair(found: dict[str, Any], aside: bool | None = None) -> None:
    """Prints it: side by side on a terminal that is wide enough, else one below the other.

    A changed word is underlined, which stays without colour.
    """
    p = found["pair"]
    wide = console.is_terminal and console.width >= WIDE if aside is None else aside
    head = f"pair {p.id} of {p.policy}, rule {p.rule}, margin {p.margin:.4f}, review {p.review}"
    console.print(Text(head, style="bold"))
    if p.review_note:
        console.print(safe(f"note: {p.review_note}"))
    for message in json.loads(p.messages):
        console.print(Text("\n[").append(safe(str(message["role"]))).append("]"), style="bold")
        console.print(safe(message["content"]))
    _sides(found, wide)
    _origin(found)


def _sides(found: dict[str, Any], wide: bool) -> None:
    texts = [found[side].text for side, _ in SIDES]
    differ = differences(*texts) if console.is_terminal or wide else None
    parts: Any = differ or [[(t, False)] for t in texts]
    columns = [_side(found, *side, parts[i]) for i, side in enumerate(SIDES)]
    console.print()
    if not wide:
        for column in columns:
            console.print(column)
            console.print()
        return
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2), expand=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    table.add_row(*columns)
    console.print(table)


def _side(found: dict[str, Any], side: str, colour: str, parts: Iterable[Part]) -> Group:
    c = found[side]
    score = getattr(found["pair"], f"{side}_score")
    head = f"[{side}] score {score:.4f}, sample {c.sample}, {c.n_tokens} tokens, seed {c.seed}"
    text = Text()
    for part, differs in parts:
        text.append(visible(part), style=f"underline {colour}" if differs else "")
    lines = [Text(head, style=f"bold {colour}"), text]
    for name, mean, n, faults in _scores(found[f"{side}_judgements"]):
        said = f"{mean:.4f} mean of {n}" if n else "no score"
        lines.append(safe(f"  {name}: {said}" + (f", {faults} faults" if faults else "")))
    for j in found[f"{side}_judgements"]:
        said = f"score {j.score:.4f}" if j.score is not None else f"fault {j.fault}"
        beside = f" over {j.other_id}, shown {'second' if j.position == 2 else 'first'}" if j.other_id else ""
        line = safe(f"  {j.scorer} {j.sample}{beside}: {said} {_detail(j.detail)}")
        line.stylize("dim")
        lines.append(line)
        if j.raw:
            lines.append(safe(j.raw))
    return Group(*lines)


def _scores(judgements: list[Any]) -> list[tuple[str, float, int, int]]:
    """By scorer: its mean, of how many readable scores, and how many faults."""
    by: dict[str, list[float | None]] = {}
    for j in judgements:
        if not j.other_id:  # a comparison is no score of its own: the scalar made of all of them is
            by.setdefault(j.scorer, []).append(j.score)
    found = []
    for name, scores in by.items():
        read = [s for s in scores if s is not None]
        found.append((name, sum(read) / len(read) if read else 0.0, len(read), len(scores) - len(read)))
    return found


def _origin(found: dict[str, Any]) -> None:
    p = found["pair"]
    console.print(Text("\n[where it comes from]", style="bold"))
    source = f"prompt {p.prompt_id}, {p.source}, round {p.round}; policy {p.policy}"
    console.print(safe(f"{source} {found['policy'].sha256 or 'base'}"))
    for scorer in found["scorers"]:
        rubric = f", rubric {scorer.rubric} {scorer.rubric_sha256[:12]}" if scorer.rubric else ""
        console.print(safe(f"scorer {scorer.name}, {scorer.mode or scorer.type}{rubric}"))
    for row in found["trained"]:
        console.print(safe(f"trained {row.policy} ({row.split})"))
    for parent in found["parents"]:
        said = safe(f"parent {parent.id} ({parent.policy}, {parent.source}): ").append(short(parent.text, 80))
        console.print(Padding(said, (0, 0, 0, 2)))


def _detail(detail: str | None) -> str:
    if not detail:
        return ""
    return " ".join(
        f"{k}:{v:.3f}" if isinstance(v, float) else f"{k}:{v}" for k, v in json.loads(detail).items()
    )
