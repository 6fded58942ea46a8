"""Reviewing pairs at a terminal, a key a verdict."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfreward.errors import BadInput
from selfreward.show.console import console, safe
from selfreward.show.pair import pair as show_pair
from selfreward.store import Glances, PairFilter, Reviews
from selfreward.store.finding import Key
from selfreward.wording import spelled

KEYS = "a keep   d drop   n note, then a or d   j next   k previous   q leave"


def review(path: Path, wanted: PairFilter) -> None:
    """Shows the pairs of a filter one by one and stores what the person at the keys thinks of them."""
    if not (sys.stdin.isatty() and console.is_terminal):
        raise BadInput(
            "pairs review reads keys from a terminal, and this is none: "
            "review in the browser with `selfreward ui`"
        )
    views, reviews = Glances(path, write=False), Reviews(path)
    try:
        with _keys(single=True):
            _walk(views, reviews, wanted)
    finally:
        views.close()
        reviews.close()


def _walk(views: Glances, reviews: Reviews, wanted: PairFilter) -> None:
    here = _beside(views, wanted, None, False)
    if here is None:
        console.print("No pair fits: `selfreward pairs list` shows what there is.")
        return
    given = {"keep": 0, "drop": 0}
    note: str | None = None
    while True:
        found = views.pair(here.id)
        if found is None:
            raise BadInput("the pairs were mined anew meanwhile: start `selfreward pairs review` again")
        console.clear()
        show_pair(found)
        console.print(f"\n{KEYS}", style="bold")
        if note is not None:
            console.print(safe(f"note for the verdict: {note}"))
        match _key():
            case "a" | "d" as key:
                said = "keep" if key == "a" else "drop"
                reviews.put(here.id, said, note if note is not None else found["pair"].review_note)
                given[said] += 1
                there = _beside(views, wanted, here, False)
            case "j" | " " | "\r" | "\n":
                there = _beside(views, wanted, here, False)
            case "k":
                there = _beside(views, wanted, here, True) or here
            case "n":
                with _keys(single=False):
                    note = spelled(console.input("note: ").strip())
                continue
            case "q" | "\x1b" | "\x04":
                there = None
            case _:
                continue
        note = None
        if there is None:
            console.print(
                f"{given['keep']} kept, {given['drop']} dropped. They count from the next training; "
                "`selfreward report --html FILE` makes one file of it all to send."
            )
            return
        here = there


def _beside(views: Glances, wanted: PairFilter, here: Key | None, backwards: bool) -> Key | None:
    rows = views.page(wanted, 1, after=here, backwards=backwards).rows
    return Key(float(rows[0].margin), int(rows[0].id)) if rows else None


@contextmanager
def _keys(single: bool) -> Iterator[None]:
    """Keys one by one without Enter and echo, or (`single` false) lines as usual; afterwards as it was."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        if single:
            tty.setcbreak(descriptor, termios.TCSADRAIN)
        else:
            changed = termios.tcgetattr(descriptor)
            changed[3] |= termios.ICANON | termios.ECHO
            termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key() -> str:
    """The next key; the end of the input is `q`."""
    return os.read(sys.stdin.fileno(), 1).decode("ascii", "replace") or "q"
