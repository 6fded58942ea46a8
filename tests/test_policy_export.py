"""Exporting a policy: what is copied, what is checked first, what is refused; no weights are run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from selfreward import cli
from selfreward import records as r
from selfreward.engines import model
from selfreward.files import sha256_of
from selfreward.recipe import Recipe
from selfreward.store import Store

LAYER = "model.layers.0.self_attn.q_proj"
LORA = {
    "peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": False, "modules_to_save": None, "bias": "none",
    "base_model_name_or_path": "/somewhere/else/base",
}  # fmt: skip

Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    """`selfreward export` in a folder with a run: M0 and M1 are the base, M2 has an adapter."""
    monkeypatch.chdir(tmp_path)
    base, adapter = Path("iterations/base"), Path("iterations/mine/M2/adapter")
    base.mkdir(parents=True)
    adapter.mkdir(parents=True)
    save_file({f"{LAYER}.weight": numpy.zeros((4, 4), "float32")}, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 9}))
    (base / "tokenizer_config.json").write_text('{"of": "base"}')
    (base / "tokenizer.json").write_text('{"of": "base"}')
    sides = {"A": numpy.ones((2, 4), "float32"), "B": numpy.ones((4, 2), "float32")}
    named = {f"base_model.model.{LAYER}.lora_{k}.weight": v for k, v in sides.items()}
    save_file(named, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps(LORA))
    (adapter / "tokenizer.json").write_text('{"of": "adapter"}')
    (adapter / "job.json").write_text("{}")
    recipe = Recipe.model_validate({"model": {"id": "base", "chat_template": "plain"}})
    Path("iterations/mine.yaml").write_text("model: base\n")
    _, identity = model.resolve("base", None, Path("iterations"), fetch=False)
    store = Store(Path("iterations/mine/selfreward.db").resolve(), write=True)
    text = recipe.model_dump_json(by_alias=True)
    store.save(r.Run(id=1, name="mine", recipe=text, fingerprint="f", seed=0, created_at="now"))
    made: dict[str, Any] = {"run_id": 1, "model": identity, "made_in": 1, "created_at": "now"}
    store.save(r.Policy(**made, name="M0", idx=0, status="promoted"))
    store.save(r.Policy(**made, name="M1", idx=1, parent="M0", status="promoted"))
    sha256 = sha256_of(adapter / "adapter_model.safetensors")
    weights = {"adapter": "M2/adapter", "sha256": sha256}
    store.save(r.Policy(**made, **weights, name="M2", idx=2, parent="M1", status="promoted"))
    store.close()

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["selfreward", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def test_an_exported_adapter_is_the_trained_one_with_tokenizer_and_template(export: Export) -> None:
    """The adapter's own tokenizer stands; what it lacks comes from the base and the recipe."""
    code, out, _ = export("M2", "--to", "out")
    assert code == 0 and "M2 written to out" in out
    source = Path("iterations/mine/M2/adapter/adapter_model.safetensors")
    assert Path("out/adapter_model.safetensors").read_bytes() == source.read_bytes()
    assert json.loads(Path("out/tokenizer.json").read_text()) == {"of": "adapter"}
    assert json.loads(Path("out/tokenizer_config.json").read_text()) == {"of": "base"}
    assert "User: " in Path("out/chat_template.jinja").read_text()
    assert not Path("out/job.json").exists() and not Path("out.part").exists()


def test_an_export_brings_a_model_card_of_this_policy_and_not_the_librarys(export: Export) -> None:
    Path("iterations/mine/M2/adapter/README.md").write_text("a card nobody filled in")
    export("M2", "--to", "out")
    told = Path("out/README.md").read_text()
    sha256 = sha256_of(Path("out/adapter_model.safetensors"))
    assert sha256 in told and "# mine M2" in told and "library_name: peft" in told.split("---")[1]
    assert "nobody filled in" not in told


def test_an_exported_adapter_names_the_base_where_it_lies(export: Export) -> None:
    export("M2", "--to", "out")
    config = json.loads(Path("out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(Path("iterations/base").resolve())
    assert config["r"] == 2 and config["lora_alpha"] == 4


def test_an_adapter_that_is_not_what_was_trained_is_refused(export: Export) -> None:
    weights = Path("iterations/mine/M2/adapter/adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    code, _, err = export("M2", "--to", "out")
    assert code == 3 and "is not what was trained" in err and not Path("out").exists()


def test_a_base_that_is_another_now_is_refused(export: Export) -> None:
    with open("iterations/base/model.safetensors", "ab") as file:
        file.write(b"\x00")
    code, _, err = export("M2", "--to", "out")
    assert code == 3 and "was made from base sha256:" in err


@pytest.mark.parametrize(
    "arguments, told",
    [("M1 --to out", "M1 is the base itself"), ("M9 --to out", "no policy M9 in this run: it has M0, M1, M2"),
     ("M2 --to iterations", "exists already"), ("M2 --to no/out", "its parent folder does not")],
)  # fmt: skip
def test_what_cannot_be_exported_is_told_in_one_line(export: Export, arguments: str, told: str) -> None:
    code, out, err = export(*arguments.split())
    assert (code, out) == (3, "") and told in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "change, told",
    [({"use_dora": True}, "use_dora"), ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
     ({"bias": "all"}, "bias"), ({"fan_in_fan_out": True}, "fan_in_fan_out")],
)  # fmt: skip
def test_an_adapter_that_is_more_than_b_times_a_is_not_merged(
    export: Export, change: dict[str, Any], told: str
) -> None:
    Path("iterations/mine/M2/adapter/adapter_config.json").write_text(json.dumps(LORA | change))
    code, _, err = export("M2", "--to", "out", "--merge")
    assert code == 3 and told in err and not Path("out").exists() and not Path("out.part").exists()


def test_a_quantised_base_is_not_merged_into(export: Export) -> None:
    Path("iterations/base/config.json").write_text('{"quantization_config": {"bits": 4}}')
    code, _, err = export("M2", "--to", "out", "--merge")
    assert code == 3 and "is quantised" in err


def test_the_store_dtype_is_one_of_the_known(export: Export) -> None:
    assert export("M2", "--to", "out", "--merge", "--dtype", "int4")[0] == 2
