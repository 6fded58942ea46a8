"""Self-instruct: the request that asks for new prompts, what is read from the reply, and the filters.

Pure. A prompt that is not taken keeps its reason; the same reply is read the same way whenever it is read.
Filters and near-duplicates follow Self-Instruct (arXiv 2212.10560, section 2.2), words and order of checks
are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rapidfuzz import process
from rapidfuzz.distance import Indel

_WORD = re.compile(r"[a-z0-9]+|[^\W_]")  # rouge-score's default tokens; letters of other scripts one by one
_ITEM = re.compile(r"^\s*(?:task\s*)?(\d{1,3})\s*[.):](?!\d)\s*(.*)$", re.IGNORECASE)


def request(template: str, tasks: Sequence[str], wanted: int) -> tuple[str, str]:
    """The user turn with the few-shot tasks as a numbered list, and the answer's opening: the next number."""
    listed = "\n".join(f"{i}. {' '.join(t.split())}" for i, t in enumerate(tasks, 1))
    values = {"tasks": listed, "wanted": str(wanted)}
    return re.sub(r"\{\{(tasks|wanted)\}\}", lambda m: values[m[1]], template).strip(), f"{len(tasks) + 1}."


def read(reply: str, opening: str, finished: bool, wanted: int) -> list[tuple[str, str | None]]:
    """A reply's tasks in order, each with the reason it cannot be one (`cut_off`) or None; at most `wanted`.

    The opening that was given is put back first, so that the first task has its number. Lines without a
    number continue the task above them only inside a list.
    """
    tasks: list[list[str]] = []
    for line in (opening + reply).splitlines():
        item = _ITEM.match(line)
        if item:
            tasks.append([_unnumbered(item[2])])
        elif tasks and not line.strip():
            tasks[-1].append("")
        elif tasks and tasks[-1][-1] != "":
            tasks[-1].append(line.strip())
    texts = [_unquoted(" ".join(part for part in t if part).strip()) for t in tasks]
    found: list[tuple[str, str | None]] = [(t, None) for t in texts if t]
    if found and not finished:
        found[-1] = (found[-1][0], "cut_off")
    return found[:wanted]


def _unnumbered(text: str) -> str:
    """A task without the numbers a model put before it a second time ("9. 1. Name a fruit.")."""
    while item := _ITEM.match(text):
        text = item[2]
    return text.strip()


def _unquoted(text: str) -> str:
    """A text that was put in quotation marks as a whole, without them."""
    whole = len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2
    return text[1:-1].strip() if whole else text


def form_fault(text: str, *, min_words: int, max_words: int, keywords: Iterable[str]) -> str | None:
    """Why a text by itself cannot be a prompt: `form`, `too_short`, `too_long`, `keyword`; or None."""
    if not text or not text[0].isalnum():
        return "form"
    n = len(text.split())
    if n < min_words:
        return "too_short"
    if n > max_words:
        return "too_long"
    banned = {k.lower() for k in keywords}
    return "keyword" if banned.intersection(re.findall(r"\w+", text.lower())) else None


class Neighbours:
    """Texts that a new one must not be too close to, by ROUGE-L F1 on word tokens.

    rapidfuzz's Indel similarity over token sequences is that number exactly: 2·LCS / (m + n).
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._ids: dict[str, int] = {}
        self._texts: list[list[int]] = []
        self._names: list[str] = []

    def add(self, text: str, name: str) -> None:
        """Adds a text under the name that a near-duplicate of it will be told."""
        self._texts.append(self._encode(text))
        self._names.append(name)

    def nearest(self, text: str) -> tuple[str, float] | None:
        """Name of the first text at or above the threshold and their similarity in 0..1, or None."""
        tokens = self._encode(text)
        if not tokens or not self._texts:
            return None
        found = process.extractOne(
            tokens,
            self._texts,
            scorer=Indel.normalized_similarity,
            processor=None,
            score_cutoff=self.threshold,
        )
        return (self._names[found[2]], float(found[1])) if found else None

    def _encode(self, text: str) -> list[int]:
        return [self._ids.setdefault(w, len(self._ids)) for w in _WORD.findall(text.lower())]


class SharedRuns:
    """Texts of which no run of `length` words may stand in a new one, word for word.

    13 is the length by which Brown et al. (2020, arXiv 2005.14165, appendix C) looked for test sets in
    training data. It finds a long question inside a longer prompt, where ROUGE-L of the whole is low; texts
    of fewer words hold no run and are left to `Neighbours`.
    """

    def __init__(self, length: int = 13) -> None:
        self.length = length
        self._names: dict[tuple[str, ...], str] = {}

    def add(self, text: str, name: str) -> None:
        """Adds a text under the name that a text sharing a run with it will be told."""
        for run in self._runs(text):
            self._names.setdefault(run, name)

    def shared(self, text: str) -> tuple[str, str] | None:
        """Name of a text that holds the first shared run, and the run itself, or None."""
        return next(((self._names[r], " ".join(r)) for r in self._runs(text) if r in self._names), None)

    def _runs(self, text: str) -> list[tuple[str, ...]]:
        words = _WORD.findall(text.lower())
        return [tuple(words[i : i + self.length]) for i in range(len(words) - self.length + 1)]
