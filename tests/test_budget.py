"""Tokens and hours of a run against sums worked by hand."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from selfreward.budget import (
    NONE,
    Amount,
    Load,
    Rates,
    Sizes,
    Texts,
    cpu,
    gpu,
    guessed_rates,
    hours,
    loads,
    summed,
    total,
)  # fmt: skip
from selfreward.shapes import shape_of
from tests.test_shapes import LLAMA_8B, SMOL

SIZES = Sizes(
    iterations=2, requests=Amount(6, "bound"), prompts=10, candidates=4, judging="expected", samples=3,
    grading="expected", adapted=True, sft_epochs=2.0, epochs=1.0, probes=8, questions=5, problems=7,
)  # fmt: skip
LENGTHS = {
    "invite": 300, "invention": 60, "prompt": 50, "prompt_text": 20, "candidate": 100, "judge": 250,
    "judgement": 40, "paired": 0.5, "chosen": 110, "rejected": 90, "sft_rows": 30, "sft_row": 80, "probe": 45,
    "probed": 55, "question": 46, "question_text": 16, "answered": 70, "problem": 48, "solved": 30,
    "grade": 200, "graded": 35,
}  # fmt: skip
TEXTS = Texts(**{k: Amount(v) for k, v in LENGTHS.items()})


def load(policy: str, stage: str, sizes: Sizes = SIZES) -> list[float]:
    """What is generated, fed, scored and trained in one stage."""
    (found,) = [x for x in loads(sizes, TEXTS) if (x.policy, x.stage) == (policy, stage)]
    return [found.generated.n, found.fed.n, found.scored.n, found.trained.n]


def test_every_stage_of_the_loop_has_its_tokens() -> None:
    """Each row by hand, in the order generated, fed, scored, trained.

    prompts 6·60, 6·300. candidates 10·4·100, 10·50 (a prompt is fed once). judge 40·(250 + 20 + 100).
    train 10·½·(2·50 + 110 + 90). probe 8·55, 8·45, and 8·100 for each of two policies (M1: itself, M0) or
    three. evaluate 10·70 + 7·30; fed 5·(46 + (46 + 70 + 16)) + 7·48; graded 5·(2·200 + 3·16 + 3·70): the
    second turn's transcript holds both questions and the first answer. sft 30·80·2 epochs.
    """
    assert load("M1", "prompts") == [360, 1800, 0, 0]
    assert load("M1", "candidates") == [4000, 500, 0, 0]
    assert load("M1", "judge") == [0, 0, 14_800, 0]
    assert load("M2", "train") == [0, 0, 0, 1500]
    assert load("M0", "probe") == [440, 360, 0, 0]
    assert load("M1", "probe") == [440, 360, 1600, 0] and load("M2", "probe") == [440, 360, 2400, 0]
    assert load("M3", "evaluate") == [910, 1226, 3290, 0]
    assert load("M3", "evaluate", replace(SIZES, suites=Amount(640))) == [1550, 1226, 3290, 0]
    assert load("M1", "sft") == [0, 0, 0, 4800]


def test_a_sampling_judge_writes_what_an_expecting_one_reads() -> None:
    """40·3·40 replies; the 40 judge chats are fed once each. The grader: 5·2·35 replies more."""
    sampled = replace(SIZES, judging="sampled", grading="sampled")
    assert load("M1", "judge", sampled) == [4800, 14_800, 0, 0]
    assert load("M1", "evaluate", sampled) == [910 + 350, 1226 + 3290, 0, 0]


def test_stages_that_a_recipe_leaves_out_cost_nothing_and_the_rest_is_in_order() -> None:
    """Own prompts, a counting reward, no SFT, no evaluation: M1 is the base, so M2's probe scores two."""
    bare = replace(SIZES, requests=NONE, judging=None, adapted=False, sft_epochs=0.0, questions=0, problems=0)
    told = [(x.policy, x.stage) for x in loads(bare, TEXTS)]
    assert told == [
        ("M0", "probe"), ("M1", "probe"), ("M1", "candidates"), ("M2", "train"), ("M2", "probe"),
        ("M2", "candidates"), ("M3", "train"), ("M3", "probe"),
    ]  # fmt: skip
    assert load("M1", "probe", bare)[2] == 800 and load("M2", "probe", bare)[2] == 1600
    assert load("M3", "probe", bare)[2] == 2400


def test_a_sum_is_known_no_better_than_its_worst_part() -> None:
    measured, bound = Amount(3, "measured"), Amount(4, "bound")
    assert measured + bound == Amount(7, "bound") and measured * bound == Amount(12, "bound")
    assert measured + Amount(0, "bound") == measured, "nothing of it is in the sum"
    assert total([]) == NONE and measured * 2 == Amount(6, "measured")


def test_hours_divide_each_kind_of_token_by_its_rate() -> None:
    """7200 at 2/s, 3600 at 10/s, 36 at 0.01/s: 1 + 0.1 + 1 hours."""
    rates = Rates(Amount(2, "measured"), Amount(10, "measured"), Amount(0.01, "measured"))
    one = Load("M1", "all", Amount(7200), Amount(999), Amount(3600, "bound"), Amount(36))
    assert hours(one, rates) == Amount(pytest.approx(2.1), "bound")


def test_a_guessed_rate_makes_hours_a_guess_even_of_bounded_tokens() -> None:
    rates = Rates(Amount(2, "guess"), Amount(10), Amount(1))
    assert hours(Load("M1", "x", Amount(7200, "bound")), rates) == Amount(1.0, "guess")
    assert hours(Load("M1", "x", scored=Amount(7200, "bound")), rates) == Amount(0.2, "bound")


def test_the_total_is_the_sum_of_its_stages() -> None:
    rows = loads(SIZES, TEXTS)
    for kind in [f.name for f in fields(Load)[2:]]:
        assert getattr(summed(rows), kind).n == sum(getattr(r, kind).n for r in rows)


def test_a_gpu_is_known_by_its_name_and_an_unknown_one_is_marked() -> None:
    assert gpu("NVIDIA H100 80GB HBM3", 8e10).flops == 989e12
    assert gpu("NVIDIA H100 PCIe", 8e10).flops == 756e12 and gpu("NVIDIA L40S", 4e10).flops == 362e12
    assert not gpu("Next Year's", 8e10).known and gpu("NVIDIA A100-SXM4-80GB", 8e10).known


def test_guessed_rates_follow_from_the_peaks() -> None:
    """Llama 8B has 525,336,576 + 32·218,112,000 = 7,504,920,576 working weights.

    Reading: 0.4·989e12 / (2·7.505e9) = 26,356 tokens/s; training costs three forwards at 0.3 of the peak.
    A step of 64 rows of 100 tokens reads 16.06 GB of weights and 64·100·131,072 bytes of cache at
    0.6·3.35e12, and 32 layers take 1 ms each: 0.0404 s.
    """
    rates = guessed_rates(shape_of(LLAMA_8B), 2, gpu("H100", 8e10), 64, 100)
    assert rates.prefill.n == pytest.approx(26_356, rel=1e-3)
    assert rates.train.n == pytest.approx(6_589, rel=1e-3)
    assert rates.generate.n == pytest.approx(64 / ((16.06e9 + 0.839e9) / 2.01e12 + 0.032), rel=1e-3)
    assert {rates.generate.how, rates.prefill.how, rates.train.how} == {"guess"}


def test_the_guess_for_a_cpu_is_near_what_the_demo_measured() -> None:
    """Two cores, SmolLM2 in float32: 110 tokens/s sampled, 530 read, 70 to 86 trained."""
    rates = guessed_rates(shape_of(SMOL), 4, cpu(2, 2e10), 64, 80)
    assert rates.generate.n == pytest.approx(110, rel=0.15)
    assert rates.prefill.n == pytest.approx(530, rel=0.15)
    assert 70 < rates.train.n < 86
