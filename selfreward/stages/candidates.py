"""Stage `candidates`: every accepted prompt is answered `n` times, a block of prompts committed as one."""

from __future__ import annotations

import json
import time
from typing import Any

from selfreward.protocols import Completion, Request
from selfreward.records import Candidate, Policy, Stage, candidate_id, derive_seed, pack_ids
from selfreward.stages.work import Work, blocks, flat, sampling


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the candidates of an iteration besides its prompts."""
    return flat(work.recipe.candidates, "candidates") | work.decided_by_engine(policy)


def run(work: Work, stage: Stage) -> str:
    """Answers the prompts that have no candidates."""
    policy = work.policy(stage.policy)
    n = work.recipe.candidates.n
    stage.n_total = n * len(work.store.prompts(work.run.id, policy.name))
    for block in blocks(work.store.unanswered(work.run.id, policy.name), work.recipe.engine.block):
        start = time.monotonic()
        slots = [(prompt, sample) for prompt in block for sample in range(n)]
        requests = [_request(work, policy, prompt, sample) for prompt, sample in slots]
        replies = work.engine.generate(requests)
        rows = [
            _row(work, policy, prompt, sample, request.seed, reply)
            for (prompt, sample), request, reply in zip(slots, requests, replies, strict=True)
        ]
        work.store.commit_block(
            stage, rows, len(rows), sum(len(r.token_ids) for r in replies), time.monotonic() - start
        )
        work.advance(stage)
    return f"{stage.n_done} candidates"


def _request(work: Work, policy: Policy, prompt: Any, sample: int) -> Request:
    seed = derive_seed(work.recipe.seed, "candidates", policy.idx, prompt.slot, sample)
    return Request(
        json.loads(prompt.messages), seed, sampling(work.recipe.candidates.sampling), work.adapter(policy)
    )


def _row(work: Work, policy: Policy, prompt: Any, sample: int, seed: int, reply: Completion) -> Candidate:
    answered = reply.text is not None
    return Candidate(
        id=candidate_id(work.run.id, policy.idx, prompt.slot, sample),
        run_id=work.run.id,
        prompt_id=prompt.id,
        policy=policy.name,
        sample=sample,
        text=reply.text,
        token_ids=pack_ids(reply.token_ids) if answered else None,
        n_tokens=len(reply.token_ids) if answered else None,
        finish=reply.finish,
        mean_logprob=reply.mean_logprob,
        seed=seed,
        fault=reply.fault,
    )
