"""The report in Markdown, and the model card of a policy: the same facts, model text never as markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from selfreward.outlook import counted, duration
from selfreward.report.words import interval, number, summary, trained_rows
from selfreward.wording import visible

# What Markdown reads inside a line, and what it reads at the beginning of one.
MARKUP = re.compile(r"([\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w)|^[#+=-])")


def markdown(facts: Mapping[str, Any]) -> str:
    """The whole report."""
    name = facts["run"]["name"] if facts["run"] else "A run"
    parts = [f"# {plain(name)}: report", _list(summary(dict(facts))), *_sections(facts)]
    return "\n\n".join(p for p in parts if p) + "\n"


def card(facts: Mapping[str, Any], policy: str, *, hub: str | None, merged: bool) -> str:
    """A model card of an exported policy; `hub` is the base's `id@commit`, None for a folder.

    The front matter has only what the hub's tools read.
    """
    mine = next(p for p in facts["policies"] if p["name"] == policy)
    base = hub.rpartition("@")[0] if hub else None
    front = [f"base_model: {json.dumps(base)}"] if base else []
    front += ["library_name: transformers" if merged else "library_name: peft"]
    front += ["tags: [self-rewarding, dpo, lora]"]
    run = facts["run"]["name"] if facts["run"] else "a run"
    kind = "merged weights" if merged else "a LoRA adapter"
    head = (
        f"Policy {policy} of the self-rewarding run {plain(run)}, made by selfreward: {kind}. "
        f"Base: {code(mine['model'])}. Adapter sha256: {code(mine['sha256'] or 'none')}. "
        f"Verdict: {plain(mine['status'])} ({plain(mine['decision'] or 'no decision yet')})."
    )
    parts = [
        "\n".join(["---", *front, "---"]), f"# {plain(run)} {policy}", head, "## The run it is of",
        _list(summary(dict(facts))), *_sections(facts, examples=False),
    ]  # fmt: skip
    return "\n\n".join(p for p in parts if p) + "\n"


def _sections(facts: Mapping[str, Any], examples: bool = True) -> Iterator[str]:
    yield "## Policies and verdicts"
    yield _table(
        ("policy", "verdict", "why", "made from", "trained on", "sha256"), map(_policy, facts["policies"])
    )
    if facts["alarms"]:
        yield "## Alarms"
        yield _list(
            f"{a['level']}, {a['policy']} after {a['stage']}: {a['message']}" for a in facts["alarms"]
        )
    names = [p["name"] for p in facts["policies"]]
    for title, rows in (("Signals", facts["signals"]), ("Evaluation", _flat(facts["suites"]))):
        if rows:
            yield f"## {title}"
            yield _table(
                (title.lower(), *names, "threshold"), (_over(n, points, names) for n, points in rows.items())
            )
    yield from _data(facts)
    if examples:
        yield from _examples(facts["examples"])
    yield "## Cost"
    rows = [(n, duration(c["seconds"]), f"{c['tokens']:,}") for n, c in facts["cost"]["by_stage"].items()]
    yield _table(("stage", "time", "generated tokens"), rows)
    yield "## Made with"
    made = [(n, v) for n, v in facts["versions"].items()]
    made += [(f"rubric {r['name']}", r["sha256"]) for r in facts["rubrics"]]
    made += (
        [("recipe", facts["run"]["fingerprint"]), ("seed", str(facts["run"]["seed"]))] if facts["run"] else []
    )
    yield _table(("", ""), made)
    if facts["run"]:
        yield fenced(json.dumps(facts["run"]["recipe"], indent=2))


def _policy(p: Mapping[str, Any]) -> tuple[str, ...]:
    trained = trained_rows(p["trained_on"])
    return p["name"], p["status"], p["decision"] or "", p["parent"] or "the base", trained, p["sha256"] or ""


def _flat(suites: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{suite}/{part}": points for suite, parts in suites.items() for part, points in parts.items()}


def _over(name: str, points: Sequence[Mapping[str, Any]], policies: Sequence[str]) -> tuple[str, ...]:
    by = {p["policy"]: interval(dict(p)) for p in points}
    limits = [p["threshold"] for p in points if p.get("threshold") is not None]
    return name, *[by.get(p, "") for p in policies], number(limits[-1] if limits else None)


def _data(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Data"
    rows = []
    for p in facts["policies"]:
        if p["candidates"]:
            c, made = p["candidates"], p["pairs"] or {}
            outcomes = ", ".join(counted(o, n) for o, n in p["outcomes"].items())
            longer = made.get("chosen_longer")
            rows.append((
                p["name"], f"{c['n']:,}", number(c["tokens"]), f"{c['cut']:,}", outcomes,
                number(made.get("margin")), "" if longer is None else f"{longer:.0%}",
            ))  # fmt: skip
    yield _table(
        ("iteration of", "answers", "mean tokens", "cut off", "became", "margin", "chosen longer"), rows
    )
    unread = [f"{f['n']:,} judgements by {f['scorer']}: {f['fault']}" for f in facts["faults"]]
    unread += [f"{f['n']:,} answers of {f['policy']}: {f['fault']}" for f in facts["answer_faults"]]
    yield _list(unread) if unread else "No faults."


def _examples(examples: Mapping[str, Any]) -> Iterator[str]:
    for end in ("largest", "smallest"):
        for e in examples[end]:
            yield f"## Pair {e['id']}: margin {number(e['margin'])}, among the {end} of {examples['of']}"
            yield fenced(e["prompt"])
            for side in ("chosen", "rejected"):
                yield f"{side.capitalize()}, score {number(e[f'{side}_score'])}:"
                yield fenced(e[side])


def plain(text: str) -> str:
    """A text on one line in which nothing is markup."""
    return MARKUP.sub(r"\\\1", visible(" ".join(text.split())))


def code(text: str) -> str:
    """A short text as code."""
    return f"`{visible(' '.join(text.split())).replace('`', chr(39))}`"


def fenced(text: str | None) -> str:
    """A text in a fence longer than any run of backticks in it."""
    shown = visible(text or "")
    fence = "`" * max(3, 1 + max((len(m) for m in re.findall(r"`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(plain, row))} |" for row in rows)])
