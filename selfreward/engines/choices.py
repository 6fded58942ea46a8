"""A closed list of next texts as paths of tokens, and what their log-probabilities mean; for every engine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfreward.engines.chat import Chat
from selfreward.protocols import Choice


@dataclass(frozen=True, slots=True)
class Step:
    """Where paths of a choice part: the tokens fed, and those that may come next after `before`."""

    place: int
    fed: list[int]
    before: tuple[int, ...]
    following: list[int]
    adapter: str | None


class Walk:
    """A block of choices for an engine that tells log-probabilities of listed next tokens.

    `steps` are what to ask; what is told of each goes to `learn`; `logprobs` is then `(n, n_choices)`, None
    for a chat that does not fit `context` with its longest choice.
    """

    def __init__(self, chat: Chat, block: Sequence[Choice], context: int) -> None:
        self._spelled = [spell(chat, c) for c in block]
        self._known: list[dict[tuple[int, ...], float] | None] = []
        self.steps: list[Step] = []
        for i, choice in enumerate(block):
            prompt = chat.ids(choice.messages, choice.opening)
            fits = len(prompt) + max(map(len, self._spelled[i])) <= context
            self._known.append({} if fits else None)
            for before, following in branches(self._spelled[i]).items() if fits else ():
                self.steps.append(Step(i, [*prompt, *before], before, following, choice.adapter))

    def learn(self, step: Step, told: Mapping[int, float]) -> None:
        """Log-probabilities of a step's `following` tokens."""
        known = self._known[step.place]
        assert known is not None
        known |= {(*step.before, token): told[token] for token in step.following}

    @property
    def logprobs(self) -> list[list[float] | None]:
        """One log-probability a choice, in nats."""
        return [
            None if known is None else without_longer([along(known, path) for path in spelled], spelled)
            for known, spelled in zip(self._known, self._spelled, strict=True)
        ]


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
