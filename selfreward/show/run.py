"""A run at a glance: policies, stages, measures with intervals, alarms."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from selfreward.errors import BadInput
from selfreward.outlook import STAGE_ORDER, Outlook, Spent, duration, gates, outlook, progress, spent
from selfreward.show.console import console, safe, table_of
from selfreward.show.halt import halted
from selfreward.store import is_held
from selfreward.store.database import now
from selfreward.wording import visible


def status_data(views: Any) -> dict[str, Any]:
    """The run as plain data: policies with stages, counts of their iteration, measures and alarms."""
    found = views.status()
    stands = _outlook(views, found)
    policies = []
    for policy in found["policies"]:
        mine = [dict(s._mapping) for s in found["stages"] if s.policy == policy.name]
        mine.sort(key=lambda s: STAGE_ORDER.index(s["name"]))
        policies.append(
            dict(policy._mapping)
            | {
                "stages": mine,
                "iteration": views.iteration(policy.name),
                "metrics": {
                    m.name: {"value": m.value, "low": m.low, "high": m.high, "n": m.n}
                    for m in found["metrics"]
                    if m.policy == policy.name
                },
                "alarms": [dict(a._mapping) for a in found["alarms"] if a.policy == policy.name],
            }
        )
    taken = spent(found["stages"], views.gpus(), now())
    return {"policies": policies, "outlook": asdict(stands), "spent": asdict(taken)}


def _outlook(views: Any, found: Mapping[str, list[Any]]) -> Outlook:
    stages = sorted(found["stages"], key=lambda s: STAGE_ORDER.index(s.name))
    held = is_held(views.path.parent)
    return outlook(found["policies"], stages, found["alarms"], held=held, at=now())


def _headline(stands: Outlook) -> Text:
    colour = {"ok": "green", "warn": "yellow", "halt": "red"}[stands.level]
    text = safe(stands.now)
    if stands.health:
        text.append("\n").append(Text(visible(stands.health), style=colour))
    return text


def tree(views: Any) -> None:
    """Prints `branches`."""
    console.print(branches(views))


def branches(views: Any) -> Tree:
    """Policies and stages as a tree, with counts, rate, what is left and tokens; quick on any store."""
    found, at = views.status(), now()
    outcomes = views.outcomes_by_policy()
    head = _headline(_outlook(views, found))
    head.append("\n").append(spent(found["stages"], views.gpus(), at).told, style="dim")
    made = Tree(head, guide_style="dim")
    for policy in found["policies"]:
        node = made.add(Text(f"{policy.name} ", style="bold").append(policy.status, style="dim"))
        for stage in sorted(
            (s for s in found["stages"] if s.policy == policy.name), key=lambda s: STAGE_ORDER.index(s.name)
        ):
            node.add(_leaf(stage, at))
        if policy.name in outcomes:
            counts = ", ".join(f"{n:,} {o}" for o, n in outcomes[policy.name].items())
            node.add(Text("became ").append(counts))
        alarms = [a for a in found["alarms"] if a.policy == policy.name]
        for line in gates(alarms):
            node.add(safe(line))
        for alarm in alarms:
            if alarm.level != "ok":
                node.add(Text(visible(f"{alarm.level}: {alarm.message}"), style="yellow"))
    return made


def _leaf(stage: Any, at: str) -> Text:
    sign = {"done": "✓", "running": "▸", "failed": "✗", "skipped": "–"}.get(stage.status, "·")
    text = Text(f"{sign} {stage.name}  ")
    if stage.status in ("done", "running"):
        took = f" in {duration(stage.seconds)}" if stage.status == "done" and stage.seconds >= 1 else ""
        text.append(progress(stage, at) + took, style="dim" if stage.status == "done" else "")
    else:
        text.append(stage.status, style="dim")
    return text.append(safe(f": {stage.error}")) if stage.error else text


def watch(views: Any, every: float = 2.0) -> None:
    """The tree, drawn again and again until Ctrl-C."""
    if not console.is_terminal:
        raise BadInput("--watch draws on a terminal, and this is none: `selfreward status` prints once")
    drawn = Live(branches(views), console=console, auto_refresh=False)
    with suppress(KeyboardInterrupt), drawn as live:
        while True:
            time.sleep(every)
            live.update(branches(views), refresh=True)


def status(views: Any) -> None:
    """Where the run stands, policies and stages, measures with intervals, what the gates found."""
    whole = status_data(views)
    data = whole["policies"]
    stands = Outlook(**whole["outlook"])
    console.print(_headline(stands))
    if stands.level == "halt":
        halted(views, views.path.parent.name)
    console.print(Spent(**whole["spent"]).told, style="dim")
    table = table_of("policy", "status", "adapter", "stages", "its iteration")
    for p in data:
        stages = " ".join(f"{s['name']}{_mark(s)}" for s in p["stages"])
        table.add_row(p["name"], p["status"], (p["sha256"] or "base")[:12], stages, _iteration(p))
    console.print(table)
    _measures(data)
    for p in data:
        for s in p["stages"]:
            if s["error"]:
                console.print(safe(f"{p['name']} {s['name']} failed: {s['error']}"))
        for alarm in p["alarms"]:
            if alarm["level"] != "ok":
                console.print(safe(f"{alarm['level']}: {alarm['message']}"))


def _mark(stage: dict[str, Any]) -> str:
    match stage["status"]:
        case "done":
            return " ✓"
        case "running":
            return f" {stage['n_done']}/{stage['n_total'] or '?'}"  # its rate stands in the headline
        case other:
            return f" ({other})"


def _iteration(policy: dict[str, Any]) -> str:
    counts = policy["iteration"]
    if not counts["prompts"] or policy["name"] == "M0":
        return ""
    prompts = sum(counts["prompts"].values())
    own = counts["prompts"].get("self-instruct", 0)
    made = f" ({own} invented)" if own else ""
    text = f"{prompts} prompts{made}, {counts['candidates'][0]} candidates"
    if counts["judgements"][0]:
        text += f", {counts['judgements'][0]} judgements ({counts['judgements'][1]} faults)"
    if counts["outcomes"]:
        text += f", {counts['outcomes'].get('pair', 0)} pairs"
    return text


def _measures(data: list[dict[str, Any]]) -> None:
    names = sorted({n for p in data for n in p["metrics"]} - {"noise", "proof_gap", "moved"})
    if not names:
        return
    table = table_of("measure", *[p["name"] for p in data])
    for name in names:
        cells = []
        for p in data:
            m = p["metrics"].get(name)
            cells.append("" if m is None else "not finite" if m["value"] is None else _interval(m))
        table.add_row(name, *cells)
    console.print(table)


def _interval(m: dict[str, Any]) -> str:
    between = f" [{m['low']:.3g}, {m['high']:.3g}]" if m["low"] is not None else ""
    return f"{m['value']:.3g}{between} n={m['n']}"
