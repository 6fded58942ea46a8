"""Variety measured on texts whose order is known: sampled ones against greedy ones, and people's partitions.

The data were published by others and are not part of the project: SELFREWARD_TEST_DATA names their folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from selfreward.collapse import verdict
from selfreward.collapse.texts import Answers
from selfreward.diversity import across, within
from selfreward.stats import spearman

DATA = Path(os.environ.get("SELFREWARD_TEST_DATA", "../shared/data")) / "diversity"
MODELS = sorted(DATA.glob("*pythia*.json"))
pytestmark = pytest.mark.skipif(
    not MODELS, reason=f"no {DATA}: set SELFREWARD_TEST_DATA to a folder with diversity/*.json"
)
Sets = dict[str, list[list[str]]]


def sets_of(path: Path) -> Sets:
    """Sampling → the outputs of each prompt."""
    found: Sets = {}
    for asked in json.loads(path.read_text())["prompts"]:
        for result in asked["results"]:
            found.setdefault(result["sampling_config"], []).append(result["outputs"])
    return found


def prompts_of(path: Path) -> list[str]:
    """The prompts, in the order of the outputs."""
    return [asked["prompt"] for asked in json.loads(path.read_text())["prompts"]]


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name[-40:-15])
def test_top_k_sampling_is_more_varied_than_greedy_and_beam_search_on_every_measure(path: Path) -> None:
    """k50: top-k 50 at temperature 1. At equal texts and equal words."""
    sets = sets_of(path)
    for poorer in ("greedy", "beam5"):
        rich, poor = across.equal_words(*(across.cut([o[0] for o in sets[name]]) for name in ("k50", poorer)))
        for measure in (lambda t: across.distinct(t, 2), lambda t: across.distinct(t, 3), across.vendi):
            a, b = measure(rich), measure(poor)
            assert a and b and a.value > b.value
        for measure in (across.self_repetition, across.self_bleu):
            a, b = measure(rich), measure(poor)
            assert a and b and a.value < b.value


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name[-40:-15])
def test_within_a_prompt_beam_search_top_p_and_top_k_stand_in_this_order(path: Path) -> None:
    """Two outputs of each: beams of five, top-p 0.242, top-k 50."""
    sets = sets_of(path)

    def mean(name: str) -> float:
        found = [d for d in (within.distance(o) for o in sets[name]) if d is not None]
        return sum(found) / len(found)

    assert mean("beam5") < mean("magic_numbers") < mean("k50")


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name[-40:-15])
def test_healthy_generations_do_not_halt(path: Path) -> None:
    for name, outputs in sets_of(path).items():
        answers = [Answers(p, tuple(o)) for p, o in zip(prompts_of(path), outputs, strict=True)]
        assert verdict.verdict(verdict.of_texts(answers)).level != "halt", name


def test_distance_within_a_prompt_goes_with_the_number_of_classes_people_found() -> None:
    """NoveltyBench: ten generations of a prompt and their partition into equivalents; Spearman ≥ 0.6."""
    rows = [json.loads(line) for line in (DATA / "noveltybench_gemini.jsonl").read_text().splitlines()]
    classes = [float(len(set(r["partition"]))) for r in rows]
    distances = [within.distance(r["generations"]) or 0.0 for r in rows]
    rho = spearman(classes, distances)
    assert rho is not None and rho >= 0.6
