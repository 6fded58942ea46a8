"""The proof that the loop learns: M1, M2, M3 of `iterations/prove.yaml` on held-out, never trained prompts.

Runs the two iterations (or what is missing of them), then answers every held-out prompt once with each
policy, same seeds, and counts: share of finished answers of 8 to 25 words, mean words, and whether an answer
is likelier under M0 given its own prompt than given another one's. Ends with one JSON line. `--flip`, after a
run, trains M2 once more from the very rows it was trained on with chosen and rejected swapped, in a folder
aside, and measures that: the share must fall.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from selfreward import loop, stats
from selfreward.engines import process
from selfreward.errors import BadInput, SelfRewardError, WorkFailed
from selfreward.files import packaged, write_json
from selfreward.ids import derive_seed
from selfreward.near import Neighbours
from selfreward.protocols import Completion, Request, Sampling, Scored
from selfreward.rewards import LengthReward
from selfreward.runs import open_work
from selfreward.scorers.length import LengthScorer
from selfreward.show.progress import terminal_progress
from selfreward.stages.seeds import read_prompts
from selfreward.stages.work import Work, sampling
from selfreward.training.job import TrainingSpec, write_job

RECIPE = Path("iterations/prove.yaml")


def main() -> None:
    """Runs, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--prompts", type=Path, default=packaged("prove/held_out.jsonl"), help="other held-out prompts"
    )
    parser.add_argument("--flip", action="store_true", help="swap chosen and rejected: the figure must fall")
    arguments = parser.parse_args()
    with terminal_progress() as progress, open_work(RECIPE, [], progress) as work:
        prompts = _held_out(work, arguments.prompts)
        loop.iterate(work, None, "M3")
        found = measure_flipped(work, prompts) if arguments.flip else measure(work, prompts)
        work.close_engine()
    write_json(work.folder / ("flipped.json" if arguments.flip else "prove.json"), found)
    print(json.dumps(found))


def _held_out(work: Work, path: Path) -> list[dict[str, Any]]:
    """The prompts to measure on, without those too close to one that trains."""
    near = Neighbours(work.recipe.prompts.filters.rouge)
    for prompt in read_prompts(work.file(work.recipe.prompts.source)):
        near.add(prompt["text"], prompt["text"])
    given = read_prompts(path)
    kept = [p for p in given if near.nearest(p["text"]) is None]
    if len(kept) < len(given):
        out = len(given) - len(kept)
        work.progress.say(f"{out} of {len(given)} prompts are too close to training prompts: left out")
    if not kept:
        raise BadInput(f"{path} holds no prompt that is not among the training prompts")
    return kept


def measure_flipped(work: Work, prompts: list[dict[str, Any]]) -> dict[str, Any]:
    """M1 against an M2 that learnt to prefer what M2 learnt to avoid: the same rows, sides swapped."""
    made, aside = work.folder / "M2" / "training", work.folder / "flipped"
    spec = TrainingSpec(**json.loads((made / "spec.json").read_text(encoding="utf-8")))
    rows = [json.loads(line) for line in (made / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    swapped = [r | {"chosen_ids": r["rejected_ids"], "rejected_ids": r["chosen_ids"]} for r in rows]
    write_job(aside, spec, swapped)
    child = process.start("selfreward.training", [str(aside)], aside / "log", work.threads)
    child.process.wait()
    if child.close() != 0:
        raise WorkFailed(f"the flipped training failed: {child.log_tail()}")
    rule = _rule(work)
    answers = [
        _answer(work, work.adapter(work.policy("M1")), prompts),
        _answer(work, str(aside / "adapter"), prompts),
    ]
    hits = [[float(_is_hit(rule, a)) for a in found] for found in answers]
    return {
        "m1": sum(hits[0]) / len(prompts),
        "m2_flipped": sum(hits[1]) / len(prompts),
        "difference": _plain(stats.paired_difference(hits[0], hits[1])),
        "n": len(prompts),
        "words": [sum(_words(a) for a in found) / len(found) for found in answers],
    }


def measure(work: Work, prompts: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of M1 and M3 with their paired difference, and everything beside it."""
    rule = _rule(work)
    answers = {n: _answer(work, work.adapter(work.policy(n)), prompts) for n in ("M1", "M2", "M3")}
    hits = {name: [float(_is_hit(rule, a)) for a in found] for name, found in answers.items()}
    on_topic = {name: _on_topic(work, prompts, answers[name]) for name in ("M1", "M3")}
    shares = {name: stats.share(int(sum(h)), len(h)) for name, h in hits.items()}
    return {
        "m1": shares["M1"].value,
        "m2": shares["M2"].value,
        "m3": shares["M3"].value,
        "difference": _plain(stats.paired_difference(hits["M1"], hits["M3"])),
        "difference_m2": _plain(stats.paired_difference(hits["M1"], hits["M2"])),
        "n": len(prompts),
        "on_topic": {"m1": on_topic["M1"], "m3": on_topic["M3"]},
        "words": {
            name.lower(): sum(_words(a) for a in found) / len(found) for name, found in answers.items()
        },
        "finished": {
            n.lower(): sum(a.finish == "stop" for a in found) / len(found) for n, found in answers.items()
        },
    }


def _answer(work: Work, adapter: str | None, prompts: list[dict[str, Any]]) -> list[Completion]:
    """One answer a prompt; the seed depends on the prompt alone, so every policy draws with the same ones."""
    draws: Sampling = sampling(work.recipe.candidates.sampling)
    requests = [
        Request(p["messages"], derive_seed(work.recipe.seed, "prove", p["text"]), draws, adapter)
        for p in prompts
    ]
    return work.engine.generate(requests)


def _rule(work: Work) -> LengthScorer:
    reward = work.recipe.rewards[0]
    if not isinstance(reward, LengthReward):
        raise BadInput(f"{RECIPE}: the proof needs a reward of type length")
    return LengthScorer(reward.low, reward.best, reward.high)


def _is_hit(rule: LengthScorer, answer: Completion) -> bool:
    return answer.text is not None and answer.finish == "stop" and rule.low <= _words(answer) <= rule.high


def _words(answer: Completion) -> int:
    return len((answer.text or "").split())


def _on_topic(work: Work, prompts: list[dict[str, Any]], answers: list[Completion]) -> float:
    """Share of answers that M0 finds likelier after their own prompt than after the next one's."""
    ids = work.engine.chat_ids([p["messages"] for p in prompts])
    kept = [(i, a.token_ids) for i, a in enumerate(answers) if a.token_ids]
    own = work.engine.token_logprobs([Scored(ids[i], tokens) for i, tokens in kept])
    other = work.engine.token_logprobs([Scored(ids[(i + 1) % len(ids)], tokens) for i, tokens in kept])
    return sum(math.fsum(a) > math.fsum(b) for a, b in zip(own, other, strict=True)) / len(prompts)


def _plain(found: stats.Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}


if __name__ == "__main__":
    try:
        main()
    except SelfRewardError as error:
        print(f"prove: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
