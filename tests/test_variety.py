"""Variety across prompts and within one: every value worked out by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from selfreward.diversity import across, within
from selfreward.diversity.across import (
    adjusted_distinct,
    compression,
    cut,
    distinct,
    effective_number,
    equal_words,
    self_bleu,
    self_repetition,
    vendi,
)
from selfreward.diversity.phrases import loops, words
from selfreward.diversity.within import distance, identical, new_word, relevance
from selfreward.stats import Estimate


def value(found: Estimate | None) -> float:
    assert found is not None
    return found.value


def test_distinct_counts_kinds_of_one_two_and_three_words() -> None:
    """`a b a b a`: words a, b of 5; pairs ab, ba of 4; threes aba, bab of 3."""
    text = cut(["a b a b a"])
    assert [value(distinct(text, n)) for n in (1, 2, 3)] == [2 / 5, 2 / 4, 2 / 3]
    assert distinct(cut(["a", ""]), 2) is None


def test_the_parts_of_distinct_are_the_jackknifes() -> None:
    """1/2 for `a`, `a`; without either it is 1, so each part is 2 · 1/2 − 1 · 1 = 0."""
    found = distinct(cut(["a", "a"]), 1)
    assert found == Estimate(0.5, (0.0, 0.0), 2)


def test_adjusted_distinct_divides_by_what_chance_would_give() -> None:
    """V = 2, two draws: 2 · (1 − (1/2)²) = 1.5 kinds expected; `a b` has 2, `a a` has 1."""
    assert value(adjusted_distinct(cut(["a b"]), 2)) == pytest.approx(2 / 1.5)
    assert value(adjusted_distinct(cut(["a a"]), 2)) == pytest.approx(1 / 1.5)


def test_adjusted_distinct_does_not_fall_with_length_alone() -> None:
    """Uniform draws from 500 words: distinct-1 falls from 50 words to 1,000, the adjusted one stays."""
    draw = random.Random(1)
    texts = [[str(draw.randrange(500)) for _ in range(100)] for _ in range(10)]
    short, long = [texts[0][:50]], texts
    assert value(distinct(long, 1)) < value(distinct(short, 1)) / 2
    ratio = value(adjusted_distinct(long, 500)) / value(adjusted_distinct(short, 500))
    assert ratio == pytest.approx(1.0, abs=0.05)


def test_compression_is_measured_in_chunks_so_that_more_of_the_same_kind_changes_nothing() -> None:
    draw = random.Random(2)
    texts = [[f"{draw.randrange(10**6)}" for _ in range(60)] for _ in range(200)]
    few, many = compression(texts[:40]), compression(texts)
    assert few is not None and many is not None
    assert few.value == pytest.approx(many.value, rel=0.03) and len(many.parts) == 5 * len(few.parts)


def test_compression_tells_one_text_for_all_from_many() -> None:
    """The same 60 words over and over shrink to a small part: 2,048 bytes hold them five times and more."""
    draw = random.Random(2)
    varied = [[f"{draw.randrange(10**6)}" for _ in range(60)] for _ in range(40)]
    assert value(compression([varied[0]] * 40)) > 2 * value(compression(varied))
    assert compression([["short"]] * 3) is None


def test_self_repetition_is_the_share_of_fours_that_another_text_holds() -> None:
    """Abcd and bcde; bcde and cdef: each has one of two fours in common. The third text has none."""
    found = self_repetition(cut(["a b c d e", "b c d e f", "p q r s t"]))
    assert found is not None and found.parts == (0.5, 0.5, 0.0)
    assert self_repetition(cut(["a b c d a b c d"])).value == 0.0  # type: ignore[union-attr]


def test_self_bleu_of_equal_texts_is_one() -> None:
    assert value(self_bleu(cut(["a b c d e"] * 3))) == pytest.approx(1.0)


def test_self_bleu_by_hand() -> None:
    """`a b c d` against `a b c e`: 3/4 words, (2+1)/(3+1) pairs, (1+1)/(2+1) threes, (0+1)/(1+1) fours."""
    expected = (3 / 4 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert value(self_bleu(cut(["a b c d", "a b c e"]))) == pytest.approx(expected)


def test_self_bleu_clips_repeats_and_punishes_brevity() -> None:
    """`a a a a` against `a b c d e`: 1 of 4 a's counts, 1/4, 1/3, 1/2 smoothed; 4 words to 5: e^(1 − 5/4)."""
    found = self_bleu(cut(["a a a a", "a b c d e"]))
    assert found is not None
    assert found.parts[0] == pytest.approx((1 / 4 * 1 / 4 * 1 / 3 * 1 / 2) ** 0.25 * math.exp(-0.25))


def test_the_effective_number_of_equal_and_of_unlike_things() -> None:
    """All ones: one eigenvalue 1, exp(0) = 1. Identity of 3: three of 1/3, exp(log 3) = 3.

    Two alike and one apart: 2/3 and 1/3, exp(2/3 log 3/2 + 1/3 log 3) = 1.8899.
    """
    assert effective_number(np.ones((3, 3))) == pytest.approx(1.0)
    assert effective_number(np.eye(3)) == pytest.approx(3.0)
    mixed = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert effective_number(mixed) == pytest.approx(1.8899, abs=1e-4)


def test_vendi_counts_kinds_of_texts() -> None:
    texts = cut(["a b c", "a b c", "p q r", "p q r", "x y z", "x y z"])
    assert value(vendi(texts)) == pytest.approx(3.0, abs=1e-4)


def test_two_sets_are_cut_to_equal_texts_and_words() -> None:
    left, right = equal_words([["a", "b", "c"], ["d"]], [["p"], ["q", "r"], ["s"]])
    assert (left, right) == ([["a"], ["d"]], [["p"], ["q"]])


def test_identical_counts_pairs_and_ignores_case_and_space() -> None:
    """Of `a`, ` A `, `b`: one pair of three."""
    assert identical(["a", " A ", "b"]) == pytest.approx(1 / 3)
    assert identical(["a"]) is None and identical(["a", "a"]) == 1.0


def test_distance_is_one_less_the_longest_common_subsequence() -> None:
    """`a b c` and `a c d`: a c is common, 1 − 2·2/6 = 1/3. Nothing common: 1."""
    assert distance(["a b c", "a c d"]) == pytest.approx(1 / 3)
    assert distance(["a b", "c d"]) == 1.0 and distance(["A b!", "a b"]) == 0.0
    assert distance(["one"]) is None


def test_distance_is_the_mean_over_pairs() -> None:
    """ab-ab 0, ab-cd 1, ab-cd 1."""
    assert distance(["a b", "a b", "c d"]) == pytest.approx(2 / 3)


PROMPTS = [f"tell me about w{i} and v{i}" for i in range(40)]
FILL = "so this is what there may be to say here"


def test_answers_to_their_own_prompts_are_relevant_and_shuffled_ones_are_not() -> None:
    own = [[f"w{i} {FILL}"] for i in range(40)]
    assert set(relevance(PROMPTS, own)) == {1.0}
    assert set(relevance(PROMPTS, own[20:] + own[:20])) == {0.0}  # each answers the one it is compared with
    assert set(relevance(PROMPTS, [[FILL]] * 40)) == {0.5}


def test_short_answers_and_prompts_that_are_mere_numbers_say_nothing_about_relevance() -> None:
    assert set(relevance(PROMPTS, [["four"]] * 40)) == {None}
    assert set(relevance([f"prompt {i}" for i in range(40)], [[FILL]] * 40)) == {None}


def test_a_new_word_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    """`new` stands in each even text and in none of the odd ones: chosen, and found in none."""
    word, held = new_word([["a"]] * 4, [["a", "new"], ["a"]] * 3)
    assert (word, held) == ("new", [0.0, 0.0, 0.0])
    assert new_word([["a"]] * 4, [["new"]] * 6) == ("new", [1.0, 1.0, 1.0])
    assert new_word([], [["a"]] * 4) == ("", [])


def test_where_no_spaces_are_written_each_character_is_a_word() -> None:
    assert words("你好, world") == ["你", "好", "world"]
    assert loops("好的好的好的好的") and not loops("你好世界")


@pytest.mark.parametrize(("text", "looping"), [("ha" * 40, True), ("a" * 30, True), ("a" * 20, False)])
def test_one_syllable_without_end_is_a_loop(text: str, looping: bool) -> None:
    assert loops(f"well {text} then") is looping


def test_no_more_than_the_first_texts_and_pairs_are_compared() -> None:
    assert value(vendi(cut([f"w{i}" for i in range(300)]))) == pytest.approx(across.AT_MOST)
    assert distance(["same"] * 50) == 0.0 and within.PAIRS == 45
