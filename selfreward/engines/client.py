"""The driver's side of an engine: starts the child, sends it blocks, and awaits its exit code.

It implements the `Engine` protocol by sending each call through the pipe. It imports nothing heavy. Threads
may call it at once: a pool of workers answers whichever block is done, one engine in the order of the calls.
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
from selfreward.errors import BadInput, WorkFailed
from selfreward.protocols import Choice, Completion, Fault, Message, Request, Scored, TokenStat


class EngineClient:
    """An engine in a child process; the child starts at the first call and is gone after `close`."""

    def __init__(
        self,
        kind: str,
        settings: dict[str, Any],
        log: Path,
        timed: Callable[[str, Callable[[], Any]], Any] | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._kind, self._settings, self._log = kind, settings, log
        self._timed = timed or (lambda _, call: call())
        self._meter = meter or Meter()
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
        if not block:
            return
        self._meter.check()
        number = self._send("stream", block)
        while True:
            kind, part = self._timed("generate", lambda: self._reply("stream", number))
            if kind == "ok":
                return
            yield part

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
            self._meter.check()
        return self._reply(name, self._send(name, block))[1]

    def start(self) -> None:
        """Starts the child where there is none, from the main thread: it dies with the thread it is of."""
        if self._child is None:
            arguments = [self._kind, json.dumps(self._settings)]
            threads = self._settings.get("threads")
            self._child = process.start("selfreward.engines.child", arguments, self._log, threads)
            self._post = Post(self._child.pipe)

    def _send(self, name: str, block: Sequence[Any]) -> int:
        self.start()
        assert self._post is not None
        try:
            return self._post.send(name, list(block))
        except OSError:
            raise self._died(name) from None

    def _reply(self, name: str, number: int) -> tuple[str, Any]:
        """("ok", rows), or ("part", row) of a stream that goes on."""
        assert self._post is not None
        try:
            reply = self._post.reply(number)
        except EOFError:
            raise self._died(name) from None
        if reply[0] == "error":
            raise (BadInput if reply[2] == 3 else WorkFailed)(f"{self._kind} engine, {name}: {reply[1]}")
        if reply[0] == "ok" and reply[2] is not None:
            self._meter.add(*reply[2])
        return reply[0], reply[1]

    def _died(self, name: str) -> WorkFailed:
        child, self._child = self._child, None
        if child is None:  # another thread's call told it already
            return WorkFailed(f"the {self._kind} engine is gone: run the same command again to go on")
        return WorkFailed(
            f"the {self._kind} engine died with code {child.process.wait()} in {name}: {child.log_tail()} "
            f"(log: {child.log}); run the same command again to go on"
        )
