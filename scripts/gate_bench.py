"""How often the two gates stop a healthy iteration: prompts drawn again and again from runs that were sound.

Each draw is an iteration as the gates see it, made of stored rows of finished runs: texts, verdicts, outcomes
and pairs go together by prompt. Prompts are drawn with replacement, but for the texts of gate 1: one that
stands twice would count as repetition. At gate 2 both policies answer the same prompts. These are resampled
iterations, not runs. No model is used.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward import stats
from selfreward.collapse import Finding, Iteration, Probed, of_data, of_policy
from selfreward.collapse.judging import Score
from selfreward.collapse.texts import Answers
from selfreward.store import Store


@dataclass(frozen=True)
class Row:
    """Everything an iteration has of one prompt."""

    answers: Answers
    cut: float
    scores: tuple[Score, ...]
    outcome: str
    lengths: tuple[tuple[int, int], ...]
    preferred: tuple[tuple[str, str], ...]
    invented: bool


def main() -> None:
    """Both gates on every store, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("stores", nargs="+", type=Path, help="selfreward.db of runs that were sound")
    parser.add_argument("--draws", type=int, default=500, help="iterations of each kind from each store")
    parser.add_argument(
        "--size", type=int, default=64, help="prompts of a drawn iteration, if there are so many"
    )
    arguments = parser.parse_args()
    everything: Counter[str] = Counter()
    for path in arguments.stores:
        for name, drawn in kinds(path, arguments.size):
            begun = time.process_time()
            levels, signs = draws(drawn, arguments.draws)
            everything.update(levels)
            each = (time.process_time() - begun) / arguments.draws
            print(
                f"{path.parent.name:<10} {name:<26} {_told(levels)}, {each:.2f} s each  {signs}", flush=True
            )
    print(f"\nall of them: {_told(everything)}")


Drawn = Callable[[random.Random], list[Finding]]


def draws(drawn: Drawn, n: int) -> tuple[Counter[str], str]:
    """Levels of n drawn iterations, and the signs that were not well, with how often."""
    levels, signs = Counter[str](), Counter[str]()
    for seed in range(n):
        found = drawn(random.Random(seed))
        worst = {f.level for f in found}
        levels["halt" if "halt" in worst else "warn" if "warn" in worst else "ok"] += 1
        signs.update(f"{f.signal} {f.level}" for f in found if f.level != "ok")
    return levels, ", ".join(f"{s} {k}" for s, k in signs.most_common())


def _told(levels: Counter[str]) -> str:
    n = levels.total()
    halts, warns = stats.share(levels["halt"], n), stats.share(levels["warn"], n)
    around = f"[{halts.low:.2%}, {halts.high:.2%}]"
    return f"{levels['halt']} of {n} halted {around}, {warns.value:.1%} warned"


def kinds(path: Path, size: int) -> list[tuple[str, Drawn]]:
    """What can be drawn from a store: first iterations, later ones beside the first, and policies."""
    store = Store(path, write=False)
    recipe = json.loads(store.run().recipe)  # type: ignore[union-attr]
    judged = recipe["rewards"][0]["type"] == "judge"
    data = {p: rows_of(store, p, "judge" if judged else "length") for p in ("M1", "M2")}
    top = 5.0 if judged else None
    names = [p for p in store.policies(1) if p != "M0"]
    probes = {p: probed(store, p) for p in names}
    store.close()
    found: list[tuple[str, Drawn]] = [
        ("gate 1, M1 alone", lambda draw: of_data(taken(data["M1"], size, draw, top)))
    ]
    if data["M2"]:
        found.append((
            "gate 1, M2 beside M1",
            lambda draw: of_data(taken(data["M2"], size, draw, top), taken(data["M1"], size, draw, top)),
        ))  # fmt: skip
    for parent, policy in itertools.pairwise(names):
        found.append((f"gate 2, {policy}", _of_policy(probes, policy, parent, size)))
    return found


def _of_policy(probes: dict[str, dict[str, Any]], policy: str, parent: str, size: int) -> Drawn:
    def drawn(draw: random.Random) -> list[Finding]:
        known = sorted(probes[policy].keys() & probes[parent].keys() & probes["M1"].keys())
        items = [draw.choice(known) for _ in range(size)]
        now, before, start = (again(probes[p], items) for p in (policy, parent, "M1"))
        return of_policy(now, start if parent == "M1" else before, start)

    return drawn


def again(answers: dict[str, Any], items: Sequence[str]) -> Probed:
    """A policy on drawn prompts; one drawn twice is told apart by its place."""
    told = [(f"{item} ({i})", answers[item]) for i, item in enumerate(items)]
    said = [Answers(name, (a.text,)) for name, a in told]
    return Probed(said, {name: float(a.finish == "length") for name, a in told})


def probed(store: Store, policy: str) -> dict[str, Any]:
    """A policy's readable probe answers by prompt."""
    return {a.item: a for a in store.answers(1, policy, "probe") if a.text is not None}


def taken(rows: Sequence[Row], size: int, draw: random.Random, top: float | None) -> Iteration:
    """An iteration of `size` prompts; its texts are of that many different ones, or of most there are."""
    once = draw.sample(list(rows), min(size, max(1, 3 * len(rows) // 4)))
    chosen = [draw.choice(rows) for _ in range(size)]
    return Iteration(
        [r.answers for r in once], [r.cut for r in chosen], [list(r.scores) for r in chosen],
        Counter(r.outcome for r in chosen), [x for r in chosen for x in r.lengths], top,
        [x for r in chosen for x in r.preferred], [r.answers.prompt or "" for r in once if r.invented],
    )  # fmt: skip


def rows_of(store: Store, policy: str, scorer: str) -> list[Row]:
    """The stored iteration of a policy, prompt by prompt."""
    prompts = {p.id: p for p in store.prompts(1, policy)}
    groups: dict[int, list[Any]] = {}
    for row, _ in store.contenders(1, policy, scorer):
        groups.setdefault(row.prompt_id, []).append(row)
    said: dict[int, list[Score]] = {}
    for v in store.verdicts(1, policy, scorer):
        said.setdefault(v.prompt_id, []).append(Score(None, v.score, float(v.n_tokens)))
    outcomes = {r[0]: r[1] for r in store.rows("SELECT prompt_id, outcome FROM mining WHERE run_id = 1")}
    pairs = {(p.chosen_id, p.rejected_id) for p in store.mined_pairs(1, policy)}
    return [_row(prompts[k], g, said.get(k, []), outcomes.get(k, ""), pairs) for k, g in groups.items()]


def _row(prompt: Any, group: list[Any], said: list[Score], outcome: str, pairs: set[tuple[int, int]]) -> Row:
    sides = [(c, r) for c in group for r in group if (c.id, r.id) in pairs]
    return Row(
        Answers(prompt.text, tuple(c.text for c in group)),
        sum(c.finish == "length" for c in group) / len(group), tuple(said), outcome,
        tuple((c.n_tokens, r.n_tokens) for c, r in sides), tuple((c.text, r.text) for c, r in sides),
        prompt.source == "self-instruct",
    )  # fmt: skip


if __name__ == "__main__":
    main()
