"""KL from samples: on a vocabulary of five words the exact number is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from selfreward.collapse import drift
from selfreward.stats import Interval

P, Q = np.array([0.5, 0.2, 0.15, 0.1, 0.05]), np.array([0.3, 0.3, 0.2, 0.1, 0.1])
EXACT = float((P * np.log(P / Q)).sum())  # KL[P ‖ Q], nats a token


def test_both_estimators_by_hand() -> None:
    """Log r = log(1/2) and log 2 on two tokens: k1 sums to 0; k3 is (½ − 1 + log 2) + (2 − 1 − log 2) = ½."""
    own, reference = [math.log(0.4), math.log(0.2)], [math.log(0.2), math.log(0.4)]
    assert drift.k1(own, reference) == pytest.approx(0.0)
    assert drift.k3(own, reference) == pytest.approx(0.5)


def test_k1_is_the_policy_over_the_reference_and_not_the_reverse() -> None:
    assert drift.k1([-1.0], [-3.0]) == 2.0


def test_k3_is_never_negative_and_never_overflows() -> None:
    assert drift.k3([-1.0], [-1.0]) == 0.0
    assert 0 < drift.k3([-5000.0], [-1.0]) < math.inf


@pytest.mark.parametrize("k", [drift.k1, drift.k3])
def test_means_are_within_two_standard_errors_of_the_exact_kl_and_intervals_cover(k: object) -> None:
    """1,000 probes of 64 answers of 3 to 19 tokens. 95 ± 2 % of the intervals hold the exact KL."""
    assert callable(k)
    draw = np.random.default_rng(5)
    tokens, answers, covered = [], [], [0, 0]
    for _ in range(1000):
        lengths = draw.integers(3, 20, 64)
        x = draw.choice(5, size=int(lengths.sum()), p=P)
        table = [k([math.log(P[i])], [math.log(Q[i])]) for i in range(5)]
        sums = np.add.reduceat(np.asarray(table)[x], np.r_[0, np.cumsum(lengths)[:-1]])
        per_token = drift.per_token(list(sums), [int(n) for n in lengths])
        per_answer = drift.per_answer(list(sums))
        tokens.append(per_token.value)
        answers.append(per_answer.value)
        covered[0] += per_token.low <= EXACT <= per_token.high
        covered[1] += per_answer.low <= 11 * EXACT <= per_answer.high
    for values, exact in ((tokens, EXACT), (answers, 11 * EXACT)):
        assert abs(np.mean(values) - exact) < 2 * np.std(values) / math.sqrt(len(values))
    assert all(0.93 <= c / 1000 <= 0.97 for c in covered)


def test_a_long_answer_weighs_by_its_tokens() -> None:
    """4 nats in 1 token and 0 in 3: 1 nat a token and 2 an answer."""
    assert drift.per_token([4.0, 0.0], [1, 3]).value == 1.0
    assert drift.per_answer([4.0, 0.0]).value == 2.0


def test_the_root_of_what_may_be_negative() -> None:
    assert drift.root(Interval(0.25, -0.1, 1.0, 9)) == Interval(0.5, 0.0, 1.0, 9)
