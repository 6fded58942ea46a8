"""Stage `probe`: fixed held-out prompts at temperature 1; how far the policy is from its parent and from M0.

First the proof: on fixed token ids the engine must agree with what the trainer wrote and differ from the
parent.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from selfreward import collapse, diversity, stats
from selfreward.collapse import Finding, Probed, drift
from selfreward.collapse.limits import changed
from selfreward.collapse.texts import Answers
from selfreward.files import sha256_of
from selfreward.ids import derive_seed, pack_ids, unpack_ids
from selfreward.protocols import Answer, Request, Sampling, Scored
from selfreward.records import AnswerRow, Metric, Policy, Stage
from selfreward.rewards import LengthReward
from selfreward.scorers.length import LengthScorer
from selfreward.stages import trusted
from selfreward.stages.seeds import read_lines, unique
from selfreward.stages.work import Work, blocks, flat
from selfreward.stats import Interval
from selfreward.training.proof import mean_gap

SUITE = "probe"


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the probe's answers."""
    return (
        flat(work.recipe.probe, "probe")
        | {"probe.file": sha256_of(work.file(work.recipe.probe.file))}
        | work.decided_by_engine(policy)
        | trusted.made_from(work, policy)
    )


def run(work: Work, stage: Stage) -> str:
    """Answers what is missing, then measures everything anew."""
    policy = work.policy(stage.policy)
    options = work.recipe.probe
    path = work.file(options.file)
    items = unique([line["prompt"] for line in read_lines(path, ("prompt",))][: options.count], path)
    stage.n_total = len(items)
    have = {a.item for a in work.store.answers(work.run.id, policy.name, SUITE)}
    for block in blocks(items, 4 * work.recipe.engine.block):
        missing = [i for i in block if i not in have]
        if not missing:
            continue
        start = time.monotonic()
        rows, tokens = ask(
            work,
            policy,
            SUITE,
            [[{"role": "user", "content": i}] for i in block],
            block,
            Sampling(max_new_tokens=options.max_new_tokens),
        )
        work.store.commit_block(stage, rows, len(rows), tokens, time.monotonic() - start)
        work.advance(stage)
    metrics = [*_text_metrics(work, policy), *_drift_metrics(work, policy), *_proof_metrics(work, policy)]
    metrics += trusted.metrics(work, policy)
    work.store.put_metrics(metrics)
    found = {m.name: m.value for m in metrics}
    kl = found.get("kl_previous")
    return f"{len(items)} answers" + (
        f", KL to {policy.parent} {kl:.4f} nats a token" if kl is not None else ""
    )


def ask(
    work: Work,
    policy: Policy,
    suite: str,
    chats: Sequence[Sequence[dict[str, str]]],
    items: Sequence[str],
    sampling: Sampling,
    turn: int = 1,
) -> tuple[list[AnswerRow], int]:
    """The policy's answers to a block of chats as rows, and their tokens.

    The seed depends on suite, item and turn.
    """
    seeds = [derive_seed(work.recipe.seed, suite, item, turn) for item in items]
    requests = [
        Request(list(c), s, sampling, work.adapter(policy)) for c, s in zip(chats, seeds, strict=True)
    ]
    replies = work.engine.generate(requests)
    rows = [
        AnswerRow(
            run_id=work.run.id,
            policy=policy.name,
            suite=suite,
            item=item,
            turn=turn,
            text=reply.text,
            token_ids=pack_ids(reply.token_ids) if reply.text is not None else None,
            n_tokens=len(reply.token_ids) if reply.text is not None else None,
            finish=reply.finish,
            seed=seed,
            fault=reply.fault,
        )
        for item, seed, reply in zip(items, seeds, replies, strict=True)
    ]
    return rows, sum(len(r.token_ids) for r in replies)


def metric(work: Work, policy: Policy, stage: str, name: str, found: Interval) -> Metric:
    """An interval as a metric row; a value that is not finite is stored as NULL."""
    sound = all(math.isfinite(x) for x in (found.value, found.low, found.high))
    return Metric(
        run_id=work.run.id,
        policy=policy.name,
        stage=stage,
        name=name,
        value=found.value if sound else None,
        n=found.n,
        low=found.low if sound else None,
        high=found.high if sound else None,
    )


def _text_metrics(work: Work, policy: Policy) -> list[Metric]:
    answers = [a for a in work.store.answers(work.run.id, policy.name, SUITE) if a.fault is None]
    texts = [a.text for a in answers]
    if not texts:
        return []
    found = {
        "distinct_2": diversity.distinct_2(texts),
        "length_mean": stats.mean([float(a.n_tokens) for a in answers]),
        "cut_share": stats.share(sum(a.finish == "length" for a in answers), len(answers)),
        "loop_share": stats.share(sum(diversity.loops(t) for t in texts), len(texts)),
    }
    return [metric(work, policy, SUITE, name, value) for name, value in found.items()]


def _drift_metrics(work: Work, policy: Policy) -> list[Metric]:
    """KL to the parent and to M0 on the policy's own samples: k3 and k1 a token, k3 an answer.

    Both policies score the same ids in the same way.
    """
    if policy.parent is None:
        return []
    answers = [a for a in work.store.answers(work.run.id, policy.name, SUITE) if a.fault is None]
    if not answers:
        return []
    prompts = work.engine.chat_ids([[{"role": "user", "content": a.item}] for a in answers])
    given = [(p, unpack_ids(a.token_ids)) for p, a in zip(prompts, answers, strict=True)]

    @cache
    def scored(adapter: str | None) -> list[list[float]]:
        return work.engine.token_logprobs([Scored(p, c, adapter) for p, c in given])

    own = scored(work.adapter(policy))
    metrics: list[Metric] = []
    for name, other in (("kl_previous", policy.parent), ("kl_m0", "M0")):
        theirs = scored(work.adapter(work.policy(other)))
        k3, k1 = ([k(x, y) for x, y in zip(own, theirs, strict=True)] for k in (drift.k3, drift.k1))
        lengths = [len(x) for x in own]
        found = {
            name: drift.per_token(k3, lengths),
            f"{name}_k1": drift.per_token(k1, lengths),
            f"{name}_answer": drift.per_answer(k3),
        }
        metrics += [metric(work, policy, SUITE, n, value) for n, value in found.items()]
    return metrics


def _proof_metrics(work: Work, policy: Policy) -> list[Metric]:
    """`proof_gap` and `moved`, in nats a token over n tokens.

    `proof_gap` is the engine against the trainer, `moved` the engine with this adapter against its parent.
    """
    adapter = work.adapter(policy)
    if adapter is None or policy.parent is None or not (Path(adapter) / "proof.json").exists():
        return []  # the base, or a LoRA that was made elsewhere
    proof = json.loads((Path(adapter) / "proof.json").read_text(encoding="utf-8"))
    parent = work.adapter(work.policy(policy.parent))
    rows = proof["rows"]
    own = work.engine.token_logprobs([Scored(r["prompt_ids"], r["completion_ids"], adapter) for r in rows])
    before = work.engine.token_logprobs([Scored(r["prompt_ids"], r["completion_ids"], parent) for r in rows])
    n = sum(len(r["completion_ids"]) for r in rows)
    found = {
        "proof_gap": mean_gap(own, [r["logprobs"] for r in rows]),
        "moved": mean_gap(own, before),
        "noise": proof["noise"],
    }
    return [
        Metric(
            run_id=work.run.id,
            policy=policy.name,
            stage=SUITE,
            name=name,
            value=value if math.isfinite(value) else None,
            n=n,
        )
        for name, value in found.items()
    ]


def findings(work: Work, policy: Policy) -> list[Finding]:
    """What the gate after `probe` makes of the numbers that are stored.

    What is promoted has been compared already; the absolute signs hold for it as well.
    """

    def value(name: str) -> float | None:
        row = work.store.metric(work.run.id, policy.name, name)
        return None if row is None else math.nan if row.value is None else float(row.value)

    texts = [a.text for a in work.store.answers(work.run.id, policy.name, SUITE) if a.text is not None]
    found = collapse.after_probe(
        policy.name, texts=texts, kl=value("kl_previous"), proof_gap=value("proof_gap"), moved=value("moved"),
        noise=value("noise") or 0.0,
    )  # fmt: skip
    found = [*found, *trusted.findings(work, policy)]
    if policy.status == "promoted":
        return found
    seen = {f.signal for f in found}
    return found + [f for f in _compared(work, policy) if f.signal not in seen]


def _compared(work: Work, policy: Policy) -> list[Finding]:
    """The policy beside its parent and the start policy; M1 is a start policy itself."""
    levels = changed(work.recipe.gate.limits.model_dump())
    first = policy.idx == 1
    start = _probed(work, work.policy("M0" if first else "M1"))
    parent = start if policy.parent == "M1" else _probed(work, work.policy(policy.parent or "M0"))
    row = work.store.metric(work.run.id, policy.name, "kl_previous")
    kl = Interval(row.value, row.low, row.high, row.n) if row is not None and row.low is not None else None
    return collapse.of_policy(_probed(work, policy), None if first else parent, start, kl, levels)


def _probed(work: Work, policy: Policy) -> Probed:
    """The stored answers of a policy as the detector takes them."""
    rows = work.store.answers(work.run.id, policy.name, SUITE)
    said = [r for r in rows if r.text is not None]
    return Probed(
        [Answers(r.item, (r.text,)) for r in rows],
        {r.item: float(r.finish == "length") for r in said},
        _rewards(work, [r for r in said if r.finish == "stop"]),
    )


def _rewards(work: Work, said: Sequence[Any]) -> dict[str, float]:
    """What the length rule gives each finished answer, where it alone is the reward; others cost more.

    The probe may stop answers sooner than the candidates' own limit: those it cut say nothing of the reward.
    """
    match work.recipe.rewards:
        case [LengthReward(low=low, best=best, high=high)]:
            rule = LengthScorer(low, best, high)
            return {r.item: rule.reward(Answer(r.text, r.finish, r.seed)) for r in said}
        case _:
            return {}
