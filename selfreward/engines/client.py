"""The driver's side of an engine: starts the child, sends it blocks, and awaits its exit code.

It implements the `Engine` protocol by sending each call through the pipe. It imports nothing heavy. A child
that dies, hangs or runs out of memory is started anew and asked the same again: a block is decided by its
requests, whoever answers it. Threads may call a pool of workers at once, which answers whichever block is
done; one engine answers in the order of the calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from selfreward.engines import process
from selfreward.engines.meter import Meter
from selfreward.engines.post import Post
from selfreward.errors import BadInput, Interrupted, WorkFailed
from selfreward.files import check_room
from selfreward.protocols import Choice, Completion, Fault, Message, Request, Scored, TokenStat
from selfreward.stopping import GOES_ON, Stop

TRIES = 3  # failures in one place that stop the run
PATIENCE = 1800.0  # seconds without a sign of life; loading a large model gives none


class _Lost(Exception):
    """A child is gone without its answer; `memory` where it had said that it ran out of it."""

    def __init__(self, reason: str, *, memory: bool = False) -> None:
        super().__init__(reason)
        self.memory = memory


class EngineClient:
    """An engine in a child process; the child starts at the first call and is gone after `close`."""

    def __init__(
        self,
        kind: str,
        settings: dict[str, Any],
        log: Path,
        timed: Callable[[str, Callable[[], Any]], Any] | None = None,
        meter: Meter | None = None,
        *,
        stop: Stop | None = None,
        trouble: Callable[[str, str], None] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """`trouble` hears of every new start: `restart` or `memory`, and the reason."""
        self._kind, self._settings, self._log = kind, settings, log
        self._timed = timed or (lambda _, call: call())
        self._meter, self._stop = meter or Meter(), stop or Stop()
        self._trouble = trouble or (lambda kind, reason: None)
        self._patience, self._halvings = patience, 0
        self._child: process.Child | None = None
        self._post: Post | None = None

    @property
    def at_once(self) -> int:
        """Calls that keep the engine busy: one, and of a pool one for each worker and one that waits."""
        workers = int((self._settings.get("pool") or {}).get("workers", 0))
        return workers + 1 if workers else 1

    @cached_property
    def invariant(self) -> bool:
        """See `Engine.invariant`; the child says it."""
        return bool(self._ask("invariant", []))

    def generate(self, block: Sequence[Request]) -> list[Completion]:
        """See `Engine.generate`."""
        found: list[Completion] = self._call("generate", block)
        return found

    def stream(self, block: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """The completions of `generate` with their places, each as soon as the engine has finished it."""
        left, failures = dict(enumerate(block)), 0
        if left:
            self._check()
        while left:
            places = list(left)
            try:
                number = self._send("stream", [left[place] for place in places])
                while (reply := self._next_part(number))[0] != "ok":
                    place, failures = places[reply[1][0]], 0
                    del left[place]
                    yield place, reply[1][1]
                return
            except _Lost as lost:
                failures = self._start_again(lost, failures)

    def choice_logprobs(self, block: Sequence[Choice]) -> list[list[float] | Fault | None]:
        """See `Engine.choice_logprobs`."""
        found: list[list[float] | Fault | None] = self._call("choice_logprobs", block)
        return found

    def token_logprobs(self, block: Sequence[Scored]) -> list[list[float]]:
        """See `Engine.token_logprobs`."""
        found: list[list[float]] = self._call("token_logprobs", block)
        return found

    def token_stats(self, block: Sequence[Scored]) -> list[list[TokenStat]]:
        """The whole distribution at each given token; of the `transformers` engine alone."""
        found: list[list[TokenStat]] = self._call("token_stats", block)
        return found

    def rewards(self, chats: Sequence[Sequence[Message]]) -> list[float | None]:
        """A reward model's number for each chat that ends in an answer; None if it is too long."""
        found: list[float | None] = self._call("rewards", chats)
        return found

    def chat_ids(self, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
        """See `Engine.chat_ids`."""
        found: list[list[int]] = self._call("chat_ids", chats)
        return found

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """See `Engine.answer_ids`."""
        found: list[list[int]] = self._call("answer_ids", answers)
        return found

    def halve(self, times: int) -> None:
        """From now on `engine.batch` is halved that often; a child that works otherwise is ended."""
        if times != self._halvings:
            self.close()
            self._halvings = times

    def close(self) -> None:
        """Ends the child and waits until its memory is free.

        A child that does not end cleanly is an error.
        """
        if self._child is None:
            return
        child, self._child = self._child, None
        code = child.close()
        if code != 0:
            raise WorkFailed(
                f"the {self._kind} engine ended with code {code}: {child.log_tail()} (log: {child.log})"
            )

    def abandon(self) -> None:
        """Ends the child at once, whatever it was doing."""
        if self._child is not None:
            self._child.process.kill()
            self._child.close()
            self._child = None

    def _call(self, name: str, block: Sequence[Any]) -> Any:
        return self._timed(name, lambda: self._ask(name, block)) if block else []

    def _ask(self, name: str, block: Sequence[Any]) -> Any:
        if name in ("generate", "choice_logprobs"):  # what is stored block by block: a limit never loses work
            self._check()
        failures = 0
        while True:
            try:
                return self._reply(name, self._send(name, block))[1]
            except _Lost as lost:
                failures = self._start_again(lost, failures)

    def _check(self) -> None:
        """Before a block: what has begun is finished, what has not does not begin."""
        self._stop.check()
        self._meter.check()

    def _start_again(self, lost: _Lost, failures: int) -> int:
        """How many failures there have been in this place; raises where another try would be one too many."""
        if self._stop.asked:
            raise Interrupted(f"stopped by {self._stop.asked}; {GOES_ON}") from None
        if lost.memory:
            if self._batch() == 1:
                raise WorkFailed(f"{lost}: even one row at a time is too much; take a shorter or smaller one")
            self._halvings += 1
            self._trouble("memory", f"{lost}: going on with {self._batch()} rows at once")
            return failures
        check_room(self._log.parent)
        if (
            self.at_once > 1
        ):  # a pool mends itself; what ends it is told, and children start in the main thread
            raise WorkFailed(f"{lost}; run the same command again to go on")
        if failures + 1 == TRIES:
            again = f"; {TRIES} times in one place: run the same command again once it is mended"
            raise WorkFailed(f"{lost}{again}")
        self._trouble("restart", f"{lost}: started again")
        return failures + 1

    def _batch(self) -> int:
        """Rows at once as it stands; an engine without such a limit has 1."""
        return max(1, int(self._settings.get("batch", 1)) >> self._halvings)

    def _in_force(self) -> dict[str, Any]:
        """The child's settings; scoring is limited by tokens, which halve with the rows."""
        if not self._halvings:
            return self._settings
        halved = {"halvings": self._halvings} if self._kind == "transformers" else {}
        return self._settings | {"batch": self._batch()} | halved

    def start(self) -> None:
        """Starts the child where there is none, from the main thread: it dies with the thread it is of."""
        if self._child is None:
            arguments = [self._kind, json.dumps(self._in_force())]
            threads = self._settings.get("threads")
            self._child = process.start("selfreward.engines.child", arguments, self._log, threads)
            self._post = Post(self._child.pipe, None if self.at_once > 1 else self._patience)

    def _send(self, name: str, block: Sequence[Any]) -> int:
        self.start()
        assert self._post is not None
        try:
            return self._post.send(name, list(block))
        except OSError:
            raise self._lost(name) from None

    def _next_part(self, number: int) -> tuple[str, Any]:
        found: tuple[str, Any] = self._timed("generate", lambda: self._reply("stream", number))
        return found

    def _reply(self, name: str, number: int) -> tuple[str, Any]:
        """("ok", rows), or ("part", row) of a stream that goes on."""
        assert self._post is not None
        try:
            reply = self._post.reply(number)
        except EOFError:
            raise self._lost(name) from None
        except TimeoutError:
            raise self._lost(name, f"gave no sign of life for {self._patience:g} s") from None
        if reply[0] == "memory":
            raise self._lost(name, f"ran out of memory ({reply[1]})", memory=True)
        if reply[0] == "error":
            raise (BadInput if reply[2] == 3 else WorkFailed)(f"{self._kind} engine, {name}: {reply[1]}")
        if reply[0] == "ok" and reply[2] is not None:
            self._meter.add(*reply[2])
        return reply[0], reply[1]

    def _lost(self, name: str, reason: str | None = None, *, memory: bool = False) -> _Lost:
        """Ends the child; without a reason it had ended by itself."""
        child, self._child = self._child, None
        if child is None:  # another thread's call told it already
            return _Lost(f"the {self._kind} engine is gone")
        if reason is None:
            reason = f"died with code {child.close()}"
        else:
            child.process.kill()
            child.close()
        tail = "" if memory else f": {child.log_tail()}"
        return _Lost(f"the {self._kind} engine {reason} in {name}{tail} (log: {child.log})", memory=memory)
