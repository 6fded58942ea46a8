"""The arithmetic of ids and seeds, and the packed form of token ids; cheap to import."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Sequence

MAX_SLOTS = 2**22
MAX_SAMPLES = 256


def prompt_id(run_id: int, idx: int, slot: int) -> int:
    """Id of a prompt: (run, index of the policy, slot)."""
    return (run_id * 64 + idx) * MAX_SLOTS + slot


def candidate_id(run_id: int, idx: int, slot: int, sample: int) -> int:
    """Id of a candidate of the run that sampled it."""
    return prompt_id(run_id, idx, slot) * MAX_SAMPLES + sample


def pair_id(run_id: int, idx: int, slot: int, chosen_sample: int, rejected_sample: int) -> int:
    """Id of a pair of the run that mined it."""
    return prompt_id(run_id, idx, slot) * MAX_SAMPLES**2 + chosen_sample * MAX_SAMPLES + rejected_sample


def derive_seed(*parts: int | str) -> int:
    """A 48-bit seed that depends on its parts alone: (run seed, what for, policy index, slot, sample, …)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as little-endian int32, the form of `token_ids`."""
    packed = array("i", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_ids(blob: bytes) -> list[int]:
    """The inverse of `pack_ids`."""
    packed = array("i", blob)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tolist()
