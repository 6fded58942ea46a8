"""What is asked of an adapter folder before it may become a policy."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from selfreward.engines import adapter
from selfreward.errors import BadInput


def make(base: Path, folder: Path, **options: object) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, about tied heads
        return _make(base, folder, **options)


def _make(base: Path, folder: Path, **options: object) -> Path:
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
    config = json.loads((tiny_policy / "config.json").read_text())
    wide, short = tmp_path / "wide", tmp_path / "short"
    LlamaForCausalLM(LlamaConfig(**config | {"hidden_size": 64, "head_dim": 16})).save_pretrained(wide)
    with pytest.raises(BadInput, match=r"32 features, wide has 64 there: it is of another base"):
        adapter.check(folder, wide)
    LlamaForCausalLM(LlamaConfig(**config | {"num_hidden_layers": 1})).save_pretrained(short)
    with pytest.raises(BadInput, match=r"layers\.1\..*, which short does not have"):
        adapter.check(folder, short)


def test_an_adapter_on_the_head_is_refused(tiny_policy: Path, tmp_path: Path) -> None:
    folder = make(tiny_policy, tmp_path, target_modules=["q_proj", "lm_head"])
    with pytest.raises(BadInput, match="leave embedding and head out"):
        adapter.check(folder, tiny_policy)


def test_a_folder_without_weights_is_named(tmp_path: Path, tiny_policy: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no adapter_model\.safetensors"):
        adapter.check(tmp_path, tiny_policy)
