"""A run at a glance: policies, stages, measures with intervals, alarms."""

from __future__ import annotations

from typing import Any

from selfreward.outlook import STAGE_ORDER
from selfreward.show.console import console, safe, table_of


def status_data(views: Any) -> dict[str, Any]:
    """The run as plain data: policies with stages, counts of their iteration, measures and alarms."""
    found = views.status()
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
    return {"policies": policies}


def status(views: Any) -> None:
    """Policies and stages, then measures with intervals, then what the gates found."""
    data = status_data(views)["policies"]
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
            return f" {stage['n_done']}/{stage['n_total'] or '?'}"
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
