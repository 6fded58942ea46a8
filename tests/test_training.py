"""The trainer: its loss and gradient against numbers worked by hand, its reference, resume and proof."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selfreward.engines.transformers_engine import TransformersEngine, load_base
from selfreward.errors import GateHalted
from selfreward.protocols import Scored
from selfreward.training import trainer as trainers
from selfreward.training.checkpoints import last_sound_checkpoint
from selfreward.training.job import TrainingSpec, identity, write_job
from selfreward.training.order import in_steps
from selfreward.training.preference import pair_length
from selfreward.training.proof import mean_gap

WEIGHTS = "adapter_model.safetensors"


def spec_for(model: Path, **changes: Any) -> TrainingSpec:
    return replace(
        TrainingSpec(
            method="dpo", model=str(model), parent_adapter=None, dtype="float32", threads=1, seed=3, lr=1e-2,
            epochs=2, batch=2, micro_batch=1, warmup=0.0, save_steps=2, lora_r=4, lora_alpha=8,
            lora_dropout=0.0, lora_targets="auto", beta=0.1,
        ),
        **changes,
    )  # fmt: skip


PAIRS = [
    {"prompt_ids": [1, 40 + i, 41], "chosen_ids": [50 + i, 51, 2], "rejected_ids": [90, 91 + i, 92, 93, 2]}
    for i in range(6)
]


def run(folder: Path, spec: TrainingSpec, rows: list[dict[str, Any]]) -> Path:
    write_job(folder, spec, rows)
    trainers.train(folder)
    return folder / "adapter"


def logprobs(model: Any, prompt: list[int], completion: list[int]) -> float:
    """Σ log p of the completion, by the plainest means there are."""
    with torch.no_grad():
        table = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    return sum(float(table[len(prompt) - 1 + i, t]) for i, t in enumerate(completion))


@pytest.mark.parametrize("smoothing", [None, 0.3])
def test_the_first_loss_is_log_2_and_the_next_follows_the_formula(
    tiny_policy: Path, tmp_path: Path, smoothing: float | None
) -> None:
    """Before any step policy = reference, so each pair's loss is −log σ(0) = log 2 = 0.6931.

    After it the loss of the second batch is −log σ(β·((lw − lw_ref) − (ll − ll_ref))), computed here from
    the two models' own log-probabilities. A label with smoothing 0.3 counts 0.7 for and 0.3 against itself.
    """
    rows = [PAIRS[0] | ({"smoothing": smoothing} if smoothing else {})]
    spec = spec_for(tiny_policy, batch=1, epochs=2, save_steps=1)
    write_job(tmp_path, spec, rows)
    trainer = trainers.build_trainer(
        spec, rows, load_base(str(tiny_policy), "float32", 1), _tokenizer(tiny_policy), tmp_path
    )
    base = load_base(str(tiny_policy), "float32", 1)
    trainer.train()
    log = [json.loads(x) for x in (tmp_path / "train.jsonl").read_text().splitlines()]
    losses = [x["loss"] for x in log if "loss" in x]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    from peft import PeftModel

    after_one = PeftModel.from_pretrained(
        load_base(str(tiny_policy), "float32", 1), tmp_path / "checkpoints" / "checkpoint-1"
    )
    p, w, r = rows[0]["prompt_ids"], rows[0]["chosen_ids"], rows[0]["rejected_ids"]
    moved = (logprobs(after_one, p, w) - logprobs(base, p, w)) - (
        logprobs(after_one, p, r) - logprobs(base, p, r)
    )
    agree, against = (-math.log(1 / (1 + math.exp(x))) for x in (-0.1 * moved, 0.1 * moved))
    other = smoothing or 0.0
    assert losses[1] == pytest.approx((1 - other) * agree + other * against, abs=1e-4)


def test_one_step_raises_the_chosen_against_the_rejected(tiny_policy: Path, tmp_path: Path) -> None:
    """The gradient of −log σ(β·Δ) has the sign of −Δ.

    So a step must raise Δ = log p(chosen) − log p(rejected).
    """
    from peft import PeftModel

    base = load_base(str(tiny_policy), "float32", 1)
    adapter = run(tmp_path, spec_for(tiny_policy, epochs=1, batch=6, lr=1e-3), PAIRS)
    trained = PeftModel.from_pretrained(load_base(str(tiny_policy), "float32", 1), adapter)

    def gap(model: Any) -> float:
        return sum(
            logprobs(model, x["prompt_ids"], x["chosen_ids"])
            - logprobs(model, x["prompt_ids"], x["rejected_ids"])
            for x in PAIRS
        )

    assert gap(trained) > gap(base) + 1e-3


def test_token_ids_reach_the_model_as_they_were_given(tiny_policy: Path, tmp_path: Path) -> None:
    """Libraries once rendered the text again, lost the thought and added an EOS to answers that had none."""
    rows = [
        {"prompt_ids": [1, 5, 5, 1], "chosen_ids": [7, 2, 8], "rejected_ids": [9, 9]}
    ]  # no EOS at the end
    trainer = trainers.build_trainer(
        spec_for(tiny_policy),
        rows,
        load_base(str(tiny_policy), "float32", 1),
        _tokenizer(tiny_policy),
        tmp_path,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].tolist() == [[1, 5, 5, 1, 7, 2, 8], [1, 5, 5, 1, 9, 9, 2]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 6 + [0]]
    assert batch["completion_mask"].tolist() == [[0] * 4 + [1] * 3, [0] * 4 + [1, 1, 0]]


def test_our_losses_are_those_of_the_library(tiny_policy: Path, tmp_path: Path) -> None:
    """TRL's own DPOTrainer on the same rows in the same order, its reference computed at every step."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Theirs(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    spec = spec_for(tiny_policy, batch=3, micro_batch=3, epochs=4, lr=1e-2)
    rows = in_steps(PAIRS, spec, pair_length)
    torch.manual_seed(spec.seed)
    theirs = Theirs(
        model=load_base(str(tiny_policy), "float32", 1),
        args=DPOConfig(max_length=None, beta=spec.beta, **trainers.arguments(spec, tmp_path / "theirs")),
        train_dataset=Dataset.from_list(
            [{k: r[k] for k in ("prompt_ids", "chosen_ids", "rejected_ids")} for r in rows]
        ),
        processing_class=_tokenizer(tiny_policy),
        peft_config=trainers.lora(spec),
    )
    theirs.train()
    wanted = [x["loss"] for x in theirs.state.log_history if "loss" in x]
    run(tmp_path / "ours", spec, PAIRS)
    lines = map(json.loads, (tmp_path / "ours" / "train.jsonl").read_text().splitlines())
    found = [x["loss"] for x in lines if "loss" in x]
    assert found == pytest.approx(wanted, abs=1e-4)
    assert len(found) == 8 and found[-1] < found[0] - 0.05


def test_sft_loss_counts_the_answer_alone(tiny_policy: Path, tmp_path: Path) -> None:
    """−(log p of the answer's tokens) / their number, by hand; the prompt's tokens add nothing."""
    row = {"prompt_ids": [1, 30, 31, 32], "completion_ids": [60, 61, 2]}
    spec = spec_for(tiny_policy, method="sft", batch=1, epochs=1)
    run(tmp_path, spec, [row])
    first = next(
        json.loads(x)["loss"] for x in (tmp_path / "train.jsonl").read_text().splitlines() if "loss" in x
    )
    base = load_base(str(tiny_policy), "float32", 1)
    assert first == pytest.approx(-logprobs(base, row["prompt_ids"], row["completion_ids"]) / 3, abs=1e-4)


def test_training_goes_on_from_the_parent_and_is_held_to_it(tiny_policy: Path, tmp_path: Path) -> None:
    """The reference is once said to be M0 and is M_t, or the reverse: the first loss tells which.

    With the parent as reference it is log 2; with the base it is −log σ(β·Δ) of parent against base.
    """
    from peft import PeftModel

    parent = run(tmp_path / "parent", spec_for(tiny_policy), PAIRS)
    first = {}
    for reference in ("previous", "base"):
        spec = spec_for(tiny_policy, parent_adapter=str(parent), reference=reference, batch=6, epochs=1)
        run(tmp_path / reference, spec, PAIRS)
        lines = (tmp_path / reference / "train.jsonl").read_text().splitlines()
        first[reference] = next(json.loads(x)["loss"] for x in lines if "loss" in x)
    assert first["previous"] == pytest.approx(math.log(2), abs=1e-5)
    base = load_base(str(tiny_policy), "float32", 1)
    worn = PeftModel.from_pretrained(load_base(str(tiny_policy), "float32", 1), parent)
    losses = []
    for x in PAIRS:
        p, w, r = x["prompt_ids"], x["chosen_ids"], x["rejected_ids"]
        delta = (logprobs(worn, p, w) - logprobs(base, p, w)) - (logprobs(worn, p, r) - logprobs(base, p, r))
        losses.append(math.log(1 + math.exp(-0.1 * delta)))
    assert first["base"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)


@pytest.mark.parametrize("kind", ["fresh", "continued", "sft"])
def test_a_training_killed_half_way_resumes_to_the_same_adapter(
    tiny_policy: Path, tmp_path: Path, kind: str
) -> None:
    """Resuming a PeftModel once restored optimiser and scheduler and silently not the trained adapter.

    The checkpoint resumed from lies inside the third epoch: its order must be that of an uninterrupted run.
    """
    parent = str(run(tmp_path / "parent", spec_for(tiny_policy), PAIRS)) if kind == "continued" else None
    rows = [{"prompt_ids": p["prompt_ids"], "completion_ids": p["chosen_ids"]} for p in PAIRS]
    rows = rows if kind == "sft" else PAIRS
    method = "sft" if kind == "sft" else "dpo"
    spec = spec_for(tiny_policy, method=method, parent_adapter=parent, epochs=3, seed=11)
    whole = run(tmp_path / "whole", spec, rows)
    run(tmp_path / "cut", spec, rows)
    checkpoints = tmp_path / "cut" / "checkpoints"
    steps = sorted(int(p.name.split("-")[1]) for p in checkpoints.iterdir())
    assert steps == [8, 9]
    shutil.rmtree(checkpoints / f"checkpoint-{steps[-1]}")  # as if killed before the last one
    shutil.rmtree(tmp_path / "cut" / "adapter")
    trainers.train(tmp_path / "cut")
    assert (tmp_path / "cut" / "adapter" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    logs = [(tmp_path / n / "train.jsonl").read_text().count('"loss"') for n in ("cut", "whole")]
    assert logs == [9, 9]


def test_a_torn_checkpoint_is_set_aside_and_the_one_before_is_used(tiny_policy: Path, tmp_path: Path) -> None:
    spec = spec_for(tiny_policy, epochs=3)
    run(tmp_path, spec, PAIRS)
    checkpoints = tmp_path / "checkpoints"
    newest, before = sorted(checkpoints.iterdir(), key=lambda p: -int(p.name.split("-")[1]))[:2]
    weights = newest / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    job = identity(tmp_path)
    assert last_sound_checkpoint(checkpoints, job) == before
    assert not newest.exists() and any(p.name.startswith("torn-") for p in checkpoints.iterdir())
    (before / "complete.json").unlink()
    assert last_sound_checkpoint(checkpoints, job) is None


def test_a_checkpoint_of_other_rows_is_not_gone_on_from(tiny_policy: Path, tmp_path: Path) -> None:
    """Rows mined anew, after a power cut that took the old ones: their half-way state is another training's.

    How a step is cut into passes decides nothing, and memory may ask for smaller ones.
    """
    spec = spec_for(tiny_policy, batch=2, micro_batch=2)
    run(tmp_path, spec, PAIRS)
    write_job(tmp_path, replace(spec, micro_batch=1), PAIRS)
    kept = last_sound_checkpoint(tmp_path / "checkpoints", identity(tmp_path))
    assert kept is not None and kept.name == "checkpoint-6"
    write_job(tmp_path, spec, PAIRS[::-1])
    assert last_sound_checkpoint(tmp_path / "checkpoints", identity(tmp_path)) is None


def test_the_engine_with_the_adapter_agrees_with_the_trainers_proof(
    tiny_policy: Path, tmp_path: Path
) -> None:
    adapter = run(tmp_path, spec_for(tiny_policy), PAIRS)
    proof = json.loads((adapter / "proof.json").read_text())
    engine = TransformersEngine(str(tiny_policy), dtype="float32", threads=1)
    scored = {
        who: engine.token_logprobs([Scored(r["prompt_ids"], r["completion_ids"], who) for r in proof["rows"]])
        for who in (str(adapter), None)
    }
    gap = mean_gap(scored[str(adapter)], [r["logprobs"] for r in proof["rows"]])
    assert gap < 1e-4
    assert mean_gap(scored[str(adapter)], scored[None]) == pytest.approx(proof["moved"], rel=1e-3)
    assert proof["moved"] > 100 * max(gap, proof["noise"])


def test_a_proof_says_how_far_the_policy_is_from_its_parent(tiny_policy: Path, tmp_path: Path) -> None:
    parent = run(tmp_path / "parent", spec_for(tiny_policy), PAIRS)
    child = run(tmp_path / "child", spec_for(tiny_policy, parent_adapter=str(parent)), PAIRS)
    proof = json.loads((child / "proof.json").read_text())
    engine = TransformersEngine(str(tiny_policy), dtype="float32", threads=1)
    rows = [Scored(r["prompt_ids"], r["completion_ids"], str(parent)) for r in proof["rows"]]
    assert mean_gap(engine.token_logprobs(rows), [r["parent_logprobs"] for r in proof["rows"]]) < 1e-4
    assert proof["moved"] > 1e-3


def test_an_adapter_is_handed_on_whole_and_without_the_reference(tiny_policy: Path, tmp_path: Path) -> None:
    parent = run(tmp_path / "parent", spec_for(tiny_policy), PAIRS)
    adapter = run(tmp_path / "child", spec_for(tiny_policy, parent_adapter=str(parent)), PAIRS)
    assert {WEIGHTS, "adapter_config.json", "proof.json", "tokenizer.json", "chat_template.jinja"} <= {
        p.name for p in adapter.iterdir()
    }
    assert not (adapter / "ref").exists() and not (adapter / "parent").exists()
    from safetensors.torch import load_file

    assert all(w.dtype == torch.float32 for w in load_file(adapter / WEIGHTS).values())


def test_a_loss_that_is_not_a_number_stops_the_training(tiny_policy: Path, tmp_path: Path) -> None:
    with pytest.raises(GateHalted, match="not finite"):
        run(tmp_path, spec_for(tiny_policy, lr=1e30, epochs=4), PAIRS)


def test_every_pair_is_seen_once_an_epoch(tiny_policy: Path, tmp_path: Path) -> None:
    trainer = trainers.build_trainer(
        spec_for(tiny_policy),
        PAIRS,
        load_base(str(tiny_policy), "float32", 1),
        _tokenizer(tiny_policy),
        tmp_path,
    )
    seen = [tuple(b["input_ids"][0].tolist()) for b in trainer.get_train_dataloader()]
    assert len(seen) == 2 * len(PAIRS)
    assert set(seen[:6]) == set(seen[6:]) and len(set(seen)) == len(PAIRS)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
