"""What each page shows: rows from the store, arranged for its template. No page changes anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfreward.agreement import agreement
from selfreward.errors import BadInput
from selfreward.outlook import MEANINGS, STAGE_ORDER, outlook, pace, progress
from selfreward.store import Glances, PairFilter, is_held
from selfreward.store.database import now
from selfreward.store.finding import REVIEWS, SORTS, Key
from selfreward.store.glances import OUTCOMES
from selfreward.ui import asked
from selfreward.ui.markup import LONGEST, environment
from selfreward.wording import differences

ROWS = 50  # a page of a list
SEARCHING = 0.08  # seconds a search begins windows for; the page goes on, or offers to, from where it stopped


class Missing(Exception):
    """The address names something that is not in the store."""


class Site:
    """The pages of one run, as HTML. Its view is its own connection and never waits for the writer."""

    def __init__(self, path: Path, form_token: str) -> None:
        self.path, self.form_token = path, form_token
        self.views = Glances(path, write=False)
        self._templates = environment()

    def render(self, template: str, **data: Any) -> str:
        """A page; every one has the run's name and the policies."""
        run = self.views.run()
        name = run.name if run else self.path.parent.name
        return str(self._templates.get_template(template).render(run_name=name, **data))

    def run(self) -> str:
        """The line M0 → M3 with states, what happens now, alarms, counts."""
        found = self.views.status()
        held, at = is_held(self.path.parent), now()
        stages = sorted(found["stages"], key=lambda s: STAGE_ORDER.index(s.name))
        outcomes = self.views.outcomes_by_policy()
        cards = [self._card(p, stages, found["alarms"], outcomes, at) for p in found["policies"]]
        return self.render(
            "run.html",
            outlook=outlook(found["policies"], stages, found["alarms"], held=held, at=at),
            live=bool(held) or (held is None and any(s.status == "running" for s in stages)),
            cards=cards,
            paired=any(of.get("pair") for of in outcomes.values()),
            alarms=[a for a in found["alarms"] if a.level != "ok"],
            faults=self.views.faults(),
            reviews=self.views.reviews_by_policy(),
            agreements=[a for a in agreement(self.views.reviewed()) if a.agrees],
            totals={"tokens": sum(s.n_tokens for s in stages), "seconds": sum(s.seconds for s in stages)},
            events=[(e, json.loads(e.detail)) for e in self.views.events(8)],
            measures=_measures(found),
        )

    def _card(self, policy: Any, stages: list[Any], alarms: list[Any], outcomes: Any, at: str) -> Any:
        mine = [s for s in stages if s.policy == policy.name]
        levels = [a.level for a in alarms if a.policy == policy.name]
        worst = max(levels, key=("ok", "warn", "halt").index, default=None)
        return {
            "policy": policy,
            "stages": [(s, progress(s, at)) for s in mine],
            "worst": "halt" if policy.status == "rejected" else worst,
            "outcomes": outcomes.get(policy.name, {}),
        }

    def policy(self, name: str) -> str:
        """Signals with thresholds, measures with intervals beside the parent's and M0's, training curves."""
        found = self.views.status()
        policies = {p.name: p for p in found["policies"]}
        if name not in policies:
            raise Missing(f"There is no policy {name}.")
        mine = policies[name]
        beside = [n for n in dict.fromkeys(("M0", mine.parent, name)) if n in policies]
        at = now()
        stages = sorted(
            (s for s in found["stages"] if s.policy == name), key=lambda s: STAGE_ORDER.index(s.name)
        )
        return self.render(
            "policy.html",
            policy=mine,
            policies=list(policies),
            beside=beside,
            alarms=sorted((a for a in found["alarms"] if a.policy == name), key=_worst_first),
            stages=[(s, progress(s, at), pace(s, at)) for s in stages],
            measures=_measures(found, beside),
            curves=self.views.curves(name),
            outcomes=self.views.outcomes_by_policy().get(name, {}),
            scorers=[s for s in self.views.scorers() if s.policy == name],
            agreements=[a for a in agreement(self.views.reviewed(name)) if a.agrees],
        )

    def pairs(self, query: Mapping[str, str]) -> str:
        """A page of pairs, by key, with the filter's form."""
        wanted = asked.pair_filter(query)
        after, before = asked.key_of(query.get("after")), asked.key_of(query.get("before"))
        found = self.views.page(
            wanted, ROWS + 1, after=before or after, backwards=before is not None,
            budget=SEARCHING if wanted.search else None,
        )  # fmt: skip
        more, rows = len(found.rows) > ROWS, found.rows[:ROWS]
        if before is not None:
            rows.reverse()
        ends = (_key(rows[0]), _key(rows[-1])) if rows else (None, None)
        earlier = ends[0] if (more if before else after) else None
        later = ends[1] if (before or more) else None
        searched = found.searched + _count(query.get("searched"))
        more_of = {"searched": str(searched)} if found.stopped is not None else {}
        if found.stopped is not None:
            earlier, later = (found.stopped, later) if before else (earlier, found.stopped)
        return self.render(
            "pairs.html",
            wanted=wanted,
            rows=rows,
            query=asked.query_of(wanted),
            earlier=asked.query_of(wanted, before=asked.place(earlier), **more_of) if earlier else None,
            later=asked.query_of(wanted, after=asked.place(later), **more_of) if later else None,
            searched=searched if found.stopped else None,
            at_end=query.get("end"),
            begun=bool(after or before),
            **self._choices(),
        )

    def _choices(self) -> dict[str, Any]:
        """What the filters offer: what there is in this run."""
        return {
            "policies": [p.name for p in self.views.status()["policies"]],
            "scorers": sorted({s.name for s in self.views.scorers()}),
            "faults": sorted({f.fault for f in self.views.faults()}),
            "sorts": SORTS,
            "reviews": REVIEWS,
        }

    def pair(self, pair_id: int, query: Mapping[str, str]) -> str:
        """One pair: side by side with differences, judge replies, where it comes from, the review's form."""
        found = self.views.pair(pair_id) if 0 < pair_id < 2**53 else None
        if found is None:
            raise Missing(f"There is no pair {pair_id}.")
        wanted, whole = asked.pair_filter(query), bool(query.get("full"))
        texts = [found[side].text or "" for side in ("chosen", "rejected")]
        shown = texts if whole else [t[:LONGEST] for t in texts]
        differ = differences(*shown)
        sides = [
            {
                "name": side,
                "candidate": found[side],
                "score": getattr(found["pair"], f"{side}_score"),
                "parts": differ[i] if differ else [(shown[i], False)],
                "hidden": len(texts[i]) - len(shown[i]),
                "judgements": [_judged(j) for j in found[f"{side}_judgements"]],
            }
            for i, side in enumerate(("chosen", "rejected"))
        ]
        done = query.get("done", "")
        return self.render(
            "pair.html",
            **{k: found[k] for k in ("pair", "parents", "scorers", "rubric", "policy", "trained")},
            chat=json.loads(found["pair"].messages),
            sides=sides,
            compared=differ is not None,
            whole=whole,
            query=asked.query_of(wanted, go=query.get("go")),
            full=asked.query_of(wanted, go=query.get("go"), full="1"),
            back=asked.query_of(wanted),
            go=query.get("go") == "next",
            done=self.views.pair(int(done)) if done.isdecimal() and len(done) < 17 else None,
            filtered=wanted != PairFilter(),
            form_token=self.form_token,
        )

    def beside(self, pair_id: int, query: Mapping[str, str], backwards: bool) -> str:
        """The address of the pair before or after this one with the same filter; the list's at its end."""
        wanted = asked.pair_filter(query)
        here = self.views.place_of(pair_id) if 0 < pair_id < 2**53 else None
        if here is None:
            raise Missing(f"There is no pair {pair_id}.")
        found = self.views.page(wanted, 1, after=here, backwards=backwards, budget=SEARCHING)
        more = {"go": query.get("go"), "done": query.get("done")}
        if found.rows:
            return f"/pairs/{found.rows[0].id}{asked.query_of(wanted, **more)}"
        if found.stopped is not None:  # the list says how far it was searched, and goes on
            way = "before" if backwards else "after"
            return f"/pairs{asked.query_of(wanted, **{way: asked.place(found.stopped)})}"
        return f"/pairs{asked.query_of(wanted, end='first' if backwards else 'last')}"

    def prompts(self, asked_for: Mapping[str, str]) -> str:
        """A page of prompts with what became of them."""
        wanted = asked.prompt_filter(asked_for)
        if wanted.outcome not in (None, *OUTCOMES):
            raise BadInput(f"outcome is {wanted.outcome!r}; it takes {', '.join(OUTCOMES)}")
        after = asked_for.get("after", "0")
        if not after.isdecimal() or len(after) > 16:
            raise BadInput(f"{after!r} is no place in the list")
        rows = self.views.prompt_page(wanted, after=int(after), limit=ROWS + 1)
        query = asdict(wanted)
        more = query | {"after": str(rows[ROWS - 1].id)} if len(rows) > ROWS else None
        return self.render(
            "prompts.html",
            wanted=wanted,
            rows=rows[:ROWS],
            later=asked.query_string(more) if more else None,
            begun=after != "0",
            first=asked.query_string(query),
            outcomes=OUTCOMES,
            counts=self.views.outcomes_by_policy(),
            **self._choices(),
        )

    def prompt(self, prompt_id: int) -> str:
        """One prompt with all its answers and what became of it."""
        found = self.views.prompt(prompt_id) if 0 < prompt_id < 2**53 else None
        if found is None:
            raise Missing(f"There is no prompt {prompt_id}.")
        return self.render("prompt.html", **found, chat=json.loads(found["prompt"].messages))


def _count(text: str | None) -> int:
    """How many pairs earlier pages of a search have read, as their link says; it is only shown."""
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0


def _worst_first(alarm: Any) -> int:
    return ("halt", "warn", "ok").index(alarm.level)


def _key(row: Any) -> Key:
    return Key(float(row.margin), int(row.id))


def _judged(row: Any) -> dict[str, Any]:
    detail = json.loads(row.detail) if row.detail else None
    return {"row": row, "detail": detail if isinstance(detail, dict) else None}


def _measures(found: Mapping[str, list[Any]], policies: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures by name with each policy's value, and the axis that holds all their intervals."""
    names = policies or [p.name for p in found["policies"]]
    by: dict[str, dict[str, Any]] = {}
    for m in found["metrics"]:
        if m.policy in names:
            by.setdefault(m.name, {})[m.policy] = m
    rows = []
    for name, of in sorted(by.items()):
        ends = [e for m in of.values() for e in (m.low, m.value, m.high) if e is not None]
        axis = {"low": min(ends, default=0.0), "high": max(ends, default=1.0)}
        rows.append({"name": name, "meaning": MEANINGS.get(name, ""), "of": of} | axis)
    return rows
