"""A run at a glance: policies, stages, measures with intervals, alarms."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from selfreward.errors import BadInput
from selfreward.outlook import STAGE_ORDER, Outlook, Spent, counted, duration, gates, outlook, progress, spent
from selfreward.show.console import console, safe, table_of
from selfreward.show.halt import halted
from selfreward.show.measures import measures
from selfreward.store import is_held
from selfreward.store.database import now
from selfreward.store.halts import tries_of
from selfreward.wording import visible

OF_ITERATION = ("prompts", "candidates", "judge", "pairs")


def status_data(views: Any, run_id: int = 1) -> dict[str, Any]:
    """The run as plain data: policies with stages, counts of their iteration, measures and alarms."""
    found = views.status(run_id)
    stands = _outlook(views, found)
    names = {r.id: r.name for r in views.runs()}
    policies = []
    for policy in found["policies"]:
        mine = [dict(s._mapping) for s in found["stages"] if s.policy == policy.name]
        mine.sort(key=lambda s: STAGE_ORDER.index(s["name"]))
        policies.append(
            dict(policy._mapping)
            | {
                "stages": mine,
                "iteration": views.iteration(policy.name, run_id),
                "metrics": {
                    m.name: {"value": m.value, "low": m.low, "high": m.high, "n": m.n}
                    for m in found["metrics"]
                    if m.policy == policy.name
                },
                "alarms": [dict(a._mapping) for a in found["alarms"] if a.policy == policy.name],
            }
        )
    branches = [
        {"name": r.name, "of": names[r.parent_id], "policy": r.parent_policy, "made_by": r.made_by}
        for r in views.runs()
        if r.parent_id
    ]
    taken = spent(found["stages"], views.gpus(), now())
    told = {"outlook": asdict(stands), "spent": asdict(taken), "branches": branches}
    return {"policies": policies} | told


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
    """The lineage as a tree: policies and stages with counts, branches under the policy they grow from."""
    rows = views.runs()
    first = rows[0].id if rows else 1
    found = views.status(first)
    head = _headline(_outlook(views, found))
    head.append("\n").append(spent(found["stages"], views.gpus(), now()).told, style="dim")
    made = Tree(head, guide_style="dim")
    nodes: dict[tuple[int, str], Tree] = {}
    for run in rows:
        nodes |= _grown(views, made if run.parent_id is None else _branch_node(run, nodes, made), run)
    return made


def _branch_node(run: Any, nodes: Mapping[tuple[int, str], Tree], made: Tree) -> Tree:
    """The node of a branch, under the policy it grows from."""
    tried = " tried after a halt" if run.made_by == "rollback" else " branch"
    return nodes.get((run.parent_id, run.parent_policy), made).add(
        safe(run.name).append(tried, style="dim"), guide_style="cyan"
    )


def _grown(views: Any, at: Tree, run: Any) -> dict[tuple[int, str], Tree]:
    """Adds a run's own policies below a node; those before its start are drawn where they were made."""
    found, time_now, runs = views.status(run.id), now(), views.runs()
    outcomes = views.outcomes_by_policy(run.id)
    start = int(run.parent_policy[1:]) if run.parent_id else -1
    nodes: dict[tuple[int, str], Tree] = {}
    for policy in found["policies"]:
        mine = [s for s in found["stages"] if s.policy == policy.name]
        if policy.idx == start:  # what measured it lies with the run that made it
            mine = [s for s in mine if s.name in OF_ITERATION]
        if policy.idx < start or (policy.idx == start and not mine):
            nodes[run.id, policy.name] = at
            continue
        standing = "its start" if policy.idx == start else policy.status
        node = at.add(Text(f"{policy.name} ", style="bold").append(standing, style="dim"))
        nodes[run.id, policy.name] = node
        for stage in sorted(mine, key=lambda s: STAGE_ORDER.index(s.name)):
            node.add(_leaf(stage, time_now, runs))
        if policy.name in outcomes:
            counts = ", ".join(counted(o, n) for o, n in outcomes[policy.name].items())
            node.add(Text("became ").append(counts))
        alarms = [a for a in found["alarms"] if a.policy == policy.name]
        for line in gates(alarms):
            node.add(safe(line))
        for alarm in alarms:
            if alarm.level != "ok":
                node.add(Text(visible(f"{alarm.level}: {alarm.message}"), style="yellow"))
    return nodes


def _leaf(stage: Any, at: str, runs: Sequence[Any]) -> Text:
    if stage.made_in != stage.run_id:
        of = next((r.name for r in runs if r.id == stage.made_in), "?")
        return Text(f"= {stage.name}  as in {of}", style="dim")
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


def status(views: Any, run_id: int = 1) -> None:
    """Where the run stands, policies and stages, measures with intervals, what the gates found."""
    whole = status_data(views, run_id)
    data = whole["policies"]
    stands = Outlook(**whole["outlook"])
    console.print(_headline(stands))
    tries = tries_of(views, run_id)
    if tries:
        _followed(views, tries[-1])
    elif stands.level == "halt" and run_id == 1:
        halted(views, views.path.parent.name)
    console.print(Spent(**whole["spent"]).told, style="dim")
    table = table_of("policy", "status", "adapter", "stages, and its iteration")
    for p in data:
        table.add_row(p["name"], p["status"], (p["sha256"] or "base")[:12], _stages(p))
    console.print(table)
    for b in whole["branches"]:
        console.print(safe(f"branch {b['name']} grows from {b['policy']} of {b['of']}"))
    tables = measures(data)
    if tables:
        console.print(Text("\nmeasures, each with its n and its 95 % interval", style="dim"))
    for table in tables:
        console.print(table)
    for p in data:
        for s in p["stages"]:
            if s["error"]:
                console.print(safe(f"{p['name']} {s['name']} failed: {s['error']}"))
        for alarm in p["alarms"]:
            if alarm["level"] != "ok":
                console.print(safe(f"{alarm['level']}: {alarm['message']}"))


def _followed(views: Any, run: Any) -> None:
    """What `iterate` goes on with after a halt: the last try, and where it stands."""
    stands = _outlook(views, views.status(run.id))
    head = f"It goes on in {run.name}, tried from {run.parent_policy} after the halt: "
    console.print(safe(f"{head}{stands.now} See: selfreward status --branch {run.name}"))


def _mark(stage: dict[str, Any]) -> str:
    match stage["status"]:
        case "done":
            return " ✓"
        case "running":
            return f" {stage['n_done']}/{stage['n_total'] or '?'}"  # its rate stands in the headline
        case other:
            return f" ({other})"


def _stages(policy: dict[str, Any]) -> str:
    """What made and measured a policy; below, the stages of its iteration with what they left."""
    own = [f"{s['name']}{_mark(s)}" for s in policy["stages"] if s["name"] not in OF_ITERATION]
    turn = [f"{s['name']}{_mark(s)}" for s in policy["stages"] if s["name"] in OF_ITERATION]
    return "\n".join(line for line in (" ".join(own), " ".join(turn), *_left(policy)) if line)


def _left(policy: dict[str, Any]) -> list[str]:
    """Counts of an iteration, a line what was made and one what became of it."""
    counts = policy["iteration"]
    if not counts["prompts"] or policy["name"] == "M0":
        return []
    own = counts["prompts"].get("self-instruct", 0)
    made = f" ({own:,} invented)" if own else ""
    text = f"{sum(counts['prompts'].values()):,} prompts{made}, {counts['candidates'][0]:,} candidates"
    became = []
    if counts["judgements"][0]:
        became.append(f"{counts['judgements'][0]:,} judgements ({counts['judgements'][1]:,} faults)")
    if counts["outcomes"]:
        became.append(f"{counts['outcomes'].get('pair', 0):,} pairs")
    return [text, ", ".join(became)]
