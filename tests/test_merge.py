"""Merged weights: W + scaling·B·A, in every shard, and a check that notices anything else."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfreward import cli
from selfreward import records as r
from selfreward.engines import merge, model
from selfreward.errors import BadInput, WorkFailed
from selfreward.files import sha256_of
from selfreward.recipe import Recipe
from selfreward.store import Store

Q, DOWN = "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def make_adapter(base: Path, to: Path, std: float = 0.1, **options: Any) -> Path:
    """A LoRA on every linear layer whose B is not zero, as peft saves it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    torch.manual_seed(1)
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    made.save_pretrained(to)
    return to


@pytest.fixture(scope="module")
def sharded(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy in bfloat16, in several files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("sharded")
    whole = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.bfloat16)
    whole.save_pretrained(folder, max_shard_size="20KB")
    AutoTokenizer.from_pretrained(tiny_policy).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for f in folder.glob("model*.safetensors") for k, v in load_file(f).items()}


@pytest.mark.parametrize(
    "options, at_q, at_down",
    [({}, 8 / 4, 8 / 4), ({"use_rslora": True}, 8 / math.sqrt(4), 8 / math.sqrt(4)),
     ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 32}}, 8 / 2, 32 / 4)],
    ids=["plain", "rslora", "patterns"],
)  # fmt: skip
def test_a_merged_weight_is_the_sum_of_base_and_scaled_product(
    tiny_policy: Path, tmp_path: Path, options: dict[str, Any], at_q: float, at_down: float
) -> None:
    """Alpha 8 and r 4: 2·B·A; rank-stabilised 8/√4; r 2 at q_proj 8/2, alpha 32 at down_proj 32/4."""
    adapter = make_adapter(tiny_policy, tmp_path / "adapter", **options)
    merge.merge(tiny_policy, adapter, tmp_path, "float32")
    base, found = weights_of(tiny_policy), weights_of(tmp_path)
    lora = load_file(adapter / "adapter_model.safetensors")
    for layer, scale in ((Q, at_q), (DOWN, at_down)):
        a, b = (lora[f"base_model.model.{layer}.lora_{s}.weight"] for s in "AB")
        expected = base[f"{layer}.weight"] + scale * (b @ a)
        assert torch.allclose(found[f"{layer}.weight"], expected, atol=1e-6)
    assert torch.equal(found["model.norm.weight"], base["model.norm.weight"])
    assert found.keys() == base.keys()


def test_the_merged_model_answers_as_base_and_adapter_do(tiny_policy: Path, tmp_path: Path) -> None:
    """Loaded in plain transformers, logits against peft's own; and they are not the base's."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = make_adapter(tiny_policy, tmp_path / "adapter")
    to = tmp_path / "merged"
    to.mkdir()
    merge.merge(tiny_policy, adapter, to, "float32")
    merge.copy_beside(tiny_policy, adapter, to, "float32")
    ids = torch.tensor([[5, 60, 7, 80, 9, 100]])
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(to)
        bare = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
        before = bare(ids).logits
        worn = PeftModel.from_pretrained(bare, str(adapter))
        assert whole.dtype == torch.float32
        assert torch.allclose(whole(ids).logits, worn(ids).logits, atol=1e-4)
        assert not torch.allclose(whole(ids).logits, before, atol=1e-2)
    assert AutoTokenizer.from_pretrained(to).chat_template


def test_shards_stay_shards_and_the_index_names_every_weight(sharded: Path, tmp_path: Path) -> None:
    adapter = make_adapter(sharded, tmp_path / "adapter")
    to = tmp_path / "merged"
    to.mkdir()
    merge.merge(sharded, adapter, to, "bfloat16")
    names = sorted(f.name for f in sharded.glob("*.safetensors"))
    assert sorted(f.name for f in to.glob("*.safetensors")) == names
    index, own = (json.loads((f / merge.INDEX).read_text()) for f in (to, sharded))
    assert index["weight_map"] == own["weight_map"]
    found = weights_of(to)
    assert index["metadata"]["total_size"] == sum(2 * w.numel() for w in found.values())
    assert {w.dtype for w in found.values()} == {torch.bfloat16}


def test_the_check_passes_for_the_merge_and_for_nothing_else(sharded: Path, tmp_path: Path) -> None:
    """Stored in bfloat16; without the adapter, or with a half or nine tenths of it, it is another policy."""
    adapter = make_adapter(sharded, tmp_path / "adapter")
    to = tmp_path / "merged"
    to.mkdir()
    merge.merge(sharded, adapter, to, "bfloat16")
    merge.copy_beside(sharded, adapter, to, "bfloat16")
    found = merge.check(sharded, adapter, to, "bfloat16", 1)
    assert found["gap"] < 1e-4 < found["rounding"] < found["moved"]
    good = {f.name: load_file(f) for f in to.glob("model*.safetensors")}
    base = weights_of(sharded)
    for share in (0.0, 0.5, 0.9):
        for name, weights in good.items():
            mixed = {k: base[k].float().lerp(w.float(), share).bfloat16() for k, w in weights.items()}
            save_file(mixed, to / name, metadata={"format": "pt"})
        with pytest.raises(WorkFailed, match="not the policy"):
            merge.check(sharded, adapter, to, "bfloat16", 1)


@pytest.mark.parametrize("dtype", ["base", "float32"])
def test_what_is_stored_wider_loses_less(sharded: Path, tmp_path: Path, dtype: str) -> None:
    """The base's own dtype is bfloat16 here; float32 rounds nothing that shows."""
    adapter = make_adapter(sharded, tmp_path / "adapter")
    to = tmp_path / "merged"
    to.mkdir()
    merge.merge(sharded, adapter, to, dtype)
    merge.copy_beside(sharded, adapter, to, dtype)
    found = merge.check(sharded, adapter, to, dtype, 1)
    assert (found["rounding"] < 1e-4) == (dtype == "float32") and found["gap"] < 1e-4


def test_an_adapter_of_a_layer_no_shard_has_is_refused(tiny_policy: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_policy, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    foreign = {k.replace("layers.1.", "layers.7."): v for k, v in weights.items()}
    save_file(foreign, adapter / "adapter_model.safetensors")
    with pytest.raises(BadInput, match=r"layers\.7"):
        merge.merge(tiny_policy, adapter, tmp_path, "float32")


def test_export_merges_in_a_child_and_says_how_near_it_is(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command on a run with one trained policy; the folder appears complete."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "iterations/mine"
    folder.mkdir(parents=True)
    adapter = make_adapter(sharded, folder / "M1/adapter")
    (tmp_path / "iterations/mine.yaml").write_text(f"model: {sharded}\n")
    text = Recipe.model_validate({"model": str(sharded)}).model_dump_json(by_alias=True)
    _, identity = model.resolve(str(sharded), None, tmp_path, fetch=False)
    store = Store(folder / "selfreward.db", write=True)
    store.save(r.Run(id=1, name="mine", recipe=text, fingerprint="f", seed=0, created_at="now"))
    made: dict[str, Any] = {"run_id": 1, "model": identity, "made_in": 1, "created_at": "now"}
    store.save(r.Policy(**made, name="M0", idx=0, status="promoted"))
    sha256 = sha256_of(adapter / "adapter_model.safetensors")
    weights = {"adapter": "M1/adapter", "sha256": sha256}
    store.save(r.Policy(**made, **weights, name="M1", idx=1, parent="M0", status="promoted"))
    store.close()
    monkeypatch.setattr(sys, "argv", ["selfreward", "export", "M1", "--to", "out", "--merge"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code in (0, None), said.err
    assert "M1 merged into out, bfloat16" in said.out
    assert {"config.json", "tokenizer.json", "chat_template.jinja", merge.INDEX, merge.RESULT} <= {
        f.name for f in Path("out").iterdir()
    }
    assert not Path("out.part").exists() and (folder / "logs/export.log").exists()


@pytest.mark.slow
def test_a_small_change_of_a_real_model_is_told_from_none(real_policy: Path, tmp_path: Path) -> None:
    """Where bfloat16 loses a good part of so little, a merge that is right still differs from one without."""
    adapter = make_adapter(real_policy, tmp_path / "adapter", std=0.003)
    to = tmp_path / "merged"
    to.mkdir()
    merge.merge(real_policy, adapter, to, "bfloat16")
    merge.copy_beside(real_policy, adapter, to, "bfloat16")
    found = merge.check(real_policy, adapter, to, "bfloat16", 1)
    assert found["gap"] < found["moved"] / 20 and found["rounding"] < found["moved"]
    shutil.copyfile(real_policy / "model.safetensors", to / "model.safetensors")
    with pytest.raises(WorkFailed, match="not the policy"):
        merge.check(real_policy, adapter, to, "bfloat16", 1)
