"""Variety and loops of texts, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.diversity import distinct_2, loops, words
from selfreward.stats import Interval

universal = settings(deadline=None, derandomize=True, max_examples=100)
vocabulary = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=8).map(" ".join)


def test_words_are_lower_case_runs_of_letters_and_digits_in_any_script() -> None:
    assert words("It's 3 O'Clock_now, Приве́т!") == ["it", "s", "3", "o", "clock", "now", "приве", "т"]


def test_distinct_pairs_over_all_pairs() -> None:
    """`a b a b` has the pairs ab, ba, ab: 2 of 3."""
    assert distinct_2(["a b a b"]).value == pytest.approx(2 / 3)


def test_pairs_are_counted_across_texts_but_not_over_their_seam() -> None:
    """`ab` and `ab`: 1 of 2; a pair `b a` over the seam would make it 2 of 3."""
    assert distinct_2(["a b", "A, b."]).value == 0.5


def test_the_interval_is_the_jackknifes() -> None:
    """2/3 of `ab`, `ab`, `cd`; without each 1, 1, 1/2: √(2/3 · 1/6) = 1/3, 2/3 − 1.95996/3 = 0.01335."""
    found = distinct_2(["a b", "a b", "c d"])
    assert found == Interval(found.value, pytest.approx(0.01335, abs=1e-5), 1.0, 3)


def test_a_long_text_counts_no_further_than_the_limit() -> None:
    """Three words make the pairs ab, bc; what follows is not read."""
    assert distinct_2(["a b c c c c c c"], limit=3).value == 1.0
    assert distinct_2(["a b c c c c c c"], limit=4).value == 1.0
    assert distinct_2(["a b c c c c c c"], limit=5).value == pytest.approx(3 / 4)


def test_texts_without_a_pair_of_words_have_no_variety() -> None:
    assert distinct_2([]) == Interval(0.0, 0.0, 0.0, 1)
    assert distinct_2(["", "one", "!"]) == Interval(0.0, 0.0, 0.0, 3)


@given(texts=st.lists(vocabulary, max_size=6))
@universal
def test_variety_lies_in_its_interval_between_0_and_1_and_does_not_depend_on_order(texts: list[str]) -> None:
    found = distinct_2(texts)
    assert 0 <= found.low <= found.value <= found.high <= 1
    backwards = distinct_2(texts[::-1])
    assert (backwards.value, backwards.low) == (found.value, pytest.approx(found.low))


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("no no no no", True), ("no no no", False), ("No, no. NO no!", True), ("", False),
        ("the end " * 4, True), ("a a b c c d e e f g g", False),
        ("the end " * 3 + "the", False), ("start of it " + "and then we " * 4 + "stop", True),
        ("no yes no yes no no yes no", False), (" ".join("abcdefghijkl") + " ", False),
        ((" ".join("abcdefghijkl") + " ") * 4, True), ((" ".join("abcdefghijklm") + " ") * 4, False),
    ],
)  # fmt: skip
def test_a_phrase_of_1_to_12_words_four_times_in_a_row_is_a_loop(text: str, looping: bool) -> None:
    assert loops(text) is looping


@given(
    phrase=st.lists(st.sampled_from("abcde"), min_size=1, max_size=12), before=vocabulary, after=vocabulary
)
@universal
def test_a_loop_is_found_wherever_it_stands(phrase: list[str], before: str, after: str) -> None:
    assert loops(f"{before} {' '.join(phrase * 4)} {after}")


@given(n=st.integers(0, 40))
@universal
def test_a_text_that_never_repeats_a_word_is_no_loop(n: int) -> None:
    assert not loops(" ".join(str(i) for i in range(n)))
