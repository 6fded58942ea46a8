"""Detectors of change, and the watch over a judge: when, since when, and into what."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from selfreward.collapse.judging import Score
from selfreward.collapse.sequential import GROUP, Cusum, PageHinkley, Series, first_alarm
from selfreward.collapse.watch import Watch


def test_cusum_by_hand() -> None:
    """K ½, h 4: 0, then 2 − ½ = 1.5, 3, 4.5 > 4: began at place 1, seen at place 3."""
    assert first_alarm(Cusum(0.5, 4.0), [0.2, 2.0, 2.0, 2.0, 9.0]) == (1, 3)


def test_cusum_sees_falls_as_well_unless_told_not_to() -> None:
    down = Cusum(0.5, 4.0)
    assert first_alarm(down, [0.0, -3.0, -3.0]) == (1, 2) and not down.rising
    assert first_alarm(Cusum(0.5, 4.0, falls=False), [-3.0] * 9) is None


def test_cusum_forgets_what_is_made_good() -> None:
    """2 then −2, for ever: 1.5, 0, 1.5, 0."""
    assert first_alarm(Cusum(0.5, 4.0), [2.0, -2.0] * 50) is None


def test_page_hinkley_by_hand() -> None:
    """δ ½, λ 3. Of 0, 0, 4, 4: means 0, 0, 4/3, 2; m = −½, −1, −1 + 4 − 4/3 − ½ = 1.167, then 2.667.

    Over the least of −1: 2.167, then 3.667 > 3. It began after place 1.
    """
    assert first_alarm(PageHinkley(0.5, 3.0), [0.0, 0.0, 4.0, 4.0]) == (2, 3)
    assert first_alarm(PageHinkley(0.5, 3.7), [0.0, 0.0, 4.0, 4.0]) is None


def test_page_hinkley_catches_what_creeps() -> None:
    """Z rises by a tenth a group: no group is odd, together they are."""
    found = first_alarm(PageHinkley(), [0.1 * i for i in range(60)])
    assert found is not None and found[1] < 40


def test_a_series_waits_until_it_knows_what_is_usual() -> None:
    series = Series(floor=0.1)
    assert not any(series.add(v, i) for i, v in enumerate([0.0] * 59 + [99.0]))
    assert any(series.add(99.0, 60 + i) for i in range(2 * GROUP))


def test_a_series_finds_the_very_prompt_at_which_it_changed() -> None:
    draw = random.Random(3)
    values = [draw.gauss(0, 1) for _ in range(133)] + [draw.gauss(6, 1) for _ in range(40)]
    series = Series()
    seen = next(i for i, v in enumerate(values) if series.add(v, 1000 + i))
    assert 140 <= seen < 173 and series.began() == 1133


def test_one_fault_in_a_clean_stage_is_no_alarm() -> None:
    """A share of 0 in 60 has no spread to see; it is not believed to have none."""
    for series in (Series(0.1, share=True, only_up=True), Series(share=True)):
        assert not any(series.add(float(i == 70), i) for i in range(200))


def healthy(draw: random.Random) -> list[Score]:
    """Four verdicts of 1 to 5 that agree somewhat on the prompt; one in 200 is unread."""
    level = draw.gauss(3, 0.6)
    scores = [float(min(5, max(1, round(draw.gauss(level, 0.9))))) for _ in range(4)]
    return [Score(None, None if draw.random() < 0.005 else s, draw.uniform(50, 200)) for s in scores]


def watched(change: Callable[[list[Score], random.Random], list[Score]] | None, seed: int = 0) -> Watch:
    """100 healthy prompts, then 60 changed ones; stops at the first halt."""
    draw, watch = random.Random(seed), Watch(5.0)
    for i in range(160):
        group = healthy(draw)
        watch.add(change(group, draw) if change and i >= 100 else group)
        if watch.due() and watch.halt():
            break
    return watch


BROKEN: dict[str, Callable[[list[Score], random.Random], list[Score]]] = {
    "always five": lambda g, d: [Score(None, 5.0, r.length) for r in g],
    "always three": lambda g, d: [Score(None, 3.0, r.length) for r in g],
    "nothing can be read": lambda g, d: [Score(None, None, r.length) for r in g],
    "half cannot be read": lambda g, d: [Score(None, d.choice([None, r.value]), r.length) for r in g],
    "expected scores near the top": lambda g, d: [Score(None, 4.97 + 0.01 * d.random(), r.length) for r in g],
    "length is the score": lambda g, d: [Score(None, (r.length or 0) / 40, r.length) for r in g],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_judge_that_breaks_is_halted_within_two_or_three_groups(kind: str) -> None:
    for seed in range(3):
        watch = watched(BROKEN[kind], seed)
        found = watch.halt()
        assert found is not None and len(watch.groups) <= 160
        assert abs(found[0] - 100) <= 3


def test_a_healthy_judge_is_not_halted_and_not_suspected() -> None:
    for seed in range(10):
        watch = watched(None, seed)
        assert watch.halt() is None and watch.shifts == []


def test_a_kinder_judge_is_noticed_and_goes_on() -> None:
    """Half a standard deviation up is a change, and no collapse."""
    draw, watch = random.Random(1), Watch(5.0)
    for i in range(400):
        watch.add(
            [Score(None, (r.value or 3) / 2 + (0.5 if i >= 200 else 0), r.length) for r in healthy(draw)]
        )
    assert len(watch.shifts) == 1 and abs(watch.shifts[0].began - 200) <= 5
    assert watch.halt() is None


def test_looks_are_frequent_after_a_change_and_seldom_in_a_long_stage() -> None:
    watch = Watch(5.0)
    looks = []
    for i in range(4000):
        watch.groups.append([])
        if watch.due():
            looks.append(i + 1)
    assert looks[:10] == [20 * i for i in range(1, 11)] and len(looks) < 50
