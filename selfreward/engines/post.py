"""Several calls at once over one pipe: whoever waits reads for all, and hands on what is another's."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict, deque
from multiprocessing.connection import Connection
from typing import Any


class Post:
    """Numbered calls out, numbered replies in; any thread may send, and waits for the replies of its number.

    Raises `EOFError` in all who wait when the other side is gone.
    """

    def __init__(self, pipe: Connection, patience: float | None = None) -> None:
        """`patience`: seconds without a letter, or a beat, after which `reply` raises `TimeoutError`."""
        self._pipe, self._patience = pipe, patience
        self._numbers = itertools.count()
        self._sending = threading.Lock()
        self._turn = threading.Condition()
        self._is_read = False  # by one of those who wait
        self._ended = False
        self._come: defaultdict[int, deque[tuple[Any, ...]]] = defaultdict(deque)

    def send(self, *letter: Any) -> int:
        """Sends a call off and returns its number."""
        with self._sending:
            number = next(self._numbers)
            self._pipe.send((number, *letter))
        return number

    def reply(self, number: int) -> tuple[Any, ...]:
        """The next reply to a call, waited for."""
        with self._turn:
            while not self._come[number]:
                if self._ended:
                    raise EOFError
                if self._is_read:
                    self._turn.wait()
                else:
                    self._read_one()
            found = self._come[number].popleft()
            if not self._come[number]:
                del self._come[number]
            return found

    def _read_one(self) -> None:
        """Reads while others may look at what has come; called, and left, with the turn held."""
        self._is_read = True
        self._turn.release()
        letter: tuple[Any, ...] | None = None
        silent = False
        try:
            silent = self._patience is not None and not self._pipe.poll(self._patience)
            letter = None if silent else self._pipe.recv()
        except (EOFError, OSError):
            pass
        finally:
            self._turn.acquire()
            self._is_read = False
            self._turn.notify_all()
        if silent:
            raise TimeoutError
        if letter is None:
            self._ended = True
        elif letter[1] != "beat":
            self._come[letter[0]].append(letter[1:])
