"""What the commands print: tables, one pair in full, and the progress of a run.

Plain text when not a terminal.

Model text is shown with its control characters made visible and is never read as markup.
"""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text


class _Pipe(Console):
    """A console whose reader may leave early: `selfreward pairs list | head`."""

    def on_broken_pipe(self) -> None:
        """Lets the entry point end quietly."""
        raise BrokenPipeError


console = _Pipe(highlight=False, soft_wrap=False)
STAGE_ORDER = ("sft", "prompts", "candidates", "judge", "pairs", "train", "probe", "evaluate")
BARS = "▁▂▃▄▅▆▇█"


def safe(text: str | None) -> Text:
    """Text for the terminal: control characters but line ends become visible, nothing is markup."""
    shown = []
    for char in text or "":
        if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co"):
            shown.append(char)
        else:
            shown.append(f"\\u{ord(char):04x}")
    return Text("".join(shown))


def short(text: str | None, width: int = 60) -> Text:
    """The beginning of a text on one line."""
    line = " ".join((text or "").split())
    return safe(line if len(line) <= width else line[: width - 1] + "…")


class _Bars:
    """Progress for a terminal: one bar for the stage that runs, a line for each that is done."""

    def __init__(self, bars: Progress) -> None:
        self._bars, self._name, self._start = bars, "", 0.0
        self._task: TaskID | None = None

    def begin(self, policy: str, stage: str, done: int, total: int | None) -> None:
        self._name, self._start = f"{policy} {stage}", time.monotonic()
        self._task = self._bars.add_task(self._name, total=total, completed=done, rate="")

    def advance(self, done: int, total: int | None, tokens: int) -> None:
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = f"{tokens / seconds:.0f} tokens/s" if tokens else ""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, rate=rate)

    def end(self, note: str) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._bars.console.print(
            safe(f"{self._name:<14} {note} ({_duration(time.monotonic() - self._start)})")
        )

    def say(self, text: str) -> None:
        self._bars.console.print(safe(text))


class _Lines:
    """Progress for a log: a line when a stage starts, at most one every ten seconds, and one when it ends."""

    EVERY = 10.0

    def __init__(self) -> None:
        self._name, self._start, self._last = "", 0.0, 0.0

    def begin(self, policy: str, stage: str, done: int, total: int | None) -> None:
        self._name, self._start, self._last = f"{policy} {stage}", time.monotonic(), time.monotonic()

    def advance(self, done: int, total: int | None, tokens: int) -> None:
        if time.monotonic() - self._last < self.EVERY:
            return
        self._last = time.monotonic()
        of = f" of {total}" if total else ""
        print(f"{self._name:<14} {done}{of}", flush=True)

    def end(self, note: str) -> None:
        print(f"{self._name:<14} {note} ({_duration(time.monotonic() - self._start)})", flush=True)

    def say(self, text: str) -> None:
        print(safe(text).plain, flush=True)


@contextmanager
def terminal_progress() -> Iterator[Any]:
    """Bars on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[rate]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)


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
    table = _table("policy", "status", "adapter", "stages", "its iteration")
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
    table = _table("measure", *[p["name"] for p in data])
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


def pairs(rows: list[dict[str, Any]]) -> None:
    """A pair a line."""
    table = _table("id", "of", "margin", "scores", "prompt", "chosen", "rejected")
    for r in rows:
        scores = f"{r['chosen_score']:.2f} > {r['rejected_score']:.2f}"
        table.add_row(
            str(r["id"]),
            r["policy"],
            f"{r['margin']:.3f}",
            scores,
            short(r["prompt"], 40),
            short(r["chosen"], 40),
            short(r["rejected"], 40),
        )
    console.print(table)


def outcomes(rows: list[dict[str, Any]]) -> None:
    """Prompts that made no pair, and why."""
    table = _table("prompt id", "of", "outcome", "margin", "text", "detail")
    for r in rows:
        margin = "" if r["margin"] is None else f"{r['margin']:.3f}"
        table.add_row(str(r["id"]), r["policy"], r["outcome"], margin, short(r["prompt"]), safe(r["detail"]))
    console.print(table)


def prompts(rows: list[dict[str, Any]]) -> None:
    """A prompt a line."""
    table = _table("id", "of", "round", "source", "status", "became", "text")
    for r in rows:
        state = r["status"] if r["reason"] is None else f"{r['status']}: {r['reason']}"
        table.add_row(
            str(r["id"]),
            r["policy"],
            str(r["round"]),
            r["source"],
            safe(state),
            r["outcome"] or "",
            short(r["text"], 80),
        )
    console.print(table)


def pair_data(found: dict[str, Any]) -> dict[str, Any]:
    """One pair as plain data, token ids left out."""

    def plain(row: Any) -> Any:
        return (
            {k: v for k, v in row._mapping.items() if not isinstance(v, bytes)} if row is not None else None
        )

    return {k: [plain(r) for r in v] if isinstance(v, list) else plain(v) for k, v in found.items()}


def pair(found: dict[str, Any]) -> None:
    """One pair in full: prompt, both texts, every judgement, parents, seeds, hashes."""
    p = found["pair"]
    console.print(
        Text(
            f"pair {p.id} of {p.policy}, rule {p.rule}, margin {p.margin:.4f}, review {p.review}",
            style="bold",
        )
    )
    for message in json.loads(p.messages):
        console.print(Text("\n[").append(safe(str(message["role"]))).append("]"), style="bold")
        console.print(safe(message["content"]))
    for side, score in (("chosen", p.chosen_score), ("rejected", p.rejected_score)):
        c = found[side]
        head = f"\n[{side}] score {score:.4f}, sample {c.sample}, {c.n_tokens} tokens, seed {c.seed}"
        console.print(Text(head, style="bold green" if side == "chosen" else "bold red"))
        console.print(safe(c.text))
        for j in found[f"{side}_judgements"]:
            said = f"score {j.score:.4f}" if j.score is not None else f"fault {j.fault}"
            console.print(safe(f"  {j.scorer} {j.sample}: {said} {_detail(j.detail)}"), style="dim")
            if j.raw:
                console.print(safe(j.raw))
    console.print(Text("\n[where it comes from]", style="bold"))
    console.print(
        safe(
            f"prompt {p.prompt_id}, {p.source}, round {p.round}; "
            f"policy {p.policy} {found['policy'].sha256 or 'base'}"
        )
    )
    for parent in found["parents"]:
        console.print(
            Text("  parent ")
            .append(safe(f"{parent.id} ({parent.policy}, {parent.source}): "))
            .append(short(parent.text, 80))
        )


def _detail(detail: str | None) -> str:
    if not detail:
        return ""
    return " ".join(
        f"{k}:{v:.3f}" if isinstance(v, float) else f"{k}:{v}" for k, v in json.loads(detail).items()
    )


def stats_data(views: Any, of: str | None) -> dict[str, Any]:
    """The pairs in numbers, by policy.

    Outcomes, mean margin and scores, share of pairs whose chosen text is the longer one, margins as a
    histogram.
    """
    found: dict[str, Any] = {}
    for row in views.mining_counts(of):
        found.setdefault(row.policy, {"outcomes": {}})["outcomes"][row.outcome] = row.n
    numbers: dict[str, list[Any]] = {}
    for row in views.pair_numbers(of):
        numbers.setdefault(row.policy, []).append(row)
    for policy, rows in numbers.items():
        n = len(rows)
        margins = [r.margin for r in rows]
        found[policy] |= {
            "n": n,
            "margin_mean": sum(margins) / n,
            "chosen_score_mean": sum(r.chosen_score for r in rows) / n,
            "rejected_score_mean": sum(r.rejected_score for r in rows) / n,
            "chosen_tokens_mean": sum(r.chosen_tokens for r in rows) / n,
            "rejected_tokens_mean": sum(r.rejected_tokens for r in rows) / n,
            "chosen_longer_share": sum(r.chosen_tokens > r.rejected_tokens for r in rows) / n,
            "margins": _histogram(margins),
        }
    return found


def _histogram(values: list[float], bins: int = 12) -> dict[str, Any]:
    top = max(values)
    counts = [0] * bins
    for v in values:
        counts[min(int(v / top * bins), bins - 1)] += 1
    return {"from": 0.0, "to": top, "counts": counts}


def pair_stats(data: dict[str, Any]) -> None:
    """A line of numbers and a row of bars for each iteration."""
    table = _table(
        "of", "pairs", "other outcomes", "margin", "", "chosen", "rejected", "tokens", "chosen longer"
    )
    for policy, d in data.items():
        others = ", ".join(f"{n} {o}" for o, n in d["outcomes"].items() if o != "pair")
        if "n" not in d:
            table.add_row(policy, "0", others, *[""] * 6)
            continue
        table.add_row(
            policy, str(d["n"]), others, f"{d['margin_mean']:.3f}", sparkline(d["margins"]["counts"]),
            f"{d['chosen_score_mean']:.2f}", f"{d['rejected_score_mean']:.2f}",
            f"{d['chosen_tokens_mean']:.0f} / {d['rejected_tokens_mean']:.0f}",
            f"{d['chosen_longer_share']:.0%}",
        )  # fmt: skip
    console.print(table)


def sparkline(counts: list[int]) -> str:
    """Counts as a row of eight-level bars."""
    top = max(counts) or 1
    return "".join(BARS[min(len(BARS) - 1, round(c / top * (len(BARS) - 1)))] for c in counts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "prompt id"))
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
