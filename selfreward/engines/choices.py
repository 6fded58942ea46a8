"""A closed list of next texts as paths of tokens, and what their log-probabilities mean; for every engine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from selfreward.engines.chat import Chat
from selfreward.protocols import Choice


def spell(chat: Chat, choice: Choice) -> list[list[int]]:
    """Token ids of each choice as they continue the opening."""
    opened = chat.encode(choice.opening)
    spelled = []
    for text in choice.choices:
        whole = chat.encode(choice.opening + text)
        if whole[: len(opened)] != opened:
            whole = opened + chat.encode(text)
        spelled.append(whole[len(opened) :])
    return spelled


def branches(choices: Iterable[list[int]]) -> dict[tuple[int, ...], list[int]]:
    """Where paths go on: the tokens that may come next, by what came before."""
    found: dict[tuple[int, ...], set[int]] = {}
    for path in choices:
        for k, token in enumerate(path):
            found.setdefault(tuple(path[:k]), set()).add(token)
    return {before: sorted(following) for before, following in found.items()}


def along(known: Mapping[tuple[int, ...], float], path: list[int]) -> float:
    """Log-probability of a path from those of its steps."""
    return math.fsum(known[tuple(path[: k + 1])] for k in range(len(path)))


def without_longer(logprobs: list[float], choices: list[list[int]]) -> list[float]:
    """Log-probabilities of the paths, less those of the longer paths they begin."""
    found = []
    for own, path in zip(logprobs, choices, strict=True):
        longer = [
            q for q, c in zip(logprobs, choices, strict=True) if len(c) > len(path) and c[: len(path)] == path
        ]
        left = math.exp(own) - math.fsum(math.exp(q) for q in longer)
        found.append(own if not longer else math.log(left) if left > 0 else -math.inf)
    return found


def longest(paths: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The paths that are not the beginning of another one."""
    known = sorted(set(paths))
    return [
        p for p, after in zip(known, [*known[1:], None], strict=True) if after is None or after[: len(p)] != p
    ]
