"""Stage `candidates`: every accepted prompt is answered `n` times, a block of prompts committed as one."""

from __future__ import annotations

import json
import time
from typing import Any

from selfreward.ids import candidate_id, derive_seed, pack_ids
from selfreward.protocols import Completion, Request
from selfreward.records import Candidate, Policy, Stage
from selfreward.stages.asking import answered
from selfreward.stages.work import Work, flat, sampling


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the candidates of an iteration besides its prompts."""
    keys = flat(work.recipe.candidates, "candidates") | work.decided_by_engine(policy)
    anchor = work.recipe.candidates.anchor
    if anchor is None:  # runs from before there were any go on unchanged
        return {k: v for k, v in keys.items() if k != "candidates.anchor"}
    return keys | {"candidates.anchor.sha256": work.policy(anchor.policy).sha256}


def run(work: Work, stage: Stage) -> str:
    """Answers the prompts that have no candidates."""
    policy = work.policy(stage.policy)
    who = _who(work, policy)
    stage.n_total = len(who) * len(work.store.prompts(work.run.id, policy.name))
    start = time.monotonic()
    todo = work.store.unanswered(work.run.id, policy.name)

    def asked(prompt: Any) -> list[Request]:
        return [_request(work, policy, one, prompt, sample) for sample, one in enumerate(who)]

    for group in answered(work, todo, asked):
        rows = [
            _row(work, policy, who[sample], prompt, sample, request.seed, reply)
            for prompt, requests, replies in group
            for sample, (request, reply) in enumerate(zip(requests, replies, strict=True))
        ]
        work.store.commit_block(
            stage, rows, len(rows), sum(r.n_tokens or 0 for r in rows), time.monotonic() - start
        )
        start = time.monotonic()
        work.advance(stage)
    return f"{stage.n_done} candidates"


def _who(work: Work, policy: Policy) -> list[Policy]:
    """Who gives each sample of a prompt: the policy of the iteration, then the anchor."""
    anchor = work.recipe.candidates.anchor
    own = [policy] * work.recipe.candidates.n
    return own + ([work.policy(anchor.policy)] * anchor.n if anchor else [])


def _request(work: Work, policy: Policy, who: Policy, prompt: Any, sample: int) -> Request:
    seed = derive_seed(work.recipe.seed, "candidates", policy.idx, prompt.slot, sample)
    return Request(
        json.loads(prompt.messages), seed, sampling(work.recipe.candidates.sampling), work.adapter(who)
    )


def _row(
    work: Work, policy: Policy, who: Policy, prompt: Any, sample: int, seed: int, reply: Completion
) -> Candidate:
    answered = reply.text is not None
    return Candidate(
        id=candidate_id(work.run.id, policy.idx, prompt.slot, sample),
        run_id=work.run.id,
        prompt_id=prompt.id,
        policy=who.name,
        sample=sample,
        text=reply.text,
        token_ids=pack_ids(reply.token_ids) if answered else None,
        n_tokens=len(reply.token_ids) if answered else None,
        finish=reply.finish,
        mean_logprob=reply.mean_logprob,
        seed=seed,
        fault=reply.fault,
    )
