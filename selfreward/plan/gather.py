"""From a recipe, and perhaps an earlier run's store, to the plain numbers the arithmetic takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfreward import invent
from selfreward import rubric as rubrics
from selfreward.budget import NONE, Amount, How, Sizes, Texts
from selfreward.evaluation.suites import KNOWN, Suite
from selfreward.evaluation.tasks import protocol
from selfreward.files import packaged
from selfreward.plan.count import Counter
from selfreward.recipe import Recipe
from selfreward.recipe_file import locate
from selfreward.rewards import JudgeReward
from selfreward.sections import SamplingOptions
from selfreward.stages.prompts import TEMPLATE, WANTED
from selfreward.stages.seeds import read_lines, read_prompts


@dataclass(frozen=True, slots=True)
class Gathered:
    """Mean lengths, the longest ones that decide memory, and bytes of text a token."""

    sizes: Sizes
    texts: Texts
    prompt_most: int
    text_most: int
    invite_most: int
    example_most: int
    letters: float
    seeds: int


def gather(recipe: Recipe, file: Path, counter: Counter, goal: int) -> Gathered:
    """Counts every text the recipe names; what a model will write is bounded by its limit."""
    chats, judged = _prompts(recipe, file), any(isinstance(r, JudgeReward) for r in recipe.rewards)
    written = [rubrics.transcript(c) for c in chats]  # as a judge reads them
    texts, lengths = counter.texts(written), counter.chats(chats)
    own = recipe.prompts.source != "self-instruct"
    invites = [] if own else counter.chats(_invites(recipe, written))
    examples = _examples(recipe, file, counter)
    evaluation = _evaluation(recipe, file, counter)
    answer = _bound(recipe.candidates.sampling)
    probes = [r["prompt"] for r in read_lines(locate(file, recipe.probe.file), ("prompt",))]
    probes = probes[: recipe.probe.count]
    kind: How = counter.how if own else "guess"  # invented prompts are taken to be like the seed prompts
    overhead = round(_mean(lengths) - _mean(texts))
    wordy = sum(texts) / max(1, sum(len(t.split()) for t in written))
    most = max(texts) if own else max(max(texts), round(wordy * recipe.prompts.filters.max_words))
    found = Texts(
        invite=Amount(_mean(invites), counter.how),
        invention=_bound(recipe.prompts.sampling),
        prompt=Amount(_mean(lengths), kind),
        prompt_text=Amount(_mean(texts), kind),
        candidate=answer,
        judge=_judge_chat(recipe.judge.rubric, file, counter) if judged else NONE,
        judgement=_bound(recipe.judge.sampling),
        paired=Amount(1.0, "bound"),
        chosen=answer,
        rejected=answer,
        sft_rows=Amount(len(examples)),
        sft_row=Amount(_mean(examples), counter.how),
        probe=Amount(_mean(counter.chats([_user(p) for p in probes])), counter.how),
        probed=Amount(recipe.probe.max_new_tokens, "bound"),
        **evaluation,
    )
    sizes = _sizes(recipe, goal, len(chats), len(probes), judged, own)
    questions, problems = _suite(recipe, file)
    sizes = replace(sizes, questions=questions, problems=problems, suites=_suites(recipe, file))
    return Gathered(
        sizes=sizes,
        texts=found,
        prompt_most=max(max(lengths), most + overhead),
        text_most=most,
        invite_most=max(invites, default=0),
        example_most=max(examples, default=0),
        letters=len("".join(written).encode()) / max(1, sum(texts)),
        seeds=0 if own else len(chats),
    )


def _sizes(recipe: Recipe, goal: int, given: int, probes: int, judged: bool, own: bool) -> Sizes:
    options, sft = recipe.prompts, recipe.start.sft
    return Sizes(
        iterations=goal - 1,
        requests=NONE if own else Amount(options.requests * options.rounds, "bound"),
        prompts=min(options.count, given) if own else options.count,
        candidates=recipe.candidates.n,
        judging=recipe.judge.mode if judged else None,
        samples=recipe.judge.samples,
        grading="expected" if recipe.judge.mode == "pairwise" else recipe.judge.mode,
        adapted=bool(sft or recipe.start.adapter),
        sft_epochs=sft.epochs if sft else 0.0,
        epochs=recipe.training.epochs,
        probes=probes,
        questions=0,
        problems=0,
    )


def _prompts(recipe: Recipe, file: Path) -> list[list[dict[str, str]]]:
    """The user's own prompts, or the seed prompts as chats."""
    options = recipe.prompts
    if options.source != "self-instruct":
        return [row["messages"] for row in read_prompts(locate(file, options.source))]
    rows = read_lines(locate(file, options.seed_file), ("prompt", "answer"))
    return [_user(row["prompt"]) for row in rows]


def _invites(recipe: Recipe, seeds: Sequence[str]) -> list[list[dict[str, str]]]:
    """Requests for new prompts made of the seed prompts in turn: each is a shot of one request."""
    shots = recipe.prompts.seed_shots + recipe.prompts.own_shots
    template = packaged(TEMPLATE).read_text(encoding="utf-8")
    groups = [seeds[i : i + shots] for i in range(0, max(1, len(seeds) - shots + 1), shots)]
    return [_user(invent.request(template, group, WANTED)[0]) for group in groups]


def _examples(recipe: Recipe, file: Path, counter: Counter) -> list[int]:
    """Tokens of the SFT rows: of all lines, cut to as many as the recipe draws, spread over the file."""
    sft = recipe.start.sft
    if sft is None:
        return []
    rows = read_lines(locate(file, sft.file), ("prompt", "answer"))
    found = _spread(_rows(counter, [(_user(r["prompt"]), str(r["answer"])) for r in rows]), sft.examples)
    if sft.judge_file and sft.judge_examples != 0:
        rubric = _rubric(recipe.judge.rubric, file)
        needed = ("prompt", "answer", "score", "judgement")
        lines = read_lines(locate(file, sft.judge_file), needed)
        made = [
            (
                rubrics.render(rubric, _user(r["prompt"]), r["answer"]),
                f"{r['judgement']}\n{rubrics.OPENING} 1",
            )
            for r in lines
        ]
        found += _spread(_rows(counter, made), sft.judge_examples)
    return found


def _rows(counter: Counter, pairs: list[tuple[list[dict[str, str]], str]]) -> list[int]:
    prompts, answers = counter.chats([p for p, _ in pairs]), counter.texts([a for _, a in pairs])
    return [p + a + 1 for p, a in zip(prompts, answers, strict=True)]  # 1: the token that ends the turn


def _spread(lengths: list[int], count: int | None) -> list[int]:
    """`count` of them at equal steps of their order by length: the drawn ones are not known before."""
    if count is None or count >= len(lengths):
        return lengths
    ordered = sorted(lengths)
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]


def _evaluation(recipe: Recipe, file: Path, counter: Counter) -> dict[str, Amount]:
    """Lengths of the evaluation; nothing where there is none."""
    names = ("question", "question_text", "answered", "problem", "solved", "grade", "graded")
    options = recipe.evaluate
    found = dict.fromkeys(names, NONE)
    if options is None:
        return found
    if options.questions:
        rows = read_lines(locate(file, options.questions), ("turns", "category"))
        found["question"] = _counted(counter, counter.chats([_user(r["turns"][0]) for r in rows]))
        found["question_text"] = _counted(counter, counter.texts([t for r in rows for t in r["turns"]]))
    if options.problems:
        rows = read_lines(locate(file, options.problems), ("problem", "answer"))
        found["problem"] = _counted(counter, counter.chats([_user(r["problem"]) for r in rows]))
    limit = Amount(options.max_new_tokens, "bound")
    grade = _judge_chat(options.rubric, file, counter)
    return found | {
        "answered": limit,
        "solved": limit,
        "grade": grade,
        "graded": _bound(recipe.judge.sampling),
    }


def _suite(recipe: Recipe, file: Path) -> tuple[int, int]:
    """How many questions and problems the evaluation has."""
    options = recipe.evaluate
    named = (options.questions, options.problems) if options else (None, None)
    questions, problems = (len(read_lines(locate(file, n), ())) if n else 0 for n in named)
    return questions, problems


def _suites(recipe: Recipe, file: Path) -> Amount:
    """New tokens of the suites, each answer at its longest; of a known set the published count counts."""
    options = recipe.evaluate
    most = 0
    for one in (options and options.suites) or []:
        suite = KNOWN.get(one.suite) or Suite(one.suite, "own")
        given = one.data or (one.suite if suite.rule == "own" else None)
        rows = read_lines(locate(file, given), ()) if given else []
        count = len(rows) if given else suite.count or 0
        turns = 2 if suite.rule == "graded" or (rows and "turns" in rows[0]) else 1
        asked = protocol(suite, one.samples, one.temperature, one.max_new_tokens)
        most += min(count, one.first or count) * one.samples * turns * asked.max_new_tokens
    budget = options.budget if options else None
    return Amount(most if budget is None else min(most, budget), "bound") if most else NONE


def _judge_chat(name: str, file: Path, counter: Counter) -> Amount:
    """A judge's chat around an empty request and an empty answer, its opening included."""
    rubric = _rubric(name, file)
    pairwise = rubric.kind == "pairwise"
    chat = (
        rubrics.render_pair(rubric, _user(""), "", "") if pairwise else rubrics.render(rubric, _user(""), "")
    )
    return _counted(counter, counter.chats([chat], rubrics.OPENING))


def _rubric(name: str, file: Path) -> rubrics.Rubric:
    path = locate(file, name)
    return rubrics.parse(path.read_text(encoding="utf-8"), str(path))


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _bound(sampling: SamplingOptions) -> Amount:
    return Amount(sampling.max_new_tokens, "bound")


def _counted(counter: Counter, lengths: Sequence[int]) -> Amount:
    return Amount(_mean(lengths), counter.how)


def _mean(lengths: Sequence[int]) -> float:
    return sum(lengths) / len(lengths) if lengths else 0.0


@dataclass(frozen=True, slots=True)
class Seconds:
    """Seconds of an earlier run's stages with what they did, for its rates."""

    generated: float = 0.0
    generating: float = 0.0
    judged: int = 0
    judging: float = 0.0
    pairs: float = 0.0
    training: float = 0.0


def measured(found: Gathered, spent: dict[str, list[Any]], counter: Counter) -> tuple[Gathered, Seconds]:
    """The same with what an earlier run's store tells of lengths, and that run's seconds."""
    then = json.loads(spent["recipe"][0].recipe)
    chats = [json.loads(r.messages) for r in spent["prompts"]]
    told: dict[str, Amount] = {}

    def put(name: str, value: float | None) -> None:
        if value:
            told[name] = Amount(float(value), "measured")

    put("prompt", _mean(counter.chats(chats)))
    put("prompt_text", _mean(counter.texts([rubrics.transcript(c) for c in chats])))
    put("candidate", spent["candidates"][0].tokens)
    pairs, mined = spent["pairs"][0], spent["mined"][0].n
    put("paired", pairs.n / mined if mined else None)
    put("chosen", pairs.chosen)
    put("rejected", pairs.rejected)
    put("judgement", (spent["judgements"][0].size or 0) / found.letters)
    answers = {r.suite: r.tokens for r in spent["answers"]}
    put("probed", answers.get("probe"))
    put("answered", answers.get("two-turn"))
    put("solved", answers.get("integers"))
    asked = then["prompts"]["requests"] * sum(r.n for r in spent["rounds"])
    rounds = {s.policy: s for s in spent["stages"] if s.name == "prompts"}
    if asked and spent["rounds"]:
        put("invention", sum(s.n_tokens for s in rounds.values()) / asked)
    sizes = found.sizes
    if sizes.requests.n and spent["rounds"]:
        mean = sum(r.n for r in spent["rounds"]) / len(spent["rounds"])
        share = min(1.0, mean / then["prompts"]["rounds"])
        sizes = replace(sizes, requests=Amount(sizes.requests.n * share, "measured"))
    return replace(found, sizes=sizes, texts=replace(found.texts, **told)), _seconds(spent, then)


def _seconds(spent: dict[str, list[Any]], then: dict[str, Any]) -> Seconds:
    """Candidates are the cleanest look at sampling, expected judging at reading, DPO at training."""

    def of(name: str, key: str) -> float:
        return float(sum(getattr(s, key) for s in spent["stages"] if s.name == name))

    expected = then["judge"]["mode"] == "expected" and then["rewards"][0]["type"] == "judge"
    return Seconds(
        of("candidates", "n_tokens"), of("candidates", "seconds"),
        int(of("judge", "n_done")) if expected else 0, of("judge", "seconds") if expected else 0.0,
        spent["trained"][0].n * float(then["training"]["epochs"]), of("train", "seconds"),
    )  # fmt: skip
