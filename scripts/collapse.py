"""`make collapse`: healthy runs and twelve planted collapses through the real loop; what is caught where.

With the tiny random policy (default: nine plants, minutes on two cores) or, `--policy demo`, with
SmolLM2-135M-Instruct and all twelve. A run counts as caught in time when a gate stops it before the training
after the one it began in; the table says at which stage and by which signs. Ends with code 1 when a healthy
run halts or fewer plants than `--at-least` are halted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from planted import NEEDS_WORDS, Place, Plant, PlantedEngine, Recipe, plants

from selfreward import loop, stats
from selfreward.engines.client import EngineClient
from selfreward.errors import SelfRewardError
from selfreward.files import models_folder, packaged
from selfreward.runs import open_work
from selfreward.stages import train
from selfreward.stages.work import Work

ORDER = ("sft", "prompts", "candidates", "judge", "pairs", "train", "probe", "evaluate")


@dataclass
class Quiet:
    """Progress for nobody, which tells a plant where the run is."""

    place: Place
    loud: bool

    def begin(self, policy: str, stage: str, done: int, total: int | None) -> None:
        """A stage starts."""
        self.place.policy, self.place.stage, self.place.replies = policy, stage, 0

    def advance(self, done: int, total: int | None, tokens: int) -> None:
        """Not shown."""

    def end(self, note: str) -> None:
        """Shown with `--loud`."""
        self.say(f"{self.place.policy} {self.place.stage}: {note}")

    def say(self, text: str) -> None:
        """Shown with `--loud`."""
        if self.loud:
            print(f"    {text}", flush=True)


@dataclass
class PlantedWork(Work):
    """A run whose engine is shared by all runs and may be planted with a collapse."""

    shared: Any = None

    @property
    def engine(self) -> Any:
        """The one engine child of all runs: they have the same base and settings."""
        return self.shared

    def close_engine(self) -> None:
        """It is kept for the next run."""

    def abandon_engine(self) -> None:
        """It is kept for the next run."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: the stage and signs of the halt, or where it stands; all warnings."""

    halted: str | None
    signs: tuple[str, ...]
    warned: tuple[str, ...]
    seconds: float
    error: str


def main() -> None:
    """Runs what was asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--policy", choices=("tiny", "demo"), default="tiny")
    parser.add_argument("--only", nargs="*", help="names of plants, or `healthy`; parts of names will do")
    parser.add_argument("--healthy", type=int, default=8, help="healthy runs")
    parser.add_argument("--at-least", type=int, default=12, help="plants that must halt, if so many are run")
    parser.add_argument("--keep", type=Path, help="leave the runs in this folder")
    parser.add_argument("--loud", action="store_true")
    arguments = parser.parse_args()
    home = arguments.keep or Path(tempfile.mkdtemp(prefix="collapse-"))
    home.mkdir(parents=True, exist_ok=True)
    try:
        sound = bench(home, arguments)
    finally:
        if not arguments.keep:
            shutil.rmtree(home, ignore_errors=True)
    sys.exit(0 if sound else 1)


def bench(home: Path, arguments: argparse.Namespace) -> bool:
    """All runs with one engine child; whether what must halt has, and nothing else."""
    model, recipe = prepared(home, arguments.policy)
    lines = packaged("prove/train.jsonl").read_text(encoding="utf-8").splitlines()
    varied = [json.loads(x)["prompt"] for x in lines]
    there = [p for p in plants(varied, recipe) if arguments.policy == "demo" or p.name not in NEEDS_WORDS]
    wanted = [p for p in there if _is_wanted(p.name, arguments.only)]
    sick, well = list[tuple[Plant, Ended]](), list[Ended]()
    with engine_of(model, home) as engine:
        for plant in wanted:
            ended = run(home, model, recipe, plant, engine, arguments.loud)
            sick.append((plant, ended))
            print(f"{plant.name:<32} begins {plant.begins:<14} {_told(ended)}", flush=True)
        for n in range(arguments.healthy if _is_wanted("healthy", arguments.only) else 0):
            plant = Plant(f"healthy {n}", "-", varied_recipe(n), goal="M3")
            well.append(run(home, model, recipe, plant, engine, arguments.loud))
            print(f"{plant.name:<32} {'':<21} {_told(well[-1])}", flush=True)
    return verdict(sick, well, arguments)


def verdict(
    sick: Sequence[tuple[Plant, Ended]], well: Sequence[Ended], arguments: argparse.Namespace
) -> bool:
    """The last lines: how many were caught, how many in time, how many healthy runs were stopped."""
    halted = [(p, e) for p, e in sick if e.halted]
    early = [p.name for p, e in halted if in_time(p.begins, e.halted or "")]
    print(f"\nplanted: {len(halted)} of {len(sick)} halted, {len(early)} before another training was spent")
    stopped = sum(e.halted is not None or bool(e.error) for e in well)
    if well:
        share = stats.share(stopped, len(well))
        print(f"healthy: {stopped} of {len(well)} halted [{share.low:.1%}, {share.high:.1%}]")
    return stopped == 0 and len(halted) >= min(arguments.at_least, len(sick))


def in_time(begins: str, halted: str) -> bool:
    """Whether no training came between beginning and halt, the one it began in left out."""
    start, end = _hour(begins), _hour(halted)
    return not any(start < _hour(f"M{idx}/train") < end for idx in range(2, 9))


def _hour(place: str) -> int:
    """The place of a stage in a run: what M2 is made and measured with belongs to the iteration of M1."""
    policy, stage = place.split("/")
    made = stage in ("sft", "train", "probe", "evaluate")
    return (int(policy[1:]) - made) * 10 + ORDER.index(stage)


def _is_wanted(name: str, only: Sequence[str] | None) -> bool:
    return only is None or any(o in name for o in only)


def _told(ended: Ended) -> str:
    if ended.halted:
        return f"halted at {ended.halted:<10} by {', '.join(ended.signs)} ({ended.seconds:.0f} s)"
    told = f"went through ({ended.seconds:.0f} s)" if not ended.error else f"FAILED: {ended.error}"
    return told + (f"; warned: {', '.join(ended.warned)}" if ended.warned else "")


def prepared(home: Path, policy: str) -> tuple[Path, Recipe]:
    """The policy's folder and the healthy recipe at its size."""
    if policy == "demo":
        return models_folder() / "smollm2-135m-instruct", recipe_of(
            count=64, tokens=48, lr=5e-5, threads=None
        )
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.conftest import make_tiny_policy

    # A random policy leaves a quarter of its answers empty from the start: its recipe says that this is so.
    empty = {"limits": {"no_text": {"warn": 0.9, "halt": 0.99}}}
    recipe = recipe_of(count=80, tokens=32, lr=5e-4, threads=1)
    return make_tiny_policy(home / "tiny"), recipe | {"gate": empty}


def recipe_of(count: int, tokens: int, lr: float, threads: int | None) -> Recipe:
    """A healthy recipe of which `count` prompts are answered, four times each."""
    return {
        "engine": {"batch": 64, "block": 16, "threads": threads},
        "start": {"sft": None},
        "prompts": {"from": str(packaged("prove/train.jsonl")), "count": count},
        "candidates": {"n": 4, "sampling": {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": tokens}},
        "judge": {"mode": "expected"},
        "training": {
            "lr": lr,
            "batch": 8,
            "micro_batch": 8,
            "save_steps": 1000,
            "max_length": 512,
            "lora": {"r": 8},
        },
        "probe": {"count": 64, "max_new_tokens": tokens},
        "evaluate": None,
    }


def varied_recipe(n: int) -> Callable[[Recipe], Recipe]:
    """Healthy runs differ in seed, size, reward and rates."""
    rule = [{"type": "length", "low": 2, "best": 6, "high": 30}]

    def change(recipe: Recipe) -> Recipe:
        found = recipe | {"seed": n}
        found["prompts"] = recipe["prompts"] | {"count": recipe["prompts"]["count"] + 16 * (n % 3)}
        found["training"] = recipe["training"] | {"lr": recipe["training"]["lr"] * (1, 2, 0.5, 1)[n % 4]}
        return found | ({"rewards": rule} if n % 2 else {})

    return change


@contextmanager
def engine_of(model: Path, home: Path) -> Iterator[EngineClient]:
    """The engine child of all runs."""
    threads = 1 if model.name == "tiny" else 2
    settings = {"model": str(model), "chat_template": None, "system": None, "dtype": "float32", "batch": 64}
    client = EngineClient("transformers", settings | {"threads": threads}, home / "engine.log")
    try:
        yield client
    finally:
        client.close()


def run(home: Path, model: Path, recipe: Recipe, plant: Plant, engine: Any, loud: bool) -> Ended:
    """One run to its end, and what its store says of it."""
    place, begun = Place(), time.monotonic()
    file = home / f"{plant.name.replace(' ', '-').replace('=', 'is')}.yaml"
    for name, text in plant.files.items():
        (home / name).write_text(text, encoding="utf-8")
    file.write_text(yaml.safe_dump({"model": str(model)} | plant.recipe(recipe)), encoding="utf-8")
    error = ""
    with open_work(file, [], Quiet(place, loud)) as opened:
        told = {f.name: getattr(opened, f.name) for f in dataclasses.fields(Work) if f.init}
        work = PlantedWork(**told, shared=PlantedEngine(engine, plant, place))
        try:
            with flipped() if plant.flipped else unchanged():
                loop.iterate(work, None, plant.goal)
        except SelfRewardError as stopped:
            error = str(stopped)
        return ended(work, error, time.monotonic() - begun)


def ended(work: Work, error: str, seconds: float) -> Ended:
    """The first halt by the order of stages; an error without one is a failure."""
    alarms = work.store.alarms(work.run.id)
    halts = sorted((a for a in alarms if a.level == "halt"), key=lambda a: _hour(f"{a.policy}/{a.stage}"))
    where = f"{halts[0].policy}/{halts[0].stage}" if halts else None
    signs = tuple(a.signal for a in halts if f"{a.policy}/{a.stage}" == where)
    warned = tuple(sorted({a.signal for a in alarms if a.level == "warn"}))
    return Ended(where, signs, warned, seconds, "" if halts else error)


@contextmanager
def flipped() -> Iterator[None]:
    """Trainings read every pair the wrong way round, as published code once did."""
    before = train._pair_rows

    def swapped(*arguments: Any) -> Any:
        return [
            (record, row | {"chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]})
            for record, row in before(*arguments)
        ]

    train._pair_rows = swapped
    try:
        yield
    finally:
        train._pair_rows = before


@contextmanager
def unchanged() -> Iterator[None]:
    """As it is."""
    yield


if __name__ == "__main__":
    main()
