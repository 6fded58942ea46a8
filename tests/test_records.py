"""Ids and seeds: computed from slots alone, all different, and small enough for every reader."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.ids import (
    MAX_SAMPLES,
    MAX_SLOTS,
    candidate_id,
    derive_seed,
    pack_ids,
    pair_id,
    prompt_id,
    unpack_ids,
)

universal = settings(deadline=None, derandomize=True, max_examples=200)
runs, policies = st.integers(1, 255), st.integers(0, 63)
slots, samples = st.integers(0, MAX_SLOTS - 1), st.integers(0, MAX_SAMPLES - 1)
places = st.tuples(runs, policies, slots, samples, samples)


def test_ids_are_worked_out_from_run_policy_slot_and_sample() -> None:
    """Run 1, M2, slot 3: (64 + 2)·2²² + 3; candidates ·256 + sample; pairs ·65536 + chosen·256 + rejected."""
    prompt = 66 * 4194304 + 3
    assert prompt_id(1, 2, 3) == prompt == 276824067
    assert candidate_id(1, 2, 3, 1) == prompt * 256 + 1
    assert pair_id(1, 2, 3, 1, 2) == prompt * 65536 + 258


@given(one=places, two=places)
@universal
def test_two_places_have_two_ids_and_the_later_place_the_greater(
    one: tuple[int, int, int, int, int], two: tuple[int, int, int, int, int]
) -> None:
    for identify, parts in ((prompt_id, 3), (candidate_id, 4), (pair_id, 5)):
        first, second = one[:parts], two[:parts]
        assert (identify(*first) < identify(*second)) == (first < second)  # type: ignore[operator]


def test_neighbouring_places_do_not_meet() -> None:
    assert prompt_id(1, 0, MAX_SLOTS - 1) + 1 == prompt_id(1, 1, 0)
    assert prompt_id(1, 63, MAX_SLOTS - 1) + 1 == prompt_id(2, 0, 0)
    assert candidate_id(1, 0, 0, MAX_SAMPLES - 1) + 1 == candidate_id(1, 0, 1, 0)


def test_the_greatest_id_is_exact_in_a_float() -> None:
    """255·64 + 63 < 2¹⁴, and 14 + 22 + 16 = 52 bits: below 2⁵³, where JSON readers begin to round."""
    greatest = pair_id(255, 63, MAX_SLOTS - 1, MAX_SAMPLES - 1, MAX_SAMPLES - 1)
    assert greatest == 2**52 - 1 and int(float(greatest)) == greatest


@given(ids=st.lists(st.integers(0, 2**31 - 1)))
@universal
def test_packed_ids_come_back(ids: list[int]) -> None:
    assert unpack_ids(pack_ids(ids)) == ids and len(pack_ids(ids)) == 4 * len(ids)


def test_ids_are_packed_little_endian() -> None:
    assert pack_ids([1, 258]) == b"\x01\x00\x00\x00\x02\x01\x00\x00"


def test_an_id_too_large_for_its_place_is_refused_and_not_wrapped() -> None:
    with pytest.raises(OverflowError):
        pack_ids([2**31])


def test_a_seed_is_the_same_in_every_process_and_version() -> None:
    """First 6 bytes of sha256("7/judge/0"), big-endian; python's own hash() would change with each start."""
    assert derive_seed(7, "judge", 0) == derive_seed(7, "judge", 0) == 0x27E8979EC18F


@given(
    parts=st.lists(st.integers(0, 10**6), min_size=1, max_size=4),
    other=st.lists(st.integers(0, 10**6), min_size=1, max_size=4),
)
@universal
def test_other_places_have_other_seeds_of_48_bits(parts: list[int], other: list[int]) -> None:
    assert 0 <= derive_seed(*parts) < 2**48
    assert (derive_seed(*parts) == derive_seed(*other)) == (parts == other)
