"""The GPU check where there is no GPU: what it asks for, what it makes, how it judges what it found."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfreward.plan.count import Counter
from selfreward.shapes import parameters, shape_of

SCRIPT = Path(__file__).parent.parent / "scripts/gpu_check.py"
SPEC = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
assert SPEC and SPEC.loader
check: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check)

SOUND: dict[str, Any] = {
    "engine": {
        "generate": {
            "faults": 0, "seconds": 2.0, "steps": 100, "tokens": 6400, "prompt_tokens": 12_800, "rows": 64,
        },
        "sampled": {"faults": 0}, "expected": {"sound": True, "tokens_per_second": 20_000.0}, "repeats": True,
    },
    "proof": {"gap": 0.02, "noise": 0.01, "moved": 0.2},
    "resume": {"held": True, "tokens_per_step": 2048.0, "step_seconds": 0.1},
}  # fmt: skip


def test_without_a_gpu_it_says_so_in_one_line_and_ends_with_4() -> None:
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, str(SCRIPT)]
    done = subprocess.run(line, env=hidden, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "") and done.stderr.count("\n") == 1
    assert "CUDA_VISIBLE_DEVICES hides every GPU; nothing was measured" in done.stderr


def test_the_random_model_has_a_billion_parameters() -> None:
    """32768·2048 + 16·(2·2048·(2048 + 512) + 3·2048·8192 + 2·2048) + 2048 = 1,040,254,976."""
    shape = shape_of(check.RANDOM_CONFIG)
    assert parameters(shape) == 1_040_254_976 and shape.known
    assert shape.context >= 4096


def test_the_random_models_tokenizer_knows_every_id_and_the_scores(tmp_path: Path) -> None:
    """A chat of "Hi": `<|turn|>` user, newline, two bytes, `<|end|>`, newline, `<|turn|>` assistant, newline.

    That is 1 + 4 + 1 + 2 + 1 + 1 + 1 + 9 + 1 tokens; " 3" is one.
    """
    from tokenizers import Tokenizer

    check.write_tokenizer(tmp_path, 1000)
    made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert made.get_vocab_size() == 1000 and None not in [made.id_to_token(i) for i in range(1000)]
    counter = Counter(tmp_path, None, None)
    assert counter.chats([[{"role": "user", "content": "Hi"}]]) == [21]
    assert counter.texts([f" {n}" for n in range(1, 6)]) == [1] * 5
    assert check.RANDOM_CONFIG["eos_token_id"] == made.token_to_id("<|end|>")


@pytest.mark.parametrize("given", ["--rows 0", "--tokens x", "--phase nothing", "--unknown"])
def test_a_wrong_argument_is_refused(given: str) -> None:
    with pytest.raises(SystemExit) as ended:
        check.arguments(given.split())
    assert ended.value.code == 2


def test_arguments_have_defaults_and_phases_are_known() -> None:
    options = check.arguments([])
    assert (options.model, options.rows, options.tokens, options.phase) == (None, 64, 128, None)
    assert check.arguments(["--phase", "proof"]).phase == "proof"


def test_pairs_differ_and_hold_no_special() -> None:
    rows = check.pairs(48, 32768)
    assert len({tuple(r["chosen_ids"]) for r in rows}) == 48
    for row in rows:
        assert row["chosen_ids"] != row["rejected_ids"]
        assert all(8 <= i < 30_000 for ids in row.values() for i in ids)
    assert max(i for r in check.pairs(48, 500) for ids in r.values() for i in ids) < 500


def test_a_step_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    lines = [
        '{"step": 0, "total": 2}',
        '{"step": 1, "total": 2, "loss": 0.69}',
        '{"step": 2, "total": 2, "loss": 0.',
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    assert check.losses(tmp_path) == [0.69] and check.losses(tmp_path / "none") == []


def test_shares_are_of_the_makers_peaks() -> None:
    """The random model on an H100.

    A step reads 2·1,040,254,976 bytes and the cache of 12,800 + 3,200 tokens at 32,768 bytes (2·16·512·2);
    100 steps in 2 s of 3.35e12 a second: 0.0389. Reading 20,000 tokens/s at 2·1,040,252,928 FLOP of 989e12 is
    0.0421, training 20,480 tokens/s at 4: 0.0862 (working weights leave out the last norm alone: the tied
    table is the head).
    """
    found = check.shares(SOUND, check.RANDOM_CONFIG, "NVIDIA H100 80GB HBM3", 8e10)
    assert found["bandwidth_while_sampling"] == pytest.approx(0.0389, abs=1e-4)
    assert found["flops_while_reading"] == pytest.approx(0.0421, abs=1e-4)
    assert found["flops_while_training"] == pytest.approx(0.0862, abs=1e-4)
    unknown = check.shares(SOUND, check.RANDOM_CONFIG, "Something New", 8e10)
    assert set(unknown.values()) == {None}


@pytest.mark.parametrize(
    "where, what, told",
    [("proof", {"gap": 0.06}, "disagree"), ("proof", {"gap": float("nan")}, "disagree"),
     ("proof", {"moved": 0.04}, "moved nothing"), ("resume", {"held": False}, "resumed"),
     ("engine", {"repeats": False}, "other tokens"), ("engine", {"sampled": {"faults": 1}}, "faults"),
     ("engine", {"expected": {"sound": False}}, "no probabilities")],
)  # fmt: skip
def test_each_thing_that_did_not_hold_is_told(where: str, what: dict[str, Any], told: str) -> None:
    assert check.verdict(SOUND) == []
    wrong = check.verdict(SOUND | {where: SOUND[where] | what})
    assert len(wrong) == 1 and told in wrong[0]


def test_a_phase_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    """The phase `proof` of a folder that is not there: a child, its log, one line."""
    with pytest.raises(RuntimeError, match="proof ended with code 1"):
        check.phase("proof", {"model": str(tmp_path), "adapter": str(tmp_path)}, tmp_path / "log")
    assert "proof.json" in (tmp_path / "log").read_text()
