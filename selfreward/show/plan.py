"""The plan as tables: what fits, what it takes, and how well each number is known."""

from __future__ import annotations

from typing import Any

from selfreward.footprint import GIB
from selfreward.show.console import console, safe, table_of

MARKS = {"given": "", "counted": "", "measured": "", "guess": "~", "bound": "≤ "}
LEGEND = (
    "≤ the most it can be · ~ a guess · else counted from the recipe's files, or measured in an earlier run"
)


def plan(data: dict[str, Any]) -> None:
    """Prints a plan."""
    model, device = data["model"], data["device"]
    size = f"{model['parameters']:,} parameters, {_bytes(model['weights_bytes'])} in {model['dtype']}"
    cache = f"{model['kv_bytes_per_token'] / 1024:.3g} KiB of cache a token"
    console.print(safe(f"{model['id']}: {size}; LoRA of {model['lora_parameters']:,}; {cache}"))
    gpus = f"{device['gpus']} × {device['name']}" if device["gpus"] else device["name"]
    console.print(safe(f"on {gpus} with {_bytes(device['memory'])}"))
    _tokens(data)
    _memory(data)
    disk = data["disk"]
    console.print(
        safe(
            f"disk: {_bytes(disk['adapters'])} of adapters ({_bytes(disk['adapter'])} each), "
            f"{_bytes(disk['store'])} of store; for a while {_bytes(disk['checkpoints'])} of checkpoints"
        )
    )
    for change in [*data["changes"], *([data["disk_short"]] if data["disk_short"] else [])]:
        console.print(safe(f"DOES NOT FIT: {change}"))
    if fits(data):
        console.print("it fits")
    for note in data["notes"]:
        console.print(safe(f"note: {note}"))


def fits(data: dict[str, Any]) -> bool:
    """Whether nothing has to change."""
    return not data["changes"] and not data["disk_short"]


def _tokens(data: dict[str, Any]) -> None:
    """A stage a row, then each iteration, then everything."""
    table = table_of("tokens", "sampled", "its prompts", "read only", "trained", "time")
    rows = [(f"{x['policy']} {x['stage']}", x) for x in data["loads"]]
    rows += [(f"iteration of {name}", x) for name, x in data["iterations"].items()]
    for name, load in [*rows, ("all", data["total"])]:
        counts = [_number(load[k]) for k in ("generated", "fed", "scored", "trained")]
        table.add_row(name, *counts, _hours(load["hours"]))
    console.print(table)
    rates = ", ".join(f"{k} {_number(v)}" for k, v in data["rates"].items())
    console.print(safe(f"tokens/s: {rates}"))
    console.print(safe(LEGEND))


def _memory(data: dict[str, Any]) -> None:
    parts = {k: v for k, v in data["memory"].items() if v}
    names = list(dict.fromkeys(n for v in parts.values() for n in v))
    table = table_of("peak memory", *parts)
    for name in names:
        table.add_row(name, *[_bytes(v[name]) if name in v else "" for v in parts.values()])
    table.add_row("all", *[_bytes(sum(v.values())) for v in parts.values()])
    console.print(table)


def _number(amount: dict[str, Any]) -> str:
    return f"{MARKS[amount['how']]}{amount['n']:,.0f}" if amount["n"] else ""


def _hours(amount: dict[str, Any]) -> str:
    n = amount["n"]
    text = f"{n:.1f} h" if n >= 1 else f"{60 * n:.1f} min"
    return MARKS[amount["how"]] + text


def _bytes(n: float) -> str:
    return f"{n / GIB:.3g} GiB" if abs(n) >= GIB / 10 else f"{n / 2**20:.3g} MiB"
