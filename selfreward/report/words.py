"""A run in sentences: what was made, whether it is better, what the data was, what is not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selfreward.outlook import MEANINGS, counted, duration

UNREVIEWED = (
    "Nobody has reviewed a pair: nothing here says that the judge tells a good answer from a bad one."
)


def summary(facts: dict[str, Any]) -> list[str]:
    """The report's first lines, the most important first."""
    stands = facts["outlook"]
    said = [stands["now"], stands["health"], *_making(facts), *_better(facts), *_distance(facts)]
    said += [*_data(facts), *_people(facts), *_price(facts)]
    return [s for s in said if s]


def _making(facts: dict[str, Any]) -> Iterator[str]:
    trained = [p for p in facts["policies"] if p["trained_on"]]
    if trained:
        told = [f"{p['name']} from {p['parent']} on {trained_rows(p['trained_on'])}" for p in trained]
        yield f"Trained: {'; '.join(told)}."


def trained_rows(kinds: dict[str, int]) -> str:
    """What a training read, in words: `12 judgements, 64 written answers`."""
    names = {"pair": "pairs", "replay": "pairs of before", "seed": "written answers", "judge": "judgements"}
    return ", ".join(f"{n:,} {names.get(kind, kind)}" for kind, n in kinds.items())


def _better(facts: dict[str, Any]) -> Iterator[str]:
    found = facts["comparison"]
    if found is None:
        yield "No two policies were evaluated: whether it got better is not known."
        return
    for c in found["suites"]:
        d = c["difference"]
        yield (
            f"{found['after']} against {found['before']} on {c['suite']}: {c['left']['value']:.3g} became "
            f"{c['right']['value']:.3g}, difference {d['value']:+.3g} [{d['low']:+.3g}, {d['high']:+.3g}] "
            f"over {d['n']} prompts: {c['sentence']}."
        )
    for name, reason in found["left_out"].items():
        yield f"{name}: {reason}."


def _distance(facts: dict[str, Any]) -> Iterator[str]:
    known = [d for d in facts["drift"] if d["kl"] is not None and d["policy"] != "M0"]
    if known:
        yield f"{known[-1]['policy']} lies {known[-1]['kl']:.3g} nats a token from the base."


def _data(facts: dict[str, Any]) -> Iterator[str]:
    outcomes: dict[str, int] = {}
    for p in facts["policies"]:
        for name, n in p["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + n
    if outcomes:
        others = ", ".join(counted(o, n) for o, n in outcomes.items() if o != "pair")
        made = f"Of {sum(outcomes.values()):,} prompts {outcomes.get('pair', 0):,} became pairs"
        yield f"{made}; the others: {others}." if others else f"{made}."
    asked = sum(j["n"] for p in facts["policies"] for j in p["judgements"])
    if asked:
        unread = sum(f["n"] for f in facts["faults"])
        yield f"{unread:,} of {asked:,} judgements could not be read; they are in no mean and in no pair."


def _people(facts: dict[str, Any]) -> Iterator[str]:
    told = [r for r in facts["reviews"] if r["agrees"]]
    if not told:
        yield UNREVIEWED
    for r in told:
        a = r["agrees"]
        yield (
            f"People kept {r['kept']} and dropped {counted('pair', r['dropped'])} of {r['policy']}; "
            f"{r['scorer']} agrees on {a['value']:.0%} [{a['low']:.0%}, {a['high']:.0%}] of {a['n']}."
        )


def _price(facts: dict[str, Any]) -> Iterator[str]:
    cost = facts["cost"]
    hours = cost["gpu_hours"]
    gpus = "no GPU" if hours is None else f"{hours:.2f} GPU-hours"
    yield f"It took {duration(cost['seconds'])} of work, {cost['tokens']:,} generated tokens and {gpus}."


def meaning(name: str) -> str:
    """What a signal or measure is, in a few words; nothing where its name says it."""
    return MEANINGS.get(name.rpartition("/")[2], "")


def number(value: float | None) -> str:
    """Three significant digits; nothing for what was not measured."""
    return "" if value is None else f"{value:.3g}"


def interval(point: dict[str, Any]) -> str:
    """Value, 95 % interval and n, as far as there are."""
    if point["value"] is None:
        return "not finite"
    between = "" if point["low"] is None else f" [{number(point['low'])}, {number(point['high'])}]"
    return number(point["value"]) + between + (f" n={point['n']}" if point.get("n") else "")
