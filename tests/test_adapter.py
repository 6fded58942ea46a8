"""What is asked of an adapter folder before it may become a policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from selfreward.engines import adapter
from selfreward.errors import BadInput


def make(base: Path, folder: Path, **options: object) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    get_peft_model(model, LoraConfig(**settings)).save_pretrained(folder)
    return folder


def test_a_plain_lora_of_the_base_passes(tiny_policy: Path, tmp_path: Path) -> None:
    adapter.check(make(tiny_policy, tmp_path), tiny_policy)


def test_the_predicted_size_is_that_of_the_weights(tiny_policy: Path, tmp_path: Path) -> None:
    folder = make(tiny_policy, tmp_path, r=8)
    numbers = sum(a * b for a, b in adapter.tensor_shapes(folder / adapter.WEIGHTS).values())
    assert adapter.size(json.loads((tiny_policy / "config.json").read_text()), 8) == 4 * numbers


def test_the_rank_is_the_largest_of_its_patterns(tiny_policy: Path, tmp_path: Path) -> None:
    folder = make(tiny_policy, tmp_path, rank_pattern={"q_proj": 12})
    assert adapter.rank(folder) == 12


@pytest.mark.parametrize("options", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_what_an_engine_cannot_serve_is_refused(
    tiny_policy: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(BadInput, match="not a plain LoRA"):
        adapter.check(make(tiny_policy, tmp_path, **options), tiny_policy)


def test_an_adapter_of_another_base_is_refused_with_the_layer(tiny_policy: Path, tmp_path: Path) -> None:
    """The other base has the same layers, of another width, and then a layer this one has not."""
    folder = make(tiny_policy, tmp_path / "lora")
    config = json.loads((tiny_policy / "config.json").read_text()) | {"hidden_size": 64, "head_dim": 16}
    other = tmp_path / "wide"
    other.mkdir()
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(other)
    with pytest.raises(BadInput, match=r"32 features, wide has 64 there: it is of another base"):
        adapter.check(folder, other)
    short = tmp_path / "short"
    LlamaForCausalLM(LlamaConfig(**config | {"hidden_size": 32, "num_hidden_layers": 1})).save_pretrained(
        short
    )
    with pytest.raises(BadInput, match=r"layers\.1\..*, which short does not have"):
        adapter.check(folder, short)


def test_a_folder_without_weights_is_named(tmp_path: Path, tiny_policy: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no adapter_model\.safetensors"):
        adapter.check(tmp_path, tiny_policy)
