"""Where a run stands, in words: what it does, how fast, and whether anything is wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from selfreward.outlook import duration, gates, outlook, pace, progress, spent

START, AT = "2026-01-01T00:00:00Z", "2026-01-01T00:00:20Z"


def stage(**changes: Any) -> Any:
    plain = {
        "policy": "M1", "name": "judge", "status": "running", "n_done": 10, "n_total": 40, "n_tokens": 500,
        "seconds": 5.0, "attempt": 1, "started_at": START, "error": None,
    }  # fmt: skip
    return SimpleNamespace(**(plain | changes))


def policy(idx: int, status: str = "promoted", decision: str | None = None) -> Any:
    return SimpleNamespace(name=f"M{idx}", idx=idx, status=status, decision=decision)


def alarm(level: str, stage: str = "probe", message: str = "it loops") -> Any:
    return SimpleNamespace(level=level, stage=stage, policy="M1", message=message)


def test_pace_is_worked_out_by_hand() -> None:
    """10 of 40 and 500 tokens in 5 s: 2 a second, 100 tokens a second, 30 left in 15 s."""
    found = pace(stage(), AT)
    assert (found.per_second, found.tokens_per_second, found.seconds_left) == (2.0, 100.0, 15.0)
    assert progress(stage(), AT) == "10 of 40, 2.0 a second, 500 tokens (100 a second), about 15 s left"


def test_a_training_that_runs_is_timed_by_its_start() -> None:
    """10 steps of 40 in the 20 s since: 0.5 a second, 60 s left; after an interruption nobody knows."""
    found = pace(stage(name="train", seconds=0.0), AT)
    assert (found.per_second, found.seconds_left) == (0.5, 60.0)
    assert pace(stage(seconds=0.0, attempt=2), AT).per_second is None
    assert pace(stage(seconds=0.0, status="done"), AT).per_second is None
    assert pace(stage(seconds=0.0, started_at="once"), AT).per_second is None


def test_nothing_is_said_of_a_speed_nobody_measured() -> None:
    assert progress(stage(n_done=0, n_tokens=0, seconds=3.0), AT) == "0 of 40"
    assert progress(stage(n_total=None, n_tokens=0, seconds=0.0, attempt=2), AT) == "10 so far"
    assert "left" not in progress(stage(status="done", n_done=40), AT)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (True, "Now M1 judge: 10 of 40,"), (False, "Interrupted in M1 judge at 10 of 40: the same command"),
        (None, "M1 judge is running or was interrupted"),
    ],
)  # fmt: skip
def test_a_stage_that_runs_is_working_only_if_somebody_holds_the_lock(held: bool | None, said: str) -> None:
    found = outlook([policy(0), policy(1)], [stage()], [], held=held, at=AT)
    assert found.now.startswith(said) and found.now.endswith("M1 is the policy now.") and found.level == "ok"


@pytest.mark.parametrize(
    ("policies", "stages", "alarms", "said"),
    [
        (
            [policy(1), policy(2, "rejected", "it collapsed")],
            [],
            [alarm("warn")],
            "M2 was rejected: it collapsed.",
        ),
        ([policy(1)], [stage(status="failed", error="no disk")], [], "M1 judge failed: no disk"),
        ([policy(1)], [], [alarm("halt", "pairs", "M1 has no pairs")], "M1 has no pairs."),
    ],
)
def test_a_run_that_cannot_go_on_says_why(policies: Any, stages: Any, alarms: Any, said: str) -> None:
    found = outlook(policies, stages, alarms, held=False, at=AT)
    assert (found.level, found.health) == ("halt", said) and "has stopped" in found.now


def test_warnings_are_told_and_silence_is_not_health() -> None:
    def health(*alarms: Any) -> tuple[str, str]:
        found = outlook([policy(0)], [], list(alarms), held=False, at=AT)
        return found.level, found.health

    assert health() == ("ok", "No gate has looked at it yet.")
    assert health(alarm("ok"), alarm("ok", "pairs")) == ("ok", "All 2 signals of 2 gates are fine.")
    assert health(alarm("ok"), alarm("warn")) == ("warn", "1 of 2 signals raised an alarm: it loops.")
    assert outlook([], [], [], held=None, at=AT).now == "Nothing has been made yet."


def test_durations_are_told_in_the_units_people_use() -> None:
    assert [duration(s) for s in (0.4, 59.4, 59.6, 61, 3599, 7260)] == [
        "0 s", "59 s", "1 min 00 s", "1 min 01 s", "59 min 59 s", "2 h 01 min",
    ]  # fmt: skip


def test_what_was_spent_is_worked_out_by_hand() -> None:
    """100 s on two GPUs and 60 s on none are 200/3600 GPU-hours; a stage that runs counts from its start."""
    stages = [
        stage(policy="M2", name="train", status="done", seconds=100.0, n_tokens=0),
        stage(policy="M1", name="judge", status="done", seconds=60.0, n_tokens=30),
    ]
    found = spent(stages, {("M2", "train"): 2}, "2026-01-01T00:00:10Z")
    assert (found.seconds, found.tokens, found.gpu_hours) == (160.0, 30, 200 / 3600)
    assert found.told == "2 min 40 s of work, 30 tokens generated, 0.06 GPU-hours so far"
    assert spent(stages, {}, "").gpu_hours is None
    going = stage(policy="M2", name="train", status="running", seconds=0.0, attempt=1)
    going.started_at, going.n_tokens = "2026-01-01T00:00:00Z", 0
    assert spent([going], {("M2", "train"): 4}, "2026-01-01T00:15:00Z").gpu_hours == 1.0


def test_gates_are_told_by_the_stage_they_follow() -> None:
    levels = [("pairs", "ok"), ("pairs", "ok"), ("probe", "warn"), ("probe", "ok"), ("probe", "halt")]
    found = gates([SimpleNamespace(stage=s, level=level) for s, level in levels])
    assert found == [
        "gate after pairs: 2 signals, all fine", "gate after probe: 3 signals, 1 halt, 1 warn"
    ]  # fmt: skip
