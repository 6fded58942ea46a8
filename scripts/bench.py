"""Measures what docs/benchmarks.md states; one JSON line a figure.

`make bench WHAT=engine` runs one part. Ratios are taken inside one run, interleaved, on the same requests:
absolute times of a shared machine mean little.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent / "selfreward"
MODEL = "smollm2-135m-instruct"
TOKENS = int(os.environ.get("BENCH_TOKENS", "128"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))


def told(figure: str, **values: Any) -> None:
    """One line of the result."""
    print(json.dumps({"figure": figure} | values | {"machine": machine()}), flush=True)


def machine() -> str:
    """Processor, cores and Python, as a reader would name them."""
    with open("/proc/cpuinfo") as lines:
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of a call, and what it returned."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def engine() -> None:
    """Our batched decoding, seeds per row, against the library's best static batch and one at a time."""
    import torch

    from selfreward.engines.transformers_engine import TransformersEngine
    from selfreward.files import models_folder, packaged
    from selfreward.protocols import Request, Sampling

    prompts = [json.loads(line)["prompt"] for line in packaged("probe.jsonl").read_text().splitlines()][:64]
    draws = Sampling(0.7, 0.9, 0, TOKENS)
    ours = TransformersEngine(
        str(models_folder() / MODEL), dtype="float32", threads=len(os.sched_getaffinity(0))
    )
    requests = [Request([{"role": "user", "content": p}], i, draws) for i, p in enumerate(prompts)]
    ids = [ours.chat.ids(r.messages) for r in requests]

    def static(size: int) -> int:
        """Tokens made by `generate` in static batches of `size`, shortest prompts first."""
        made = 0
        order = sorted(ids, key=len)
        for start in range(0, len(order), size):
            part = order[start : start + size]
            width = max(map(len, part))
            fed = torch.tensor([[ours.chat.pad_id] * (width - len(i)) + i for i in part])
            mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in part])
            options = {
                "do_sample": True,
                "temperature": 0.7,
                "top_p": 0.9,
                "top_k": 0,
                "max_new_tokens": TOKENS,
            }
            out = ours.model.generate(input_ids=fed, attention_mask=mask, **options)[:, width:]
            made += sum(
                next((n + 1 for n, t in enumerate(row) if t in ours.chat.stop_ids), len(row))
                for row in out.tolist()
            )
        return made

    ours.generate(requests[:2])
    rates: dict[str, list[float]] = {"ours": [], "static_64": [], "static_16": []}
    for _ in range(REPEATS):
        took, found = seconds(lambda: ours.generate(requests))
        rates["ours"].append(sum(len(c.token_ids) for c in found) / took)
        for size in (64, 16):
            took, made = seconds(lambda size=size: static(size))
            rates[f"static_{size}"].append(made / took)
    took, found = seconds(lambda: [ours.generate([r])[0] for r in requests[:4]])
    single = sum(len(c.token_ids) for c in found) / took
    best = {k: statistics.median(v) for k, v in rates.items()}
    told(
        "generation tokens/s",
        ours=best["ours"], static_batch=max(best["static_64"], best["static_16"]), one_at_a_time=single,
        against_static=best["ours"] / max(best["static_64"], best["static_16"]),
        against_single=best["ours"] / single,
        wanted={"against_static": 0.9, "against_single": 6},
    )  # fmt: skip


def judge() -> None:
    """Judgements a second: `expected` against `sampled`, on the same candidates.

    `sampled` has three replies of 128 tokens.
    """
    from selfreward import rubric as rubrics
    from selfreward.engines.transformers_engine import TransformersEngine
    from selfreward.files import models_folder, packaged
    from selfreward.protocols import Answer, Question, Sampling
    from selfreward.scorers.judge import JudgeScorer

    model = TransformersEngine(
        str(models_folder() / MODEL), dtype="float32", threads=len(os.sched_getaffinity(0))
    )
    path = packaged("rubrics/additive.md")
    rubric = rubrics.parse(path.read_text(), str(path))
    seeds = [json.loads(line) for line in packaged("seed/instructions.jsonl").read_text().splitlines()][:16]
    questions = [
        Question(
            [{"role": "user", "content": s["prompt"]}],
            [Answer(seeds[(i + k) % 16]["answer"], "stop", k) for k in range(1)],
        )
        for i, s in enumerate(seeds)
    ]
    rates: dict[str, list[float]] = {"expected": [], "sampled": []}
    for _ in range(REPEATS):
        for mode in rates:
            scorer = JudgeScorer(model, rubric, mode, 3, Sampling(0.7, 0.9, 0, 128), None)
            took, _ = seconds(lambda scorer=scorer: scorer.score(questions))
            rates[mode].append(len(questions) / took)
    best = {k: statistics.median(v) for k, v in rates.items()}
    told("judgements/s", **best, ratio=best["expected"] / best["sampled"], wanted={"ratio": 8})


def doors() -> None:
    """Start-up of `--help`, and `status` on the demo run where there is one."""
    commands = {"--help": ["--help"], "status": ["status", "--run", "demo"]}
    for name, arguments in commands.items():
        if name == "status" and not Path("iterations/demo/selfreward.db").exists():
            continue
        times = [
            seconds(
                lambda arguments=arguments: subprocess.run(
                    [str(BIN), *arguments], check=True, capture_output=True
                )
            )[0]
            for _ in range(7)
        ]
        told(f"selfreward {name} seconds", median=statistics.median(times), low=min(times), high=max(times),
             wanted=0.3 if name == "--help" else 0.8)  # fmt: skip


def overhead() -> None:
    """Share of a run's wall time outside models and their loading, from the sessions of the demo run."""
    import sqlite3

    path = Path("iterations/demo/selfreward.db")
    if not path.exists():
        return
    rows = sqlite3.connect(path).execute("SELECT detail FROM event WHERE kind = 'session'").fetchall()
    for (detail,) in rows:
        spent = json.loads(detail)["seconds"]
        models = sum(v for k, v in spent.items() if k != "wall")
        told("driver's share of wall time", share=1 - models / spent["wall"], wall=spent["wall"], wanted=0.03)


def training() -> None:
    """DPO pairs a second: our trainer, its reference pass included, against TRL's on the same pairs."""
    import tempfile

    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from selfreward.engines.chat import Chat
    from selfreward.engines.transformers_engine import load_base
    from selfreward.files import models_folder, packaged
    from selfreward.training import trainer as ours
    from selfreward.training.job import TrainingSpec, write_job

    model = str(models_folder() / MODEL)
    chat = Chat(model)
    seeds = [json.loads(line) for line in packaged("seed/instructions.jsonl").read_text().splitlines()][:24]
    rows = [
        {
            "prompt_ids": chat.ids([{"role": "user", "content": s["prompt"]}]),
            "chosen_ids": chat.answer_ids(s["answer"]),
            "rejected_ids": chat.answer_ids(seeds[i - 1]["answer"]),
        }
        for i, s in enumerate(seeds)
    ]
    spec = TrainingSpec(
        method="dpo", model=model, parent_adapter=None, dtype="float32", threads=len(os.sched_getaffinity(0)),
        seed=0, lr=5e-5, epochs=1, batch=4, micro_batch=2, warmup=0.1, save_steps=1000, lora_r=16,
        lora_alpha=32, lora_dropout=0.0, lora_targets="auto",
    )  # fmt: skip

    class Theirs(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    def own(folder: Path) -> None:
        write_job(folder, spec, rows)
        base = load_base(model, spec.dtype, spec.threads)
        ours.build_trainer(spec, rows, base, chat.tokenizer, folder).train()

    def trl(folder: Path) -> None:
        options = DPOConfig(max_length=None, beta=spec.beta, **ours.arguments(spec, folder))
        base = load_base(model, spec.dtype, spec.threads)
        trainer = Theirs(
            model=base, args=options, train_dataset=Dataset.from_list(rows), processing_class=chat.tokenizer,
            peft_config=ours.lora(spec),
        )  # fmt: skip
        trainer.train()

    rates: dict[str, list[float]] = {"ours": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS):
            for name, work in (("ours", own), ("trl", trl)):
                took, _ = seconds(lambda w=work, n=name, r=repeat: w(Path(folder) / f"{n}{r}"))
                rates[name].append(len(rows) / took)
    best = {k: statistics.median(v) for k, v in rates.items()}
    tokens = statistics.mean(len(r["prompt_ids"]) + len(r["chosen_ids"]) for r in rows)
    told(
        "DPO pairs/s, loading included", **best, ratio=best["ours"] / best["trl"], tokens_mean=tokens,
        wanted={"ratio": 1.3},
    )  # fmt: skip


def vllm() -> None:
    """Tokens a second through our vLLM engine, pipe and commits included, against bare `LLM.generate`."""
    subprocess.run([sys.executable, str(Path(__file__).parent / "bench_vllm.py")], check=True)


def seeing() -> None:
    """The report of a run of 20,000 made-up pairs; then the pages over 250,000 beside a writer.

    BENCH_FOLDER keeps the stores (1.3 GB) for another time. The CPU seconds of the processes stand
    beside wall time, which on a busy machine is somebody else's.
    """
    import resource
    import tempfile

    import measure_pages

    folder = Path(os.environ.get("BENCH_FOLDER", Path(tempfile.gettempdir()) / "selfreward-bench"))
    store = folder / "iterations" / "some" / "selfreward.db"
    if not store.exists():
        store.parent.mkdir(parents=True)
        store.parent.with_suffix(".yaml").write_text("model: made-up\n")
        measure_pages._make(store, 20_000)
    to = folder / "report.html"
    command = [sys.executable, "-m", "selfreward.cli", "report", "--run", "some", "--html", str(to)]
    walls, cpus = [], []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        took, _ = seconds(lambda: subprocess.run(command, check=True, cwd=folder, capture_output=True))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(took)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    told(
        "report of 20,000 pairs, seconds", wall=statistics.median(walls), cpu=statistics.median(cpus),
        kilobytes=to.stat().st_size / 1000, wanted={"wall": 10, "kilobytes": 1000},
    )  # fmt: skip
    script = Path(__file__).parent / "measure_pages.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True)


def store() -> None:
    """A full-size store: inserts, what is missing, mining, pages, status, beside a writer; 1.5 GB in /tmp."""
    script, folder = Path(__file__).parent / "bench_store.py", Path("/tmp/selfreward-bench-store")
    try:
        subprocess.run([sys.executable, str(script), str(folder)], check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


PARTS = {
    "engine": engine, "judge": judge, "training": training, "vllm": vllm, "doors": doors,
    "overhead": overhead, "seeing": seeing, "store": store,
}  # fmt: skip

if __name__ == "__main__":
    for wanted in sys.argv[1:] or PARTS:
        PARTS[wanted]()
