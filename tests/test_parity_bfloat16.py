"""bfloat16 and merged weights in vLLM: as near to transformers as the dtype's own rounding, measured here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from selfreward.engines import merge
from selfreward.engines.client import EngineClient
from selfreward.engines.transformers_engine import TransformersEngine
from selfreward.protocols import Request, Sampling, Scored
from tests.conftest import make_tiny_policy
from tests.test_engine import _adapter
from tests.test_parity import CHATS, NEAR, gap

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vllm is not installed: `make install` brings it"
    ),
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_policy(tmp_path_factory.mktemp("parity"), head_dim=32)


def local(policy: Path, dtype: str = "float32") -> TransformersEngine:
    return TransformersEngine(str(policy), dtype=dtype, batch=32, threads=2)


def in_vllm(policy: Path, log: Path, rows: list[Scored], **settings: Any) -> list[list[float]]:
    own = {"model": str(policy), "threads": 2, "lora_rank": 4, "kv_cache_gib": 0.25, "context": 512}
    engine = EngineClient("vllm", own | settings, log)
    found = engine.token_logprobs(rows)
    engine.close()
    return found


def given(policy: Path, adapter: str | None) -> list[Scored]:
    """Nine sampled answers, to be scored by everyone."""
    engine, options = local(policy), Sampling(max_new_tokens=12)
    drawn = engine.generate([Request(chat, i, options, adapter) for i, chat in enumerate(CHATS)])
    prompts = engine.chat_ids(CHATS)
    return [Scored(p, c.token_ids, adapter) for p, c in zip(prompts, drawn, strict=True)]


def test_in_bfloat16_vllm_is_as_near_as_the_dtype_rounds(policy: Path, tmp_path: Path) -> None:
    """Rounding is what bfloat16 moves in transformers, at most and over all tokens; both are rounded once.

    So two engines differ by at most twice of it, and here by more than float32 would let them.
    """
    rows = given(policy, None)
    exact, rounded = local(policy).token_logprobs(rows), local(policy, "bfloat16").token_logprobs(rows)
    rounding = gap(exact, rounded)
    found = in_vllm(policy, tmp_path / "log", rows, dtype="bfloat16")
    assert NEAR < rounding < 0.5
    assert gap(found, exact) < 2 * rounding
    assert gap(found, rounded) < 2 * rounding


def test_a_merged_export_answers_in_vllm_as_base_and_adapter_do(policy: Path, tmp_path: Path) -> None:
    """Stored in bfloat16: in vLLM as in transformers to 1e-3, from base and adapter no further than that."""
    worn = _adapter(tmp_path / "adapter", policy, 1)
    to = tmp_path / "merged"
    to.mkdir()
    merge.merge(policy, Path(worn), to, "bfloat16")
    merge.copy_beside(policy, Path(worn), to, "bfloat16")
    rows = given(policy, worn)
    bare = [Scored(r.prompt_ids, r.completion_ids) for r in rows]
    stored = local(to).token_logprobs(bare)
    found = in_vllm(to, tmp_path / "log", bare, dtype="float32")
    assert gap(found, stored) < NEAR
    assert (
        gap(found, local(policy).token_logprobs(rows))
        < 1.01 * gap(stored, local(policy).token_logprobs(rows)) + NEAR
    )
    assert gap(found, local(policy).token_logprobs(bare)) > 0.1
