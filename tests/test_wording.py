"""Model text made fit to be seen: nothing unseen stays, nothing seen is lost, and differences are words."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.wording import differences, is_unseen, pieces, spelled, visible

TEXTS = st.text(st.sampled_from("ab é漢字שلا\u200d\u200c\u202e\x00\x1b\n\t👩.,"), max_size=30)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢\n\t", "plain é 漢\n\t"), ("\x1b[31m", "\\u001b[31m"),
        ("a\rb\x7f\x9b", "a\\u000db\\u007f\\u009b"),
        ("\u202e\u2066\u200b\ufeff", "\\u202e\\u2066\\u200b\\ufeff"), ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041", "\\ue0041"), ("👩\u200d👧", "👩\\u200d👧"), ("\ue000", "\\ue000"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_joiners_stay_where_they_shape_and_show_where_they_hide() -> None:
    assert spelled("👩\u200d👧 می\u200cخواهم") == "👩\u200d👧 می\u200cخواهم"
    assert spelled("pass\u200dword \u200d👩\u200d") == "pass\\u200dword \\u200d👩\\u200d"
    assert spelled("👩\u200d\u200d👩") == "👩\\u200d\\u200d👩"


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_pieces_are_the_text_in_order_and_mark_one_sign_at_a_time(text: str) -> None:
    found = list(pieces(text))
    assert "".join(p for p, _ in found) == text
    assert all(len(p) == 1 and is_unseen(p) for p, unseen in found if unseen)
    assert not [c for p, unseen in found if not unseen for c in p if is_unseen(c) and c not in "\u200c\u200d"]


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS)
def test_differences_lose_nothing_and_leave_the_same_words_on_both_sides(left: str, right: str) -> None:
    found = differences(left, right)
    assert found is not None
    assert ("".join(p for p, _ in found[0]), "".join(p for p, _ in found[1])) == (left, right)
    same = ["".join("".join(p.split()) for p, d in side if not d) for side in found]
    assert same[0] == same[1]


def test_differences_are_the_words_that_differ() -> None:
    """Longest common sequence: The _ sat on _ mat. The blanks beside a changed word are not marked."""
    assert differences("The cat sat on the mat.", "The dog sat on a mat.") == (
        [("The ", False), ("cat", True), (" sat on ", False), ("the", True), (" mat.", False)],
        [("The ", False), ("dog", True), (" sat on ", False), ("a", True), (" mat.", False)],
    )
    assert differences("big red dog", "dog") == ([("big red", True), (" dog", False)], [("dog", False)])
    assert differences("same", "same") == ([("same", False)], [("same", False)])
    assert differences("猫が座る", "犬が座る") == (
        [("猫", True), ("が座る", False)], [("犬", True), ("が座る", False)],
    )  # fmt: skip


def test_the_longest_texts_compared_take_a_moment_and_longer_ones_are_not() -> None:
    start = time.monotonic()
    assert differences("a b c " * 1300, "b a " * 1900) is not None
    assert time.monotonic() - start < 2.0
    assert differences("a " * 5000, "b") is None
