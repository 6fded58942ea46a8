"""Figures of the vLLM engine: its speed inside a run against vLLM alone, and what cached prefixes save.

`make bench WHAT=vllm`. The run is a real one, up to the judge's stage, and its own clock is read from the
store: pipe, rows and commits are in it. vLLM alone answers the same requests with the same settings.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
BIN = Path(sys.executable).parent / "selfreward"
TOKENS = int(os.environ.get("BENCH_TOKENS", "64"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
RECIPE = """
model: smollm2-135m-instruct
start: {{sft: null}}
engine: {{type: vllm, batch: 64, block: 16, context: 2048}}
prompts: {{from: {prompts}, count: 48}}
candidates: {{n: 4, sampling: {{temperature: 0.7, top_p: 0.9, max_new_tokens: {tokens}}}}}
probe: {{count: 8, max_new_tokens: 8}}
evaluate: null
"""


def run(folder: Path) -> sqlite3.Connection:
    """A run to the candidates of M1, and its store."""
    from selfreward.files import packaged

    (folder / "iterations").mkdir()
    recipe = RECIPE.format(prompts=packaged("prove/held_out.jsonl"), tokens=TOKENS)
    (folder / "iterations" / "b.yaml").write_text(recipe)
    line = [str(BIN), "iterate", "--to", "M2", "--pause-before", "judge"]
    subprocess.run(line, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return sqlite3.connect(folder / "iterations" / "b" / "selfreward.db")


def alone(store: sqlite3.Connection, llm: Any, chat: Any) -> float:
    """Tokens a second of `LLM.generate` on the requests of the stored candidates."""
    from vllm import SamplingParams

    rows = store.execute(
        "SELECT p.messages, c.seed FROM candidate c JOIN prompt p ON p.id = c.prompt_id ORDER BY c.id"
    ).fetchall()
    fed = [{"prompt_token_ids": chat.ids(json.loads(messages))} for messages, _ in rows]
    params = [
        SamplingParams(
            temperature=0.7, top_p=0.9, max_tokens=TOKENS, seed=seed, ignore_eos=True, logprobs=0,
            stop_token_ids=sorted(chat.stop_ids), detokenize=False,
        )
        for _, seed in rows
    ]  # fmt: skip
    llm.reset_prefix_cache()
    start = time.perf_counter()
    found = llm.generate(fed, params, use_tqdm=False)
    return sum(len(o.outputs[0].token_ids) for o in found) / (time.perf_counter() - start)


def generation() -> dict[str, Any]:
    """The engine inside a run against vLLM alone, one after the other, `REPEATS` times."""
    from selfreward.engines.vllm_engine import VllmEngine
    from selfreward.files import models_folder

    model = str(models_folder() / "smollm2-135m-instruct")
    threads = len(os.sched_getaffinity(0))
    bare = VllmEngine(model, dtype="float32", batch=64, threads=threads, context=2048)
    rates: dict[str, list[float]] = {"ours": [], "alone": []}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            store = run(Path(folder))
            ((tokens, seconds),) = store.execute(
                "SELECT n_tokens, seconds FROM stage WHERE policy = 'M1' AND name = 'candidates'"
            )
            rates["ours"].append(tokens / seconds)
            rates["alone"].append(alone(store, bare.llm, bare.chat))
            store.close()
    best = {k: statistics.median(v) for k, v in rates.items()}
    return best | {"ratio": best["ours"] / best["alone"], "runs": rates, "wanted": {"ratio": 0.97}}


def judging() -> dict[str, Any]:
    """Judgements a second of four candidates a prompt, prefixes cached and not; `expected` mode."""
    from selfreward import rubric as rubrics
    from selfreward.engines.client import EngineClient
    from selfreward.files import models_folder, packaged
    from selfreward.protocols import Answer, Question, Sampling
    from selfreward.scorers.judge import JudgeScorer

    path = packaged("rubrics/additive.md")
    rubric = rubrics.parse(path.read_text(), str(path))
    seeds = [json.loads(line) for line in packaged("seed/instructions.jsonl").read_text().splitlines()][:12]
    questions = [
        Question(
            [{"role": "user", "content": s["prompt"]}],
            [Answer(seeds[(i + k) % len(seeds)]["answer"], "stop", k) for k in range(4)],
        )
        for i, s in enumerate(seeds)
    ]
    rates: dict[str, list[float]] = {"cached": [], "not_cached": []}
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for name in rates:
            settings = {
                "model": str(models_folder() / "smollm2-135m-instruct"), "dtype": "float32", "batch": 64,
                "threads": len(os.sched_getaffinity(0)), "context": 2048, "prefix_caching": name == "cached",
            }  # fmt: skip
            engines[name] = EngineClient("vllm", settings, Path(folder) / f"{name}.log")
        for repeat in range(REPEATS + 1):  # the first loads the weights
            for name, engine in engines.items():
                scorer = JudgeScorer(engine, rubric, "expected", 1, Sampling(), None)
                fresh = [
                    Question(
                        q.messages,
                        [Answer(f"{a.text} ({repeat})", "stop", a.seed) for a in q.answers],
                    )
                    for q in questions
                ]
                start = time.perf_counter()
                scorer.score(fresh)
                if repeat:
                    rates[name].append(4 * len(questions) / (time.perf_counter() - start))
        for engine in engines.values():
            engine.close()
    best = {k: statistics.median(v) for k, v in rates.items()}
    return best | {"ratio": best["cached"] / best["not_cached"], "wanted": {"ratio": 2}}


if __name__ == "__main__":
    from bench import told

    told("vllm: judgements/s of 4 candidates a prompt", **judging())
    told("vllm: tokens/s inside a run and alone", **generation())
