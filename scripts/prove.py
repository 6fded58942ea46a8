"""The proof that the loop learns: M1, M2, M3 of `iterations/prove.yaml` on held-out, never trained prompts.

Runs the two iterations (or what is missing of them), then answers every held-out prompt once with each
policy, same seeds, and counts: share of finished answers of 8 to 25 words, mean words, and whether an answer
is likelier under M0 given its own prompt than given another one's. Ends with one JSON line. `--flip` trains
on swapped pairs instead, in a run of its own: the share must fall.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

from selfreward import loop, stats
from selfreward.errors import BadInput, SelfRewardError
from selfreward.files import packaged, write_json
from selfreward.invent import Neighbours
from selfreward.protocols import Completion, Request, Sampling, Scored
from selfreward.records import derive_seed
from selfreward.runs import open_work
from selfreward.scorers.length import LengthScorer
from selfreward.show import terminal_progress
from selfreward.stages import train
from selfreward.stages.seeds import read_prompts
from selfreward.stages.work import Work, sampling

RECIPE = Path("iterations/prove.yaml")


def main() -> None:
    """Runs, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--prompts", type=Path, default=packaged("prove/held_out.jsonl"), help="other held-out prompts"
    )
    parser.add_argument("--flip", action="store_true", help="swap chosen and rejected: the figure must fall")
    arguments = parser.parse_args()
    recipe = _flipped() if arguments.flip else RECIPE
    prompts = read_prompts(arguments.prompts)
    with terminal_progress() as progress, open_work(recipe, [], progress) as work:
        _refuse_trained(work, prompts)
        if arguments.flip:
            work.store.save(events=[work.store.event(work.run.id, "flipped")])
        loop.iterate(work, None, "M3")
        found = measure(work, prompts)
        work.close_engine()
    write_json(work.folder / "prove.json", found)
    print(json.dumps(found))


def _flipped() -> Path:
    """A copy of the recipe under another name, and a trainer that gets every pair the wrong way round."""
    recipe = RECIPE.parent / "flipped" / "flipped.yaml"
    recipe.parent.mkdir(exist_ok=True)
    shutil.copyfile(RECIPE, recipe)
    sound = train._pair_rows

    def swapped(*arguments: Any) -> Any:
        return [
            (record, row | {"chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]})
            for record, row in sound(*arguments)
        ]

    train._pair_rows = swapped
    return recipe


def _refuse_trained(work: Work, prompts: list[dict[str, Any]]) -> None:
    """What trains does not evaluate, near-duplicates included."""
    near = Neighbours(work.recipe.prompts.filters.rouge)
    for prompt in read_prompts(work.file(work.recipe.prompts.source)):
        near.add(prompt["text"], prompt["text"])
    for prompt in prompts:
        twin = near.nearest(prompt["text"])
        if twin:
            raise BadInput(
                f"held-out prompt {prompt['text']!r} is too close to the training prompt {twin[0]!r}"
            )


def measure(work: Work, prompts: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of M1 and M3 with their paired difference, and everything beside it."""
    reward = work.recipe.rewards[0]
    rule = LengthScorer(reward.low, reward.best, reward.high)
    answers = {name: _answer(work, name, prompts) for name in ("M1", "M2", "M3")}
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


def _answer(work: Work, name: str, prompts: list[dict[str, Any]]) -> list[Completion]:
    """One answer a prompt; the seed depends on the prompt alone, so every policy draws with the same ones."""
    draws: Sampling = sampling(work.recipe.candidates.sampling)
    adapter = work.adapter(work.policy(name))
    requests = [
        Request(p["messages"], derive_seed(work.recipe.seed, "prove", p["text"]), draws, adapter)
        for p in prompts
    ]
    return work.engine.generate(requests)


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
