"""The fixtures of the suite: a tiny random policy for logic, the real 135M one for a few end-to-end runs.

The tiny policy is a real Llama with a real tokenizer and chat template, only small and untrained: engine,
trainer and loop run for real on it, in seconds.
"""

from __future__ import annotations

import os
import signal
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nursery import Nursery
from tests.torture import COMMAND, SHORT, prepare

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite started with nohup or & still tests Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_policy(
    folder: Path,
    *,
    template: str | None = TEMPLATE,
    bos: bool = False,
    head_dim: int = 8,
    words: str = "",
    loud: float = 5.0,
) -> Path:
    """A random Llama of two layers with a byte-level tokenizer, saved like any model.

    vLLM's attention on a CPU needs a `head_dim` of 32. Each letter of `words` is a token behind a space, and
    now likely, now unlikely: its logits are `loud` times as wide as others'.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    scores = [
        ("Ġ", n) for n in dict.fromkeys(f"12345{words}")
    ]  # " 1" to " 5" are one token each, so that a score is likely
    vocabulary = {t: i for i, t in enumerate([*specials, *alphabet, *map("".join, scores)])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=scores))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for word in words:
            model.lm_head.weight[vocabulary[f"Ġ{word}"]] *= loud
    # Random bytes rarely end an answer: every capital letter does, besides the end of a turn.
    model.generation_config.eos_token_id = [2, *(vocabulary[c] for c in string.ascii_uppercase)]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny random policy."""
    return make_tiny_policy(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """A process that runs the command line and its children as forks of itself: see tests/nursery.py."""
    with Nursery() as here:
        yield here


@pytest.fixture(scope="session")
def short_run(nursery: Nursery, tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run from the base to M2."""
    folder = prepare(tmp_path_factory.mktemp("short") / "run", tiny_policy, **SHORT)
    done = nursery.run(folder, *COMMAND)
    assert done.code == 0, done.said
    return folder


@pytest.fixture(scope="session")
def real_policy() -> Path:
    """The folder of SmolLM2-135M-Instruct.

    `make test` fetches it; elsewhere the tests that need it are skipped.
    """
    from selfreward.files import models_folder

    folder = models_folder() / "smollm2-135m-instruct"
    if not (folder / "model.safetensors").exists():
        pytest.skip("the demo policy is not there: `make policy` fetches it")
    return folder
