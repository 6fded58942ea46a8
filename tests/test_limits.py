"""What it takes to halt: the whole interval, enough prompts, and worse than what it is compared with."""

from __future__ import annotations

import pytest

from selfreward.collapse.limits import LIMITS, Finding, Limit, Reading, changed, judged, rank, several
from selfreward.recipe import Limits
from selfreward.stats import Interval

LIMIT = {"x": Limit("level", "high", 0.3, 0.6, "one", least=64)}
WHOLE, TOUCHING = Interval(0.8, 0.7, 0.9, 64), Interval(0.8, 0.55, 0.95, 64)


def level(now: Interval, change: Interval | None = None, **kind: object) -> str:
    limit = {
        "x": Limit(**({"kind": "level", "worse": "high", "warn": 0.3, "halt": 0.6, "family": "one"} | kind))
    }  # type: ignore[arg-type]
    return judged(Reading("x", now, 0.1 if change else None, change), limit).level


def test_a_whole_interval_beyond_the_level_halts_and_one_that_touches_it_warns() -> None:
    assert level(WHOLE) == "halt"
    assert level(TOUCHING) == "warn"
    assert "too few to tell" in judged(Reading("x", TOUCHING), LIMIT).message


def test_too_few_prompts_warn_whatever_the_interval() -> None:
    few = Interval(1.0, 0.9, 1.0, 63)
    assert level(few) == "warn" and "63 of the 64" in judged(Reading("x", few), LIMIT).message
    assert level(few, least=63) == "halt"


def test_what_is_no_worse_than_before_warns() -> None:
    worse, same = Interval(0.5, 0.1, 0.9, 64), Interval(0.1, -0.1, 0.3, 64)
    assert level(WHOLE, worse) == "halt"
    assert level(WHOLE, same) == "warn"
    assert "no worse" in judged(Reading("x", WHOLE, 0.7, same), LIMIT).message


def test_an_absolute_sign_is_not_excused_by_what_was_before() -> None:
    same = Interval(0.0, -0.1, 0.1, 64)
    assert level(WHOLE, same, kind="absolute") == "halt"


def test_a_sign_that_needs_a_baseline_warns_without_one() -> None:
    assert level(WHOLE, kind="baseline") == "warn"
    assert level(WHOLE, Interval(0.5, 0.1, 0.9, 64), kind="baseline") == "halt"


def test_low_is_worse_where_the_limit_says_so() -> None:
    limit = {"x": Limit("level", "low", 0.85, 0.7, "one")}
    low, high = Interval(0.5, 0.4, 0.6, 99), Interval(0.95, 0.9, 1.0, 99)
    assert judged(Reading("x", low), limit).level == "halt"
    assert judged(Reading("x", high), limit).level == "ok"
    rose = Interval(0.1, 0.05, 0.2, 99)
    assert judged(Reading("x", low, 0.4, rose), limit).level == "warn"


def test_between_warn_and_halt_only_a_whole_interval_warns() -> None:
    assert level(Interval(0.45, 0.35, 0.55, 64)) == "warn"
    assert level(Interval(0.45, 0.25, 0.55, 64)) == "ok"


def test_a_signal_without_a_limit_is_information() -> None:
    assert judged(Reading("unheard of", Interval(9.0, 9.0, 9.0, 999))).level == "ok"


def test_three_kinds_of_firm_warnings_halt_together_and_two_do_not() -> None:
    limits = {n: Limit("level", "high", 0.3, 0.9, n[0]) for n in ("a1", "a2", "b1", "c1")}
    firm = {n: judged(Reading(n, Interval(0.5, 0.4, 0.6, 64)), limits) for n in limits}
    assert [f.level for f in several([firm["a1"], firm["b1"], firm["c1"]], limits)] == ["halt"]
    assert several([firm["a1"], firm["a2"], firm["b1"]], limits) == []  # two kinds
    weak = judged(Reading("c1", Interval(0.95, 0.2, 1.0, 64)), limits)
    assert weak.level == "warn" and several([firm["a1"], firm["b1"], weak], limits) == []


def test_a_recipe_changes_the_levels_it_names_and_no_other() -> None:
    found = changed({"faults": {"warn": None, "halt": 0.5, "least": None}})
    assert (found["faults"].halt, found["faults"].warn) == (0.5, LIMITS["faults"].warn)
    assert found["ties"] == LIMITS["ties"]


def test_every_level_of_a_recipe_is_one_the_detector_knows() -> None:
    offline = {"new_word", "agreement"}
    assert set(Limits.model_fields) == set(LIMITS) - offline


@pytest.mark.parametrize("name", LIMITS)
def test_warn_comes_before_halt(name: str) -> None:
    limit = LIMITS[name]
    of_prompts = name not in ("train_drift", "gradient_ratio")  # these count fixed texts and steps
    assert limit.passed(limit.halt, limit.warn) and limit.least >= (30 if of_prompts else 10)


def test_the_worst_finding_ranks() -> None:
    found = [Finding("a", "ok", 0, 0, ""), Finding("b", "halt", 0, 0, ""), Finding("c", "warn", 0, 0, "")]
    assert [rank(found), rank(found[:1]), rank([])] == [2, 0, 0]
