"""A run that is asked to stop: what is in hand is finished within a grace, and nothing new is begun."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from selfreward.errors import Interrupted

GRACE = 30  # seconds to finish a block or save a checkpoint; Slurm gives as many between SIGTERM and SIGKILL
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # USR1: Slurm's warning that the time is nearly up
GOES_ON = "the same command goes on from there"


@dataclass
class Stop:
    """Whether the run was asked to stop, and by which signal."""

    asked: str | None = None

    def check(self) -> None:
        """Between two pieces of work: raises `Interrupted` once the run was asked to stop."""
        if self.asked:
            raise Interrupted(f"stopped by {self.asked}, everything so far is stored; {GOES_ON}")


@contextmanager
def on_signals(say: Callable[[str], object]) -> Iterator[Stop]:
    """The first signal asks and is answered by `say`; a second SIGINT or the end of the grace stops at once.

    Others sent again change nothing: supervisors repeat them. A process that was asked is on its way out, and
    ignores Ctrl-C in its last moments: that would end an orderly stop with a traceback.
    """
    stop = Stop()

    def handle(number: int, _: Any) -> None:
        name = signal.Signals(number).name
        if stop.asked is None:
            stop.asked = name
            signal.alarm(GRACE)
            say(f"{name}: finishing what is in hand, for {GRACE} s at most; Ctrl-C stops at once")
        elif number == signal.SIGINT:
            signal.alarm(0)
            raise Interrupted("stopped at once; what was not yet stored is made again by the same command")

    def late(*_: Any) -> None:
        raise Interrupted(
            f"stopped by {stop.asked}, {GRACE} s later inside a block; it is made again by the same command"
        )

    before = {s: signal.signal(s, handle) for s in SIGNALS} | {
        signal.SIGALRM: signal.signal(signal.SIGALRM, late)
    }
    try:
        yield stop
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
        if stop.asked:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
