"""The gates: what stops a run, with its reason; nothing broken passes as `ok`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from selfreward.collapse import Finding, after_pairs, after_probe


def probe(
    texts: Sequence[str] = ("yes", "no"),
    kl: float | None = 0.1,
    gap: float | None = 0.001,
    moved: float | None = 0.5,
    noise: float = 0.001,
) -> dict[str, Finding]:
    found = after_probe("M2", texts=texts, kl=kl, proof_gap=gap, moved=moved, noise=noise)
    assert len({f.signal for f in found}) == len(found)
    return {f.signal: f for f in found}


def halts(found: dict[str, Finding]) -> set[str]:
    return {name for name, f in found.items() if f.level == "halt"}


def test_an_iteration_without_pairs_is_stopped_with_its_reasons() -> None:
    (found,) = after_pairs("M1", {"tie": 20, "truncated": 4})
    assert (found.level, found.value) == ("halt", 0.0)
    assert found.message.startswith("M1 has no pairs: of 24 prompts 20 tie, 4 truncated. ")


@pytest.mark.parametrize(
    ("outcome", "move"),
    [
        ("tie", "judge.mode: expected"),
        ("below_margin", "pairs.min_margin"),
        ("truncated", "max_new_tokens"),
        ("too_few_scores", "too_few_scores"),
        ("identical_text", "temperature"),
        ("filtered", "pairs stats"),
    ],
)
def test_the_next_move_follows_from_the_commonest_reason(outcome: str, move: str) -> None:
    (found,) = after_pairs("M1", {"dropped_by_review": 1, outcome: 3})
    assert move in found.message.split(". ", 1)[1]


def test_an_iteration_without_prompts_is_stopped_too() -> None:
    (found,) = after_pairs("M1", {})
    assert found.level == "halt" and "of 0 prompts none was mined" in found.message


def test_one_pair_is_enough_to_go_on() -> None:
    (found,) = after_pairs("M1", {"tie": 23, "pair": 1})
    assert (found.level, found.value, found.message) == ("ok", 1.0, "1 of 24 prompts made a pair")


def test_a_sound_policy_passes() -> None:
    assert halts(probe()) == set()


@pytest.mark.parametrize("texts", [["Yes.", "Yes.", " Yes.\n"], ["", "", ""]])
def test_one_text_for_all_prompts_is_collapse(texts: list[str]) -> None:
    assert halts(probe(texts)) == {"one_text"}


def test_a_policy_with_no_readable_answer_at_all_does_not_pass() -> None:
    assert halts(probe([])) == {"one_text"}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_stops_the_run(bad: float) -> None:
    assert halts(probe(kl=bad)) == {"kl_previous"}
    assert "moved" in halts(probe(moved=bad))
    assert "proof_gap" in halts(probe(gap=bad))


def test_the_base_was_not_trained_and_need_not_have_moved() -> None:
    assert set(probe(kl=None, gap=None, moved=None)) == {"one_text"}


def test_an_engine_that_serves_the_parent_is_stopped() -> None:
    """Guards: generation that ignores the trained policy and always uses one fixed model.

    The trainer moved by 0.3: an engine without the adapter is 0.3 from the trainer and 0 from the parent.
    """
    assert halts(probe(gap=0.3, moved=0.0)) == {"proof_gap", "moved"}


def test_engine_and_trainer_must_agree_within_five_times_the_noise() -> None:
    """Noise 0.001: 0.004 agrees, 0.006 does not."""
    assert halts(probe(gap=0.004)) == set()
    assert halts(probe(gap=0.006)) == {"proof_gap"}


def test_a_policy_must_move_more_than_five_times_what_engine_and_trainer_differ_by() -> None:
    """Gap 0.004 above noise 0.001: the bar is 0.02."""
    assert probe(gap=0.004, moved=0.021)["moved"].level == "ok"
    stopped = probe(gap=0.004, moved=0.019)["moved"]
    assert stopped.level == "halt" and "nothing was learned" in stopped.message
    assert stopped.threshold == pytest.approx(0.02)


def test_a_policy_that_did_not_move_is_stopped_even_where_there_is_no_noise() -> None:
    assert halts(probe(gap=0.0, moved=0.0, noise=0.0)) == {"moved"}
