"""The screen of a run that has halted: what died, since when, what shows it, and what to type next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.text import Text

from selfreward.show.console import console, safe


def halted(views: Any, name: str) -> bool:
    """Prints the screen of the newest halt of a run; whether there was one."""
    from selfreward.collapse.screen import data_of, newest, screen
    from selfreward.store.halts import margins, read_texts

    alarms = views.status()["alarms"]
    halts = [a for a in alarms if a.level == "halt"]
    if not halts:
        return False
    recipe = json.loads(views.recipe() or "{}")
    policy, stage = newest(halts)
    here = [a for a in halts if (a.policy, a.stage) == (policy, stage)]
    examples = _telling(read_texts(views, 1, policy, stage), here)
    found = screen(name, alarms, recipe, margins(views, 1, data_of(policy, stage)), examples)
    if found is not None:
        console.print(Panel(_body(found), title=f"{name} has halted", border_style="red", title_align="left"))
    return True


def after(database: Path, name: str) -> None:
    """The screen after an `iterate` that a gate stopped; nothing where no gate is on record."""
    from selfreward.store import Views

    if database.exists():
        halted(Views(database, write=False), name)


def _telling(rows: list[Any], halts: list[Any]) -> list[str]:
    """Two texts that show the worst sign; texts of one prompt where they are too alike."""
    from selfreward.collapse.limits import Finding
    from selfreward.collapse.texts import Answers
    from selfreward.collapse.verdict import examples

    by_prompt: dict[str, list[str | None]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt, []).append(row.text)
    answers = [Answers(prompt, tuple(texts)) for prompt, texts in by_prompt.items()]
    found = [Finding(a.signal, a.level, a.value, a.threshold, a.message) for a in halts]
    return [t for t in examples(answers, found) if t]


def _body(found: Any) -> Text:
    text = Text()
    text.append(f"{found.what} ", style="bold").append_text(safe(f"{found.since}\n"))
    for number in found.numbers:
        text.append_text(safe(f"  · {number}\n"))
    if found.examples:
        text.append("\nFor example:\n", style="dim")
        for example in found.examples:
            text.append_text(safe(f"  » {example}\n"))
    text.append("\nWhat to type next:", style="dim")
    for command, does in found.commands:
        text.append(f"\n  {command}", style="cyan").append(f"\n      {does}", style="dim")
    return text
