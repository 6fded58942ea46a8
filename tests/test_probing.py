"""Gate 2: a new policy on the probe's prompts beside its parent and the start policy."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from selfreward.collapse import Probed, of_policy
from selfreward.collapse.limits import Finding
from selfreward.collapse.texts import Answers
from selfreward.stats import Interval
from tests.wording import answer, prompt

N = 64


def probed(seed: int, n: int = N, change: Callable[[str], str] = str) -> Probed:
    """A policy's answers to the first n prompts, each text changed."""
    draw = random.Random(seed)
    answers = [Answers(prompt(i), (change(answer(i, draw)),)) for i in range(n)]
    return Probed(answers, {prompt(i): 0.0 for i in range(n)})


def levels(
    now: Probed, parent: Probed | None, start: Probed | None, kl: Interval | None = None
) -> dict[str, Finding]:
    return {f.signal: f for f in of_policy(now, parent, start, kl)}


def halts(now: Probed, parent: Probed | None, start: Probed | None, kl: Interval | None = None) -> set[str]:
    return {name for name, f in levels(now, parent, start, kl).items() if f.level == "halt"}


def shortened(text: str) -> str:
    return " ".join(text.split()[:3])


def test_a_policy_like_its_parent_passes() -> None:
    found = of_policy(probed(3), probed(2), probed(1), Interval(0.05, 0.04, 0.06, N))
    assert {f.level for f in found} == {"ok"}


@pytest.mark.parametrize(
    ("sign", "change"),
    [
        ("shrink_ratio", shortened),
        ("length_ratio", lambda t: f"{t} {t.upper()} {t[::-1]}"),
        ("new_word", lambda t: f"certainly {t}"),
        ("loop_share", lambda t: f"{t} and on and on and on and on"),
        ("same_text", lambda t: "I cannot help with that."),
    ],
)
def test_what_a_training_broke_halts_beside_its_parent(sign: str, change: Callable[[str], str]) -> None:
    start = probed(1)
    assert sign in halts(probed(2, change=change), start, start)


def test_too_few_prompts_warn_and_say_so() -> None:
    found = levels(probed(2, 40, shortened), probed(1, 40), probed(1, 40))["shrink_ratio"]
    assert found.level == "warn" and "too few to tell: 40 of the 64 prompts" in found.message


def test_a_start_policy_may_change_its_style_but_not_loop() -> None:
    """SFT is there to change lengths; a policy that says one phrase over and over is no start."""
    base = probed(1)
    assert halts(probed(2, change=shortened), None, base) == set()
    assert halts(probed(2, change=lambda t: "on and on " * 9 + t), None, base) >= {"loop_share"}


def test_a_slow_slide_counts_from_the_start_policy() -> None:
    """Loops in 45 % of the answers are no worse than the parent's 45 %, and worse than the start's none."""

    def some(text: str) -> str:
        return f"{text} and on and on and on and on" if hash_of(text) % 20 < 12 else text

    def hash_of(text: str) -> int:
        return sum(map(ord, text))

    now, parent = probed(2, change=some), probed(2, change=some)
    assert levels(now, parent, parent)["loop_share"].level == "warn"
    assert "loop_share" in halts(now, parent, probed(1))


def test_a_token_limit_that_was_too_short_for_the_start_policy_says_nothing() -> None:
    start = probed(1)
    cut = replace(probed(2), cut=dict.fromkeys(start.cut, 1.0))
    assert "cut_share" in halts(cut, start, start)
    short = replace(start, cut={p: float(i % 2) for i, p in enumerate(start.cut)})
    assert "cut_share" not in levels(cut, short, short)


@pytest.mark.parametrize(
    ("kl", "level"),
    [
        (Interval(0.13, 0.08, 0.18, 64), "ok"),
        (Interval(0.5, 0.4, 0.6, 64), "warn"),
        (Interval(1.5, 0.9, 2.1, 64), "warn"),
        (Interval(1.5, 1.1, 1.9, 64), "halt"),
        (Interval(1.5, 1.1, 1.9, 31), "warn"),
    ],
)
def test_a_step_too_far_halts_when_its_whole_interval_is_beyond(kl: Interval, level: str) -> None:
    start = probed(1)
    assert levels(probed(2), start, start, kl)["kl_previous"].level == level


def test_a_reward_that_fell_on_held_out_prompts_halts_and_one_that_rose_does_not() -> None:
    """Scores 0, 1, 0, 1, … have mean ½ and a standard deviation of about ½: 0.4 lower is a fall of 0.8."""
    scores = {prompt(i): float(i % 2) for i in range(N)}
    lower = {p: v - 0.4 for p, v in scores.items()}
    now, start = replace(probed(2), rewards=lower), replace(probed(1), rewards=scores)
    found = levels(now, start, start)["reward_fall"]
    assert found.level == "halt" and found.value == pytest.approx(0.4 / 0.504, abs=0.01)
    assert levels(start, now, now)["reward_fall"].level == "ok"
    assert "reward_fall" not in levels(now, None, start)
