"""The plan as plain data: what `--json` prints and the tables show."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfreward import budget, footprint
from selfreward.budget import Amount, Device, Load, Rates, Sizes, Texts
from selfreward.errors import BadInput, RecipeError
from selfreward.plan import gather as gathering
from selfreward.plan.count import Counter
from selfreward.plan.gather import Gathered, Seconds
from selfreward.plan.machine import config_of
from selfreward.recipe import Recipe
from selfreward.recipe_file import locate
from selfreward.shapes import DTYPE_BYTES, TARGETS, Shape, kv_bytes, lora_parameters, parameters, shape_of
from selfreward.training.order import shares

SAID = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")  # what a tokenizer saves beside
METRICS = 9  # numbers a training step leaves in the store


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says besides the recipe."""

    goal: int
    device: Device
    gpus: int
    config: Path | None
    throughput: dict[str, float]
    spent: dict[str, list[Any]] | None  # what an earlier run's store tells
    same_machine: bool  # its seconds are this machine's


def make(recipe: Recipe, file: Path, asked: Asked) -> dict[str, Any]:
    """Everything the plan says."""
    path, folder = config_of(recipe, file, asked.config)
    shape = _shape(path)
    counter = Counter(folder, _template(recipe, file), recipe.model.system)
    found = gathering.gather(recipe, file, counter, asked.goal)
    seconds = Seconds()
    if asked.spent is not None:
        found, seconds = gathering.measured(found, asked.spent, counter)
    dtype = recipe.model.dtype
    if dtype == "auto":
        dtype = "bfloat16" if asked.device.gpu else "float32"
    lora = lora_parameters(shape, recipe.training.lora.r, recipe.training.lora.targets)
    settings = _settings(recipe, found, asked, dtype)
    loads = budget.loads(found.sizes, found.texts)
    rates = _rates(recipe, shape, found, settings, asked, seconds)
    disk = _disk(recipe, found, shape, lora, folder, asked.goal)
    engine = _engine(recipe, shape, lora, settings, asked)
    dpo = footprint.training_bytes(shape, lora, settings)
    sft = footprint.training_bytes(shape, lora, settings, sft=True) if recipe.start.sft else {}
    return {
        "model": {
            "id": recipe.model.id, "family": shape.family, "parameters": parameters(shape), "dtype": dtype,
            "weights_bytes": parameters(shape) * DTYPE_BYTES[dtype], "lora_parameters": lora,
            "kv_bytes_per_token": kv_bytes(shape, DTYPE_BYTES[dtype]),
        },
        "device": dataclasses.asdict(asked.device) | {"gpus": asked.gpus},
        "lengths": {f.name: _amount(getattr(found.texts, f.name)) for f in dataclasses.fields(Texts)},
        "loads": [_load(x, rates) for x in loads],
        "iterations": {m: _load(budget.summed(_iteration(loads, m)), rates) for m in _turns(asked.goal)},
        "total": _load(budget.summed(loads), rates),
        "rates": {f.name: _amount(getattr(rates, f.name)) for f in dataclasses.fields(Rates)},
        "memory": {"engine": engine, "dpo": dpo, "sft": sft},
        "disk": disk,
        "changes": _changes(shape, lora, settings, asked, recipe),
        "disk_short": _short_of_disk(file, disk),
        "notes": _notes(recipe, shape, settings, asked, counter),
    }  # fmt: skip


def _shape(path: Path) -> Shape:
    try:
        return shape_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} describes no decoder: {error}") from None


def _template(recipe: Recipe, file: Path) -> str | None:
    from selfreward.engines.chat import PLAIN_TEMPLATE

    wanted = recipe.model.chat_template
    if wanted == "plain":
        return PLAIN_TEMPLATE
    return locate(file, wanted).read_text(encoding="utf-8") if wanted else None


def _settings(recipe: Recipe, found: Gathered, asked: Asked, dtype: str) -> footprint.Settings:
    """Longest rows: the longest prompt there is or may be, and an answer that uses its limit."""
    texts, judge = found.texts, recipe.judge
    training, sft, processes = recipe.training, recipe.start.sft, _processes(recipe, asked)
    answer = recipe.candidates.sampling.max_new_tokens
    rubric, judged = round(texts.judge.n), found.sizes.judging
    read = rubric + found.text_most + answer * (1 + (judged == "pairwise")) if judged else 0
    reply = judge.sampling.max_new_tokens if judged == "sampled" else 0
    rows = [found.prompt_most + answer, found.invite_most + recipe.prompts.sampling.max_new_tokens]
    return footprint.Settings(
        dtype=dtype,
        batch=recipe.engine.batch,
        longest=max([*rows, read + reply]),
        prompt=max(found.prompt_most, found.invite_most),
        scored=max(read, found.prompt_most),
        shared=rubric,
        micro_batch=max(1, min(training.micro_batch, training.batch // processes)),
        pair=min(recipe.training.max_length, found.prompt_most + answer),
        sft_micro_batch=max(1, min(sft.micro_batch, sft.batch // processes)) if sft else 1,
        example=found.example_most,
        checkpointing=recipe.training.gradient_checkpointing,
        processes=processes,
        gpu=asked.device.gpu,
    )


def _processes(recipe: Recipe, asked: Asked) -> int:
    """Trainers at once: as the recipe says, else one for each GPU."""
    return recipe.training.processes or max(1, asked.gpus)


def _rates(
    recipe: Recipe,
    shape: Shape,
    found: Gathered,
    settings: footprint.Settings,
    asked: Asked,
    seconds: Seconds,
) -> Rates:
    """As given, else as measured in the earlier run, else a guess from the device's peaks."""
    texts = found.texts
    width = DTYPE_BYTES[settings.dtype]
    tokens = texts.prompt.n + texts.candidate.n / 2
    rows = min(settings.batch, found.sizes.prompts * found.sizes.candidates)
    own = recipe.engine
    host = budget.VLLM_LAYER_SECONDS if own.type == "vllm" else budget.LAYER_SECONDS
    gpus = own.tensor_parallel if own.type == "vllm" else 1
    guess = budget.guessed_rates(shape, width, asked.device, rows, tokens, host, gpus)
    known = dataclasses.asdict(replace(guess, train=guess.train * settings.processes))
    if asked.same_machine:
        chat = texts.judge.n + texts.prompt_text.n + texts.candidate.n
        pair = 2 * texts.prompt.n + texts.chosen.n + texts.rejected.n
        measured = {
            "generate": (seconds.generated, seconds.generating),
            "prefill": (seconds.judged * chat, seconds.judging),
            "train": (seconds.pairs * pair, seconds.training),
        }
        known |= {k: {"n": n / s, "how": "measured"} for k, (n, s) in measured.items() if n and s}
    known |= {k: {"n": v, "how": "given"} for k, v in asked.throughput.items()}
    return Rates(**{k: Amount(v["n"], v["how"]) for k, v in known.items()})


def _vllm(recipe: Recipe, shape: Shape) -> footprint.Vllm:
    own = recipe.engine
    context = own.context or shape.context
    return footprint.Vllm(own.tensor_parallel, own.gpu_memory, own.kv_cache_gib, context)


def _engine(
    recipe: Recipe, shape: Shape, lora: int, settings: footprint.Settings, asked: Asked
) -> dict[str, float]:
    if recipe.engine.type == "vllm":
        return footprint.vllm_bytes(shape, lora, settings, _vllm(recipe, shape), asked.device.memory)
    return footprint.engine_bytes(shape, lora, settings)


def _turns(goal: int) -> list[str]:
    return [f"M{t}" for t in range(1, goal)]


def _iteration(loads: list[Load], policy: str) -> list[Load]:
    """The loads of the iteration of a policy: its data, and the making and measuring of the next one."""
    made, data = f"M{int(policy[1:]) + 1}", ("prompts", "candidates", "judge")
    return [x for x in loads if (x.policy == policy and x.stage in data)
            or (x.policy == made and x.stage in ("train", "probe", "evaluate"))]  # fmt: skip


def _disk(
    recipe: Recipe, found: Gathered, shape: Shape, lora: int, folder: Path | None, goal: int
) -> dict[str, float]:
    """Bytes a run leaves, and the checkpoints it holds for a while."""
    sizes, texts, sft = found.sizes, found.texts, recipe.start.sft
    tokenizer = sum((folder / n).stat().st_size for n in SAID if folder and (folder / n).is_file())
    adapted = [
        t for t in TARGETS if recipe.training.lora.targets == "auto" or t in recipe.training.lora.targets
    ]
    adapter = footprint.adapter_bytes(lora, 2 * len(adapted) * shape.layers, tokenizer)
    turns, candidates = sizes.iterations, sizes.prompts * sizes.candidates
    answers = sizes.probes + 2 * sizes.questions + sizes.problems
    graded = 2 * sizes.questions + sizes.problems
    steps = turns * sizes.prompts * texts.paired.n * sizes.epochs / recipe.training.batch
    steps += texts.sft_rows.n * sizes.sft_epochs / sft.batch if sft else 0
    rows = footprint.Rows(
        seeds=found.seeds,
        prompts=turns * (sizes.prompts + 2 * round(sizes.requests.n)),
        candidates=turns * candidates,
        judgements=turns * candidates * _verdicts(sizes),
        answers=(goal + 1) * answers,
        graded=(goal + 1) * graded,
        metrics=round(METRICS * steps) + 15 * (goal + 1),
        stages=7 * turns + 5,
        letters=found.letters,
    )
    return {
        "adapter": adapter,
        "adapters": adapter * (goal - (not sizes.adapted)),
        "checkpoints": footprint.CHECKPOINTS * footprint.checkpoint_bytes(lora),
        "store": footprint.store_bytes(rows, texts, sampled=sizes.judging == "sampled"),
    }


def _verdicts(sizes: Sizes) -> int:
    """Rows a candidate: its samples, or its comparisons with the scalar made of them."""
    return {"sampled": sizes.samples, "pairwise": sizes.candidates}.get(sizes.judging or "", 1)


def _changes(
    shape: Shape, lora: int, settings: footprint.Settings, asked: Asked, recipe: Recipe
) -> list[str]:
    """What does not fit, each with what to change."""
    memory = asked.device.memory
    if recipe.engine.type == "vllm":
        vllm = _vllm(recipe, shape)
        engine = footprint.vllm_advice(shape, lora, settings, vllm, memory, asked.gpus)
        if vllm.tensor_parallel > max(1, asked.gpus):
            engine = f"engine.tensor_parallel is {vllm.tensor_parallel}, there are {asked.gpus} GPUs"
    else:
        engine = footprint.engine_advice(shape, lora, settings, memory)
    told = [
        engine,
        footprint.training_advice(shape, lora, settings, memory, sft=True) if recipe.start.sft else None,
        footprint.training_advice(shape, lora, settings, memory),
    ]
    told += _uneven(recipe, asked)
    context = (recipe.engine.type == "vllm" and recipe.engine.context) or shape.context
    if context and max(settings.longest, settings.scored) > context:
        told.append(
            f"rows of up to {max(settings.longest, settings.scored)} tokens exceed the context of "
            f"{context}: such requests end as too_long. Lower max_new_tokens"
        )
    return [t for t in told if t]


def _uneven(recipe: Recipe, asked: Asked) -> list[str]:
    """Trainings whose steps the processes cannot share, or that ask for GPUs that are not there."""
    processes, told = _processes(recipe, asked), []
    if asked.gpus and processes > asked.gpus:
        told.append(f"training.processes is {processes}, there are {asked.gpus} GPUs: ask for fewer")
    sft = recipe.start.sft
    for name, section in (("start.sft", sft), ("training", recipe.training)):
        if section is None:
            continue
        try:
            shares(section.batch, section.micro_batch, processes)
        except BadInput as error:
            told.append(f"{name}: {error}")
    return told


def _short_of_disk(file: Path, disk: dict[str, float]) -> str | None:
    need = disk["adapters"] + disk["checkpoints"] + disk["store"]
    free = shutil.disk_usage(file.parent).free
    if free >= need:
        return None
    return f"the run needs {footprint.gib(need)} of disk, {file.parent} has {footprint.gib(free)} free"


def _notes(
    recipe: Recipe, shape: Shape, settings: footprint.Settings, asked: Asked, counter: Counter
) -> list[str]:
    """What the numbers rest on."""
    told = []
    if not shape.known:
        told.append(f"the family {shape.family!r} is counted like a Llama: a guess")
    if shape.experts:
        told.append("experts are not adapted: transformers 5 fuses them, LoRA trains attention alone")
    if counter.how == "guess":
        told.append("no tokenizer and chat template to count with: 4 bytes a token are taken, a guess")
    unknown = [t for t in recipe.training.lora.targets if t not in TARGETS]
    if recipe.training.lora.targets != "auto" and unknown:
        told.append(f"training.lora.targets: {', '.join(unknown)} is no linear layer this counts")
    if asked.device.gpu and not asked.device.known:
        told.append(f"{asked.device.name}: its speed is not known, an A100's is taken for guesses")
    if asked.gpus > 1:
        used = recipe.engine.tensor_parallel if recipe.engine.type == "vllm" else 1
        trains = _processes(recipe, asked)
        told.append(
            f"of {asked.gpus} GPUs the engine uses {used}, a training {trains}, each holding the base"
        )
    told.append("bounds take every limit as used; hours leave out the loading of models")
    return told


def _load(load: Load, rates: Rates) -> dict[str, Any]:
    sides = ("generated", "fed", "scored", "trained")
    found: dict[str, Any] = {s: _amount(getattr(load, s)) for s in sides}
    return (
        {"policy": load.policy, "stage": load.stage} | found | {"hours": _amount(budget.hours(load, rates))}
    )


def _amount(amount: Amount) -> dict[str, Any]:
    return {"n": amount.n, "how": amount.how}


def throughput(text: str | None) -> dict[str, float]:
    """`generate=…,prefill=…,train=…` in tokens a second. Raises `RecipeError` for anything else."""
    found: dict[str, float] = {}
    for part in (text or "").split(",") if text else []:
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if name.strip() not in ("generate", "prefill", "train") or not 0 < number < float("inf"):
            raise RecipeError(f"--throughput {part}: write generate=…,prefill=…,train=… in tokens a second")
        found[name.strip()] = number
    return found
