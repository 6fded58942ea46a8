"""Signs of life: a child at work beats; a driver that hears nothing for long takes it for hung."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 1.0  # seconds between two beats at least: they cost nothing then


class Pulse:
    """Where beats go: nowhere until `to` names it."""

    def __init__(self) -> None:
        self._send: Callable[[], None] | None = None
        self._last = 0.0

    def to(self, send: Callable[[], None]) -> None:
        """From now on beats are sent by `send`, in the thread that works."""
        self._send = send

    def beat(self) -> None:
        """The work goes on: a token, a batch, a reply further."""
        if self._send is not None and time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self._send()


PULSE = Pulse()
