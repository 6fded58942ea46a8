"""What a command may spend on a server, and what it has spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from selfreward.errors import Interrupted


@dataclass
class Meter:
    """Limits of one command, None where there is none: `hours` of it, `requests` sent, `tokens` in and out.

    Requests are counted with every try, tokens as the server counts them.
    """

    hours: float | None = None
    requests: int | None = None
    tokens: int | None = None
    clock: Callable[[], float] = time.monotonic  # seconds
    spent: dict[str, int] = field(default_factory=lambda: {"requests": 0, "tokens": 0})
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self._begun = self.clock()

    @property
    def limited(self) -> bool:
        """Whether anything is limited."""
        return not self.hours is self.requests is self.tokens is None

    def add(self, requests: int, tokens: int) -> None:
        """Counts what a block took."""
        self.spent["requests"] += requests
        self.spent["tokens"] += tokens

    def check(self) -> None:
        """Before a block: raises `Interrupted` where a limit is reached; what has begun is finished."""
        now = {"hours": (self.clock() - self._begun) / 3600} | self.spent
        for name, most in (("hours", self.hours), ("requests", self.requests), ("tokens", self.tokens)):
            if most is not None and now[name] >= most:
                raise Interrupted(
                    f"engine.limits.{name} = {most:g} is reached after {self.spent['requests']} requests and "
                    f"{self.spent['tokens']} tokens: the same command goes on, with as much again"
                )
