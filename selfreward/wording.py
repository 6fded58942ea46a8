"""Model text made fit to be looked at: what cannot be seen becomes visible, what differs is found.

Pure. It knows neither terminals nor pages: it says which parts of a text are what, and the doors how they
look.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

# Controls, directions and joiners, surrogates, private use; line and paragraph separators.
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # they shape Persian, Hindi and emoji; between ASCII they only hide
# A word, one sign of a script without spaces, a run of blanks, or one mark.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|\s+|[^\w\s]")
MAX_WORDS = 8000  # a side; comparing takes n*m/64 steps and n*m/8 bytes

Part = tuple[str, bool]


def is_unseen(char: str) -> bool:
    """Whether a character has no form of its own; line ends and tabs have one."""
    return char not in "\n\t" and unicodedata.category(char) in UNSEEN


def visible(text: str) -> str:
    """The text with every unseen character written as a backslash, a `u` and its code."""
    return "".join(f"\\u{ord(c):04x}" if is_unseen(c) else c for c in text)


def pieces(text: str) -> Iterator[Part]:
    """The text in order as (piece, False) and (one unseen character, True); joiners of other scripts stay."""
    start = 0
    for i, char in enumerate(text):
        if is_unseen(char) and not _is_shaping(text, i):
            if i > start:
                yield text[start:i], False
            yield char, True
            start = i + 1
    if start < len(text):
        yield text[start:], False


def spelled(text: str) -> str:
    """As `visible`, but joiners that shape a script or an emoji stay: for text that will be edited."""
    return "".join(visible(piece) if unseen else piece for piece, unseen in pieces(text))


def _is_shaping(text: str, i: int) -> bool:
    around = (text[i - 1 : i], text[i + 1 : i + 2])
    return text[i] in JOINERS and all(c and not c.isascii() and not is_unseen(c) for c in around)


def differences(left: str, right: str) -> tuple[list[Part], list[Part]] | None:
    """Both texts as (part, whether the other lacks it), by their longest common sequence of words.

    None when a text is too long to be compared.
    """
    from rapidfuzz.distance import LCSseq

    a, b = WORD.findall(left), WORD.findall(right)
    if max(len(a), len(b)) > MAX_WORDS:
        return None
    ours, theirs = [True] * len(a), [True] * len(b)
    for step in LCSseq.opcodes(a, b):
        if step.tag == "equal":
            ours[step.src_start : step.src_end] = [False] * (step.src_end - step.src_start)
            theirs[step.dest_start : step.dest_end] = [False] * (step.dest_end - step.dest_start)
    return _joined(a, ours), _joined(b, theirs)


def _joined(words: Sequence[str], marked: Sequence[bool]) -> list[Part]:
    """Neighbours of one kind as one part; a blank between two marked words is marked with them."""
    kinds = list(marked)
    for i in range(1, len(words) - 1):
        if words[i].isspace():
            kinds[i] = kinds[i - 1] and kinds[i + 1]
    found: list[Part] = []
    for word, kind in zip(words, kinds, strict=True):
        if found and found[-1][1] == kind:
            found[-1] = (found[-1][0] + word, kind)
        else:
            found.append((word, kind))
    return found


def plain_json(data: Any, *, allow_nan: bool = True) -> str:
    """JSON in ASCII, so that no control or direction mark in a model's text reaches a terminal."""
    return json.dumps(data, allow_nan=allow_nan).replace("\x7f", "\\u007f")
