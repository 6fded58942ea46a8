"""The watch over a training: the trainer's own numbers held against their levels."""

from __future__ import annotations

from typing import Any

import pytest

from selfreward.collapse.limits import Finding
from selfreward.collapse.training import TrainingWatch

BATCH, BETA = 8, 0.1


def line(step: int, **changes: Any) -> dict[str, Any]:
    """A step of a healthy training: the reward of the chosen side is β times its gain in log-probability."""
    return {
        "step": step, "margin": 0.5, "accuracy": 1.0, "reward_chosen": 0.05, "chosen_tokens": 40.0,
        "grad_norm": 1.0,
    } | changes  # fmt: skip


def after(*lines: dict[str, Any]) -> dict[str, Finding]:
    watch, found = TrainingWatch(BATCH, BETA), list[Finding]()
    for x in lines:
        found = watch.add(x)
    return {f.signal: f for f in found}


def drift(value: float, low: float, high: float, n: int = 16) -> dict[str, Any]:
    return {"drift": {"value": value, "low": low, "high": high, "n": n}}


def test_a_healthy_training_raises_nothing() -> None:
    found = after(*(line(i, **drift(0.02, 0.01, 0.03)) for i in range(1, 21)))
    assert {f.level for f in found.values()} == {"ok"}
    assert set(found) == {"train_drift", "chosen_fall", "train_margin", "gradient_ratio"}


def test_chosen_answers_that_are_unlearnt_halt_once_every_pair_is_won() -> None:
    """−8 of reward at β = 0.1 is 80 nats lost over 40 tokens: 2 nats a token, on 8 steps of 8 pairs."""
    lost = [line(i, reward_chosen=-8.0 - 0.01 * i) for i in range(1, 9)]
    found = after(*lost)["chosen_fall"]
    assert found.level == "halt" and found.value == pytest.approx(2.0, abs=0.03) and found.n == 64
    assert after(*lost[:7])["chosen_fall"].level == "warn"  # 56 pairs are too few to tell
    unsure = [x | {"accuracy": 0.9} for x in lost]
    assert "chosen_fall" not in after(*unsure)


def test_only_the_last_pairs_count() -> None:
    early = [line(i, reward_chosen=-8.0) for i in range(1, 9)]
    assert after(*early, *(line(i) for i in range(9, 17)))["chosen_fall"].level == "ok"


@pytest.mark.parametrize(
    ("found", "level"),
    [(drift(0.05, 0.01, 0.09), "ok"), (drift(0.5, 0.4, 0.6), "warn"), (drift(2.0, 0.5, 3.5), "warn"),
     (drift(2.0, 1.5, 2.5), "halt"), (drift(2.0, 1.5, 2.5, n=6), "warn")],
)  # fmt: skip
def test_fixed_texts_that_became_unlikely_halt(found: dict[str, Any], level: str) -> None:
    assert after(line(1, **found), line(2))["train_drift"].level == level  # a look holds until the next


def test_margins_and_gradients_warn_alone_and_halt_with_a_third_sign() -> None:
    """A margin of 10 at β·Δ leaves a loss of 4.5e-5: there is nothing left to learn from these pairs."""
    steps = [line(i, margin=12.0 + 0.01 * i) for i in range(1, 12)] + [line(12, margin=12.0, grad_norm=30.0)]
    found = after(*steps)
    assert (found["train_margin"].level, found["gradient_ratio"].level) == ("warn", "warn")
    assert "several" not in found
    both = after(*(x | drift(0.5, 0.4, 0.6) for x in steps))
    assert both["several"].level == "halt"


def test_a_watch_knows_where_it_stands() -> None:
    watch = TrainingWatch(BATCH, BETA)
    assert watch.seen == 0
    watch.add(line(3))
    assert watch.seen == 3
