"""A pool of engines: the child's calls shared out to Ray actors, each of which holds a whole engine.

Workers pull: one that is slow holds up nothing but its own block. A worker that dies or hangs loses its block
in flight, which another makes again; a block that ended three of them becomes faults. All of it is one loop
in one thread; nothing here knows chats from choices.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from selfreward.engines.cluster import Cluster, stay_here
from selfreward.engines.pool_worker import Worker, packed, versions
from selfreward.errors import BadInput, SelfRewardError, WorkFailed
from selfreward.protocols import Completion, Engine, Fault

DEATHS = 3  # workers a block may end before it is left
STARTS = 3  # workers in a row that may end while they load
LOOK = 0.05  # seconds between looks at the pipe while workers work
AGAIN = 30.0  # seconds between looks at the room a cluster has while nobody works in it
WHOLE = 4  # times the rows decoded at once: what a worker takes at most, so that little is lost with it
log = logging.getLogger(__name__)


@dataclass
class Asked:
    """A call of the driver: what has come of its rows, and whether it was answered by an error."""

    number: int
    call: str
    total: int
    found: dict[int, Any] = field(default_factory=dict)
    is_refused: bool = False


@dataclass
class Block:
    """A part of a call that one worker makes: the rows that are still missing, and who died of it."""

    of: Asked
    rows: dict[int, Any]
    deaths: list[str] = field(default_factory=list)


@dataclass
class Held:
    """A worker: its actor, what it has promised, and since when it has finished no row."""

    actor: Any
    promise: Any
    since: float
    block: Block | None = None
    home: str | None = None  # where it runs; None while it loads


class Refused(Exception):
    """What an engine said, on its way to the driver; `exit_code` is that of its own error."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Pool:
    """`workers` actors with `gpus` GPUs each; `rows` is what an engine decodes at once.

    `timeout` is seconds without a finished row after which a worker counts as hanging.
    """

    def __init__(
        self,
        kind: str,
        settings: dict[str, Any],
        *,
        workers: int,
        address: str | None,
        gpus: int,
        rows: int,
        timeout: float,
    ) -> None:
        stay_here(address)
        self._kind, self._settings = kind, settings
        self._workers, self._address, self._gpus = workers, address, gpus
        self._rows, self._timeout = rows, timeout
        self._cluster: Cluster | None = None
        self._local: Engine | None = None  # for what needs no weights
        self._held: list[Held] = []
        self._waiting: deque[Block] = deque()
        self._shipped: dict[str, tuple[str, Any]] = {}
        self._failed_starts = 0
        self._looked = 0.0  # when the room was last looked at

    def serve(self, pipe: Connection) -> None:
        """Answers the driver's calls as `engines.child` does, whichever is done first, till the pipe ends."""
        self._pipe = pipe
        try:
            while True:
                is_idle = not self._waiting and all(held.promise is None for held in self._held)
                if pipe.poll(None if is_idle else 0):
                    self._take(*pipe.recv())
                self._step()
        except EOFError:
            if self._cluster is not None:
                self._cluster.leave()

    def _take(self, number: int, call: str, block: list[Any]) -> None:
        """Answers at once what needs no worker; lays the rest out for those who pull."""
        asked = Asked(number, call, len(block))
        try:
            if call in ("invariant", "chat_ids", "answer_ids"):
                self._pipe.send((number, "ok", self._plain(call, block), None))
                return
            self._begin()
            for part in self._parts(asked, block):
                self._waiting.append(part)
        except Exception as error:
            self._refuse(asked, error)

    def _plain(self, call: str, block: list[Any]) -> Any:
        from selfreward.engines.kinds import open_engine

        if self._local is None:
            opened = open_engine(self._kind, self._settings)
            assert isinstance(opened, Engine)
            self._local = opened
        return self._local.invariant if call == "invariant" else getattr(self._local, call)(block)

    def _parts(self, asked: Asked, block: list[Any]) -> list[Block]:
        """An invariant engine's block stays whole, as its rows depend on each other's company."""
        rows = dict(enumerate(block))
        if self._plain("invariant", []):
            return [Block(asked, rows)]
        share = math.ceil(len(rows) / self._workers)
        size = max(self._rows, min(WHOLE * self._rows, share))
        places = list(rows)
        return [
            Block(asked, {k: rows[k] for k in places[start : start + size]})
            for start in range(0, len(places), size)
        ]

    def _begin(self) -> None:
        """Joins Ray and asks for all workers; those there is no room for come when there is."""
        if self._cluster is None:
            self._cluster = Cluster(self._address, self._threads * self._workers)
            self._look_for_room()
        while len(self._held) < self._workers:
            self._held.append(self._hire())

    def _look_for_room(self) -> None:
        """Raises `BadInput` where no node could ever hold a worker."""
        assert self._cluster is not None
        self._looked = time.monotonic()
        self._cluster.check_room(self._room)

    def _look_again(self) -> None:
        """Nobody works: the last node that was large enough may have gone, and waiting would have no end."""
        if time.monotonic() - self._looked > min(AGAIN, self._timeout):
            try:
                self._look_for_room()
            except BadInput as error:
                self._refuse_all(error)

    @property
    def _threads(self) -> int:
        return int(self._settings.get("threads") or 1)

    @property
    def _room(self) -> dict[str, float]:
        """What a worker takes of a node; on a node with GPUs its CPU threads are not counted."""
        assert self._cluster is not None
        return {"num_gpus": self._gpus, "num_cpus": 1} if self._cluster.gpus else {"num_cpus": self._threads}

    def _hire(self) -> Held:
        import ray

        made = ray.remote(**self._room, max_restarts=0, max_task_retries=0)(Worker)
        actor = made.remote(self._kind, self._settings)
        return Held(actor, actor.prepare.remote(versions()), time.monotonic())

    def _step(self) -> None:
        """Hands out what waits, and looks once at what workers have done."""
        import ray

        if self._held and not any(held.home for held in self._held):
            self._look_again()
        for held in self._held:
            if held.home and held.block is None and self._waiting:
                self._hand(held, self._waiting.popleft())
        busy = {held.promise: held for held in self._held if held.promise is not None}
        for promise in ray.wait(list(busy), timeout=LOOK)[0] if busy else []:
            self._hear(busy[promise])
        for held in list(self._held):
            if held.block is not None and time.monotonic() - held.since > self._timeout:
                self._lose(held, "worker_hung", f"finished no row in {self._timeout:g} s")

    def _hand(self, held: Held, block: Block) -> None:
        folders = {row.adapter for row in block.rows.values() if row.adapter is not None}
        shipped = {folder: self._ship(folder) for folder in folders}
        rows = [
            row if row.adapter is None else replace(row, adapter=shipped[row.adapter][0])
            for row in block.rows.values()
        ]
        held.block, held.since = block, time.monotonic()
        held.promise = held.actor.work.options(num_returns="streaming").remote(
            block.of.call, list(block.rows), rows, dict(shipped.values())
        )

    def _ship(self, folder: str) -> tuple[str, Any]:
        """An adapter's digest and its files in Ray's store, put there once."""
        import ray

        if folder not in self._shipped:
            digest, files = packed(Path(folder))
            self._shipped[folder] = digest, ray.put(files)
        return self._shipped[folder]

    def _hear(self, held: Held) -> None:
        """Takes in one thing a worker says."""
        import ray
        from ray.exceptions import RayError

        try:
            said = ray.get(held.promise if held.home is None else next(held.promise))
        except StopIteration:
            self._rest(held)
            return
        except RayError as error:
            why = str(error).strip().splitlines()[0]
            if held.home is None:
                self._lose_start(held, why)
            else:
                self._lose(held, "worker_died", why)
            return
        held.since = time.monotonic()
        self._learn(held, *said)

    def _learn(self, held: Held, kind: str, *said: Any) -> None:
        if kind == "ready":
            held.home, held.promise, self._failed_starts = said[0], None, 0
            log.warning("a worker is ready: %s", held.home)
        elif held.block is None:  # it could not load
            self._refuse_all(Refused(*said))
        elif kind == "rows":
            self._store(held.block, said[0])
        else:
            self._refuse(held.block.of, Refused(*said))

    def _rest(self, held: Held) -> None:
        """A worker has said all it will of its block, and waits for another."""
        block, held.block, held.promise = held.block, None, None
        if block is not None and block.rows:
            self._refuse(block.of, WorkFailed(f"a worker left {len(block.rows)} rows of a block unsaid"))

    def _store(self, block: Block, rows: Sequence[tuple[int, Any]]) -> None:
        """Rows on their way to the driver: a stream's at once, others' when all have come."""
        asked = block.of
        if asked.is_refused:
            block.rows.clear()
            return
        for place, row in rows:
            del block.rows[place]
            asked.found[place] = row
            if asked.call == "stream":
                self._pipe.send((asked.number, "part", (place, row)))
        if len(asked.found) == asked.total:
            whole = [] if asked.call == "stream" else [asked.found[k] for k in range(asked.total)]
            self._pipe.send((asked.number, "ok", whole, None))

    def _lose(self, held: Held, fault: str, why: str) -> None:
        """Another worker takes the place of one that died or hangs, and its block waits first in line."""
        block, where = held.block, held.home
        self._replace(held)
        log.warning("the worker on %s is lost: %s", where, why)
        if block is None or not block.rows or block.of.is_refused:
            return
        block.deaths.append(why)
        if len(block.deaths) < DEATHS:
            self._waiting.appendleft(block)
            return
        log.error("a block of %d ended %d workers and is left: %s", len(block.rows), DEATHS, why)
        try:
            self._store(block, [(place, _faulted(block.of.call, fault)) for place in block.rows])
        except WorkFailed as error:
            self._refuse(block.of, error)

    def _lose_start(self, held: Held, why: str) -> None:
        """A worker that ends while it loads: nobody's fault yet, unless all do."""
        self._failed_starts += 1
        log.warning("a worker ended while it loaded: %s", why)
        if self._failed_starts < STARTS:
            self._replace(held)
        else:
            self._refuse_all(WorkFailed(f"{STARTS} workers in a row ended while they loaded: {why}"))

    def _replace(self, held: Held) -> None:
        import ray

        ray.kill(held.actor)
        self._held[self._held.index(held)] = self._hire()

    def _refuse_all(self, error: Exception) -> None:
        """No worker can be had: every call ends with the reason, and the next one tries anew."""
        import ray

        calls = {id(b.of): b.of for b in [*self._waiting, *(h.block for h in self._held if h.block)]}
        for held in self._held:
            ray.kill(held.actor)
        self._held, self._failed_starts = [], 0
        self._waiting.clear()
        for asked in calls.values():
            self._refuse(asked, error)

    def _refuse(self, asked: Asked, error: Exception) -> None:
        """Ends a call with the reason; workers that are on it finish in vain."""
        if asked.is_refused:
            return
        asked.is_refused = True
        self._waiting = deque(b for b in self._waiting if b.of is not asked)
        log.error("%s: %s", asked.call, error, exc_info=error)
        code = error.exit_code if isinstance(error, SelfRewardError | Refused) else 4
        name = "" if isinstance(error, Refused) else f"{type(error).__name__}: "
        self._pipe.send((asked.number, "error", f"{name}{error}".splitlines()[0], code))


def _faulted(call: str, kind: str) -> Any:
    """What stands for a row that no worker lives to make."""
    match call:
        case "generate" | "stream":
            return Completion(None, fault=kind)
        case "choice_logprobs":
            return Fault(kind)
        case _:
            raise WorkFailed(f"{DEATHS} workers in a row were lost in {call} of one block ({kind})")
