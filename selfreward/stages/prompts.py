"""Stage `prompts`: the policy invents prompts in rounds, the driver filters them; seeds fill what is missing.

A round is a fixed number of requests, committed whole with its rejected prompts and their reasons. Few-shot
parents come from seeds and from prompts accepted in earlier rounds and iterations, never from the round
itself.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

from selfreward import invent
from selfreward.errors import GateHalted
from selfreward.files import packaged, sha256_of
from selfreward.ids import derive_seed, prompt_id
from selfreward.near import HeldOut
from selfreward.protocols import Completion, Request
from selfreward.records import Policy, Prompt, Stage
from selfreward.stages import recipe_suites
from selfreward.stages.seeds import read_lines, read_prompts
from selfreward.stages.work import Work, flat, sampling

WANTED = 4  # new tasks asked for in one request
TEMPLATE = "self_instruct.md"


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the prompts of an iteration."""
    options = work.recipe.prompts
    decided = flat(options, "prompts") | {"held_out": [sha256_of(p) for p in held_out_files(work)]}
    if options.source == "self-instruct":
        files = {
            "prompts.seed_file": sha256_of(work.file(options.seed_file)),
            "template": sha256_of(packaged(TEMPLATE)),
        }
        return decided | files | work.decided_by_engine(policy)
    return decided | {"prompts.from": sha256_of(work.file(options.source)), "seed": work.recipe.seed}


def run(work: Work, stage: Stage) -> str:
    """Makes the missing rounds; returns how many prompts came from where."""
    policy = work.policy(stage.policy)
    stage.n_total = work.recipe.prompts.count
    near = _neighbours(work, policy)
    if work.recipe.prompts.source == "self-instruct":
        _invent(work, stage, policy, near)
        _fall_back(work, stage, policy)
    else:
        _take_file(work, stage, policy, near)
    accepted = work.store.prompts(work.run.id, policy.name)
    if not accepted:
        raise GateHalted(
            f"{policy.name} has no prompts: all were refused; "
            f"see `selfreward prompts list --of {policy.name}`"
        )
    sources = {s: sum(p.source == s for p in accepted) for s in ("self-instruct", "seed", "user")}
    told = {"self-instruct": "invented", "seed": "from seed prompts", "user": "of your own"}
    return ", ".join(f"{n} {told[s]}" for s, n in sources.items() if n)


def check_file(work: Work) -> None:
    """Before any work: prompts of the user's own can be read."""
    if work.recipe.prompts.source != "self-instruct":
        read_prompts(work.file(work.recipe.prompts.source))


def held_out_files(work: Work) -> list[Any]:
    """Files whose prompts must never train: the probe's and the evaluation's."""
    names = [work.recipe.probe.file]
    if work.recipe.evaluate:
        names += [n for n in (work.recipe.evaluate.questions, work.recipe.evaluate.problems) if n]
    return [*(work.file(n) for n in names), *recipe_suites.files(work)]


def asked_in(row: dict[str, Any]) -> list[str]:
    """The questions of a row of a held-out file, whatever form it has."""
    named = [row.get("prompt"), row.get("problem"), row.get("question"), *row.get("turns", [])]
    chat = row["messages"][-1:] if isinstance(row.get("messages"), list) else []
    named += [turn.get("content") for turn in chat if isinstance(turn, dict)]
    return [text for text in named if isinstance(text, str) and text.strip()]


def held_out(work: Work) -> HeldOut:
    """The prompts of probe and evaluation: nothing near them may train."""
    near = HeldOut(work.recipe.prompts.filters.rouge)
    for path in held_out_files(work):
        for row in read_lines(path, ()):
            for text in asked_in(row):
                near.hold_out(text)
    return near


def _neighbours(work: Work, policy: Policy) -> HeldOut:
    """What a new prompt must keep away from: held-out prompts, seeds, and what was accepted before."""
    near = held_out(work)
    if work.recipe.prompts.source != "self-instruct":
        return near
    for name in list(work.store.policies(work.run.id))[: policy.idx + 1]:
        for prompt in work.store.prompts(work.run.id, name):
            near.add(prompt.text, "seed" if name == "M0" else "accepted")
    return near


def _invent(work: Work, stage: Stage, policy: Policy, near: HeldOut) -> None:
    options = work.recipe.prompts
    seeds = work.store.prompts(work.run.id, "M0")
    while True:
        slot, done_rounds = work.store.prompt_state(work.run.id, policy.name)
        mine = work.store.prompts(work.run.id, policy.name)
        if (
            len(mine) >= options.count
            or done_rounds >= options.rounds
            or any(p.source == "seed" for p in mine)
        ):
            return
        number = done_rounds + 1
        asked = [_ask(work, policy, number, i, seeds, _own(work, policy)) for i in range(options.requests)]
        start = time.monotonic()
        replies = work.engine.generate([request for request, _ in asked])
        rows = _sift(work, policy, number, slot, asked, replies, near, room=options.count - len(mine))
        tokens = sum(len(r.token_ids) for r in replies)
        accepted = sum(r.status == "accepted" for r in rows)
        work.store.commit_block(stage, rows, accepted, tokens, time.monotonic() - start)
        work.advance(stage)


def _own(work: Work, policy: Policy) -> list[Any]:
    """Prompts the policies invented in earlier rounds and iterations, in slot order."""
    names = list(work.store.policies(work.run.id))[1 : policy.idx + 1]
    return [p for n in names for p in work.store.prompts(work.run.id, n) if p.source == "self-instruct"]


def _ask(
    work: Work, policy: Policy, number: int, index: int, seeds: list[Any], own: list[Any]
) -> tuple[Request, list[int]]:
    """One request and the ids of its few-shot parents."""
    options = work.recipe.prompts
    seed = derive_seed(work.recipe.seed, "prompts", policy.idx, number, index)
    draw = random.Random(seed)
    mine = draw.sample(own, min(options.own_shots, len(own)))
    shots = draw.sample(seeds, min(options.seed_shots + options.own_shots - len(mine), len(seeds))) + mine
    draw.shuffle(shots)
    text, opening = invent.request(
        packaged(TEMPLATE).read_text(encoding="utf-8"), [s.text for s in shots], WANTED
    )
    chat = [{"role": "user", "content": text}]
    return Request(chat, seed, sampling(options.sampling), work.adapter(policy), opening), [
        s.id for s in shots
    ]


def _sift(
    work: Work,
    policy: Policy,
    number: int,
    slot: int,
    asked: list[tuple[Request, list[int]]],
    replies: list[Completion],
    near: HeldOut,
    room: int,
) -> list[Prompt]:
    """The rows of a round in request order; what is accepted joins the neighbours at once, so twins fall."""
    rows: list[Prompt] = []
    for (request, parents), reply in zip(asked, replies, strict=True):
        if reply.text is None:
            found: list[tuple[str, str | None]] = [("", reply.fault)]
        else:
            found = invent.read(reply.text, request.opening, reply.finish == "stop", WANTED) or [
                ("", "no_prompt")
            ]
        for text, fault in found:
            reason = fault or _refusal(work, text, near)
            if reason is None and room == 0:
                reason = "surplus"
            if reason is None:
                near.add(text, "accepted")
                room -= 1
            rows.append(
                _row(
                    work,
                    policy,
                    slot + len(rows),
                    number,
                    text,
                    "self-instruct",
                    parents,
                    request.seed,
                    reason,
                )
            )
    return rows


def _refusal(work: Work, text: str, near: HeldOut) -> str | None:
    filters = work.recipe.prompts.filters
    fault = invent.form_fault(
        text, min_words=filters.min_words, max_words=filters.max_words, keywords=filters.keywords
    )
    if fault:
        return fault
    return near.reason(text)


def _fall_back(work: Work, stage: Stage, policy: Policy) -> None:
    """Fills what is missing with seed prompts no iteration used, in an order drawn from the run's seed."""
    slot, number = work.store.prompt_state(work.run.id, policy.name)
    mine = work.store.prompts(work.run.id, policy.name)
    missing = work.recipe.prompts.count - len(mine)
    if missing <= 0 or any(p.source == "seed" for p in mine):
        return
    names = list(work.store.policies(work.run.id))[1:]
    used = {
        json.loads(p.parents)[0]
        for n in names
        for p in work.store.prompts(work.run.id, n)
        if p.source == "seed"
    }
    unused = [s for s in work.store.prompts(work.run.id, "M0") if s.id not in used]
    random.Random(derive_seed(work.recipe.seed, "fallback", policy.idx)).shuffle(unused)
    rows = []
    for i, seed in enumerate(unused[:missing]):
        row = _row(work, policy, slot + i, number + 1, seed.text, "seed", [seed.id], None, None)
        row.messages, row.reference = seed.messages, seed.reference
        rows.append(row)
    work.store.commit_block(stage, rows, len(rows))
    work.advance(stage)


def _take_file(work: Work, stage: Stage, policy: Policy, near: HeldOut) -> None:
    """The next `count` prompts of the user's file, starting over at its end.

    Held-out ones are refused, with the reason.
    """
    slot, number = work.store.prompt_state(work.run.id, policy.name)
    if number:
        return
    given = read_prompts(work.file(work.recipe.prompts.source))
    count = min(work.recipe.prompts.count, len(given))
    start = (policy.idx - 1) * count
    rows = []
    for i in range(count):
        one = given[(start + i) % len(given)]
        row = _row(
            work,
            policy,
            slot + i,
            1,
            one["text"],
            "user",
            [],
            None,
            near.reason(one["text"]),
        )
        row.messages, row.reference = json.dumps(one["messages"], ensure_ascii=False), one["reference"]
        row.checks = json.dumps(one["checks"], ensure_ascii=False) if one["checks"] else None
        rows.append(row)
    work.store.commit_block(stage, rows, sum(r.status == "accepted" for r in rows))


def _row(
    work: Work,
    policy: Policy,
    slot: int,
    number: int,
    text: str,
    source: str,
    parents: list[int],
    seed: int | None,
    reason: str | None,
) -> Prompt:
    return Prompt(
        id=prompt_id(work.run.id, policy.idx, slot),
        run_id=work.run.id,
        policy=policy.name,
        slot=slot,
        round=number,
        text=text,
        messages=json.dumps([{"role": "user", "content": text}], ensure_ascii=False),
        source=source,
        parents=json.dumps(parents),
        seed=seed,
        status="rejected" if reason else "accepted",
        reason=reason,
    )


def seed_rows(work: Work) -> list[Prompt]:
    """The written instructions as accepted prompts of M0, with their answers as reference."""
    if work.recipe.prompts.source != "self-instruct":
        return []
    policy = Policy(
        run_id=work.run.id, name="M0", idx=0, model="", made_in=work.run.id, status="promoted", created_at=""
    )
    rows = []
    near = held_out(work)
    for i, line in enumerate(read_lines(work.file(work.recipe.prompts.seed_file), ("prompt", "answer"))):
        row = _row(work, policy, i, 0, line["prompt"], "seed", [], None, near.reason(line["prompt"]))
        row.reference = line["answer"]
        rows.append(row)
    return rows
