"""What is changed after a collapse, by its signs; and the screen a user reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from selfreward.collapse.calmer import changes
from selfreward.collapse.screen import screen
from selfreward.recipe_file import parse

MARGINS = [0.1 * i for i in range(1, 17)]  # quarters begin at 0.5, 0.9, 1.3


def recipe(**sections: Any) -> dict[str, Any]:
    return parse({"model": "base"} | sections, "test").model_dump(by_alias=True)


def test_a_training_that_went_too_far_is_tried_again_calmer_and_then_calmer_still() -> None:
    """β 0.1 doubles, the rate 5e-5 halves, and the quarter (then the half) of least margins is left out."""
    first = changes(recipe(), "probe", ["kl_previous"], MARGINS, 1)
    assert first == {"training.beta": 0.2, "training.lr": 2.5e-5, "pairs.min_margin": 0.5}
    second = changes(recipe(), "train", ["train_drift"], MARGINS, 2)
    assert second == {"training.beta": 0.4, "training.lr": 1.25e-5, "pairs.min_margin": 0.9}


def test_candidates_that_do_not_differ_are_drawn_hotter_and_nothing_else_changes() -> None:
    assert changes(recipe(), "pairs", ["identical"], MARGINS, 1) == {"candidates.sampling.temperature": 0.875}
    greedy = recipe(candidates={"sampling": {"temperature": 0}})
    assert changes(greedy, "pairs", ["pairs"], [], 2) == {"candidates.sampling.temperature": 0.75}
    hot = recipe(candidates={"sampling": {"temperature": 1.5}})
    assert changes(hot, "pairs", ["identical"], [], 1) == {}


def test_a_preference_for_length_turns_the_control_on_where_there_is_one() -> None:
    assert changes(recipe(), "pairs", ["chosen_longer"], MARGINS, 1) == {"pairs.length_control": "auto"}
    band = recipe(pairs={"rule": "length_band"})
    assert changes(band, "pairs", ["chosen_longer"], MARGINS, 1) == {}
    on = recipe(pairs={"length_control": "auto"})
    assert changes(on, "pairs", ["chosen_longer"], MARGINS, 1) == {}


def test_a_broken_judge_is_not_asked_again() -> None:
    assert changes(recipe(), "judge", ["faults", "top_score"], MARGINS, 1) == {}


def test_a_training_that_moved_nothing_is_not_made_calmer() -> None:
    assert changes(recipe(), "probe", ["moved"], MARGINS, 1) == {}


def test_texts_alike_are_drawn_hotter_only_when_a_calmer_training_did_not_help() -> None:
    first, second = (changes(recipe(), "probe", ["same_text"], MARGINS, n) for n in (1, 2))
    assert "candidates.sampling.temperature" not in first
    assert second["candidates.sampling.temperature"] == pytest.approx(1.05)


def test_few_pairs_are_not_made_fewer() -> None:
    assert "pairs.min_margin" not in changes(recipe(), "probe", ["kl_previous"], MARGINS[:7], 1)


def alarm(policy: str, stage: str, signal: str, level: str, message: str = "") -> Any:
    return SimpleNamespace(policy=policy, stage=stage, signal=signal, level=level, message=message or signal)


def test_the_screen_says_what_died_since_when_and_what_to_type() -> None:
    alarms = [
        alarm("M1", "pairs", "chosen_longer", "ok"),
        alarm("M2", "pairs", "chosen_longer", "halt", "chosen_longer 0.97 of 80, above 0.8"),
        alarm("M2", "pairs", "length_ratio", "warn", "length_ratio 1.6"),
        alarm("M2", "pairs", "words", "ok"),
        alarm("M1", "judge", "ties", "warn"),
    ]
    found = screen("demo", alarms, recipe(), MARGINS, ["one", "two\nlines", "three"])
    assert found is not None
    assert found.what == "The longer text is nearly always the chosen one."
    assert found.since == "Since the data of M2: that of M1 passed. Nothing was trained on it."
    assert found.numbers == ("chosen_longer 0.97 of 80, above 0.8", "length_ratio 1.6")
    assert found.examples == ("one", "two lines")
    told = [c for c, _ in found.commands]
    assert told[0] == "selfreward pairs list --sort -margin --limit 5 --run demo --of M2"
    assert told[1].endswith("--from M2 --branch calmer --set pairs.length_control=auto")
    assert "--accept M3 --reason" in told[2]


def test_the_screen_of_a_rejected_policy_goes_back_to_its_parent() -> None:
    alarms = [alarm("M1", "pairs", "ties", "halt"), alarm("M2", "probe", "kl_previous", "halt")]
    found = screen("demo", alarms, recipe(), MARGINS, [])
    assert found is not None and found.since == "Since the training of M2; M1 stays the policy."
    told = [c for c, _ in found.commands]
    assert "--of M1" in told[0] and "--from M1 --branch calmer --set training.beta=0.2" in told[1]
    assert "--accept M2" in told[2]


def test_without_a_halt_there_is_no_screen() -> None:
    assert screen("demo", [alarm("M1", "pairs", "ties", "warn")], recipe(), [], []) is None
