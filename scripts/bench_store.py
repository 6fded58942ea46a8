"""How fast a full-size store is: 1,000,000 candidates, 3,000,000 judgements, 250,000 pairs.

    python scripts/bench_store.py [FOLDER]     # makes FOLDER/iterations/many once, about 1.5 GB

One JSON line a figure. What reads is measured while another process commits a block every tenth of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import seconds, told

from selfreward import ids
from selfreward import records as r
from selfreward.store import PairFilter, Store, Views
from selfreward.store.finding import find_pairs

PROMPTS, SAMPLES, JUDGED = 250_000, 4, 3  # prompts of M1; answers a prompt; judgements an answer
BLOCK = 64  # prompts of a block, as they are committed
LEFT = 64  # prompts at the end that are not answered, and as many that are not judged
FILTERS = {
    "no filter": PairFilter(),
    "largest margin": PairFilter(sort="-margin"),
    "margin at least 1": PairFilter(min_margin=1.0, sort="margin"),
    "of an iteration": PairFilter(of="M1", sort="-margin"),
    "dropped": PairFilter(review="drop"),
    "nobody reviewed": PairFilter(review="auto"),
    "with a fault": PairFilter(fault="no_score"),
    "of a scorer": PairFilter(scorer="judge"),
    "of no scorer": PairFilter(scorer="length"),
}


def main() -> None:
    """Makes the store if it is not there, then measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("/tmp/selfreward-bench-store"))
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--part", choices=("mining", "writer"), help="One part, in a process of its own.")
    wanted = parser.parse_args()
    path = wanted.folder / "iterations" / "many" / "selfreward.db"
    if wanted.part:
        {"mining": mining, "writer": writer}[wanted.part](path)
        return
    if not path.exists():
        path.parent.mkdir(parents=True)
        (wanted.folder / "iterations" / "many.yaml").write_text("model: made-up\n")
        make(path, wanted.prompts)
    size = path.stat().st_size
    told("store", bytes=size, **counts(path))
    insert(path)
    missing(path)
    own = [sys.executable, __file__, str(wanted.folder), "--part"]
    with subprocess.Popen([*own, "writer"], stdin=subprocess.PIPE, text=True) as other:
        try:
            pages(path)
            status(wanted.folder)
        finally:
            other.communicate("stop")
    subprocess.run([*own, "mining"], check=True)


def counts(path: Path) -> dict[str, int]:
    """Rows of the large tables."""
    views = Views(path, write=False)
    tables = ("prompt", "candidate", "judgement", "mining", "pair")
    found = {t: views.one(f"SELECT count(*) FROM {t}")[0] for t in tables}
    views.close()
    return found


def text(draw: random.Random, words: list[str], n: int) -> str:
    """Words of the list, as they fall."""
    return " ".join(draw.choices(words, k=n))


def make(path: Path, n: int) -> None:
    """Made-up rows through the driver's own statements, with every constraint and trigger on."""
    store = Store(path, write=True)
    draw = random.Random(0)
    words = ["the", *("".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(2000))]
    store.save(
        r.Run(id=1, name="many", recipe="{}", fingerprint="f", seed=0, created_at="2026-01-01T00:00:00Z")
    )
    for idx in range(3):
        parent = f"M{idx - 1}" if idx else None
        store.save(
            r.Policy(run_id=1, name=f"M{idx}", idx=idx, parent=parent, model="made-up", made_in=1,
                     status="promoted" if idx < 2 else "training", created_at="2026-01-01T00:00:00Z")
        )  # fmt: skip
    for name in ("prompts", "candidates", "judge", "pairs"):
        store.save(
            r.Stage(run_id=1, policy="M1", name=name, made_in=1, status="running", made_from="{}",
                    fingerprint="f")
        )  # fmt: skip
    store.save(r.ScorerRow(run_id=1, policy="M1", name="judge", type="judge", settings="{}"))
    answers = [text(draw, words, draw.randint(20, 90)) for _ in range(2000)]
    for start in range(0, n, 2000):
        many(store, draw, words, answers, range(start, min(n, start + 2000)), n)
    store.close()


def many(
    store: Store, draw: random.Random, words: list[str], answers: list[str], slots: range, n: int
) -> None:
    """A block of prompts with answers, judgements, mining rows and pairs; plain tuples, for speed."""
    prompts, candidates, judgements, minings, pairs = [], [], [], [], []
    for slot in slots:
        prompt = ids.prompt_id(1, 1, slot)
        chat = text(draw, words, 12)
        messages = json.dumps([{"role": "user", "content": chat}])
        prompts.append((prompt, 1, "M1", slot, 1, chat, messages, "user", "[]", "accepted"))
        if slot >= n - LEFT:
            continue
        scores = draw.sample(range(10, 50), SAMPLES)
        for sample in range(SAMPLES):
            own = ids.candidate_id(1, 1, slot, sample)
            answer = answers[draw.randrange(len(answers))] + f" {sample}"
            tokens = len(answer) // 4
            candidates.append(
                (own, 1, prompt, "M1", sample, answer, bytes(4 * tokens), tokens, "stop", -1.0, slot, None)
            )
            if slot >= n - 2 * LEFT:
                continue
            for k in range(JUDGED):
                fault = "no_score" if draw.random() < 0.01 else None
                score = None if fault else scores[sample] / 10 + k / 100
                judgements.append((1, own, "judge", k, score, fault, "Score: 3", slot))
        if slot < n - 2 * LEFT:
            best, worst = scores.index(max(scores)), scores.index(min(scores))
            margin = (max(scores) - min(scores)) / 10
            minings.append((1, prompt, "pair", margin, 1))
            pairs.append(
                (ids.pair_id(1, 1, slot, best, worst), 1, prompt, ids.candidate_id(1, 1, slot, best),
                 ids.candidate_id(1, 1, slot, worst), max(scores) / 10, min(scores) / 10, "best_vs_worst")
            )  # fmt: skip
    with store.transaction() as connection:
        for table, columns, rows in (
            ("prompt", "id, run_id, policy, slot, round, text, messages, source, parents, status", prompts),
            ("candidate", "id, run_id, prompt_id, policy, sample, text, token_ids, n_tokens, finish,"
             " mean_logprob, seed, fault", candidates),
            ("judgement", "run_id, candidate_id, scorer, sample, score, fault, raw, seed", judgements),
            ("mining", "run_id, prompt_id, outcome, margin, n_pairs", minings),
            ("pair", "id, run_id, prompt_id, chosen_id, rejected_id, chosen_score, rejected_score, rule",
             pairs),
        ):  # fmt: skip
            if rows:
                places = ", ".join("?" * len(rows[0]))
                connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) VALUES ({places})", rows)


def insert(path: Path) -> None:
    """Blocks of answers and judgements as the loop commits them, into the full store; then taken out."""
    store = Store(path, write=True)
    first = PROMPTS + 1000
    slots = range(first, first + 50 * BLOCK)
    blocks: list[list[Any]] = []
    for start in range(slots.start, slots.stop, BLOCK):
        block: list[Any] = []
        mine = range(start, start + BLOCK)
        block += [
            r.Prompt(id=ids.prompt_id(1, 2, s), run_id=1, policy="M2", slot=s, text="t" * 80, messages="[]",
                     source="user", status="accepted")
            for s in mine
        ]  # fmt: skip
        answers = [
            r.Candidate(id=ids.candidate_id(1, 2, s, k), run_id=1, prompt_id=ids.prompt_id(1, 2, s), seed=1,
                        policy="M2", sample=k, text="t" * 300, token_ids=bytes(400), n_tokens=100,
                        finish="stop", mean_logprob=-1.0)
            for s in mine
            for k in range(SAMPLES)
        ]  # fmt: skip
        block += answers
        block += [
            r.Judgement(
                run_id=1, candidate_id=c.id, scorer="judge", sample=k, score=3.0, raw="Score: 3", seed=1
            )
            for c in answers
            for k in range(JUDGED)
        ]
        blocks.append(block)
    before = time.process_time()
    took, _ = seconds(lambda: [store.add(block) for block in blocks])
    cpu = time.process_time() - before
    n = sum(map(len, blocks))
    told("inserted rows/s", wall=n / took, cpu=n / cpu, rows=n, block=len(blocks[0]), wanted=50_000)
    with store.transaction() as connection:
        low, high = ids.candidate_id(1, 2, 0, 0), ids.candidate_id(1, 3, 0, 0) - 1
        connection.exec_driver_sql(f"DELETE FROM judgement WHERE candidate_id BETWEEN {low} AND {high}")
        connection.exec_driver_sql(f"DELETE FROM candidate WHERE id BETWEEN {low} AND {high}")
        connection.exec_driver_sql("DELETE FROM prompt WHERE policy = 'M2' AND run_id = 1")
    store.close()


def missing(path: Path) -> None:
    """What a stage asks before it goes on: prompts without answers, and answers without judgements."""
    store = Store(path, write=True)
    for name, ask in (
        ("unanswered", lambda: store.unanswered(1, "M1")),
        ("unjudged", lambda: store.unjudged(1, "M1")),
    ):
        times = [timed(ask) for _ in range(3)]
        told(f"what is missing: {name}, seconds", found=len(ask()), **spread(times), wanted=1.0)
    store.close()


def timed(ask: Callable[[], Any]) -> tuple[float, float]:
    """Wall seconds and CPU seconds of a call."""
    cpu = time.process_time()
    wall, _ = seconds(ask)
    return wall, time.process_time() - cpu


def spread(times: list[tuple[float, float]]) -> dict[str, float]:
    """Median and worst wall seconds, median CPU seconds."""
    wall = sorted(t[0] for t in times)
    return {
        "median": statistics.median(wall),
        "worst": wall[-1],
        "cpu": statistics.median(t[1] for t in times),
    }


def pages(path: Path) -> None:
    """A page of twenty pairs, the first and one from the middle."""
    views = Views(path, write=False)
    for name, wanted in FILTERS.items():
        times = [timed(lambda w=wanted: find_pairs(views, w, limit=20, excerpts=True)) for _ in range(7)]
        told(f"a page of pairs, {name}, seconds", **spread(times), wanted=0.05)
    views.close()


def status(folder: Path) -> None:
    """The command, start of Python included."""
    command = [sys.executable, "-P", "-m", "selfreward.cli", "status", "--run", "many"]
    for extra in ([], ["--tree"]):
        times = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall, _ = seconds(
                lambda more=extra: subprocess.run(
                    [*command, *more], cwd=folder, check=True, capture_output=True
                )
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            times.append((wall, cpu))
        told(" ".join(["selfreward status", *extra, "seconds"]), **spread(times), wanted=0.8)


def writer(path: Path) -> None:
    """A driver at work, until something is said on standard input."""
    import threading

    store, stop = Store(path, write=True), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    while not stop.wait(0.1):
        store.add([store.event(1, "measured", n=i) for i in range(200)])
    store.close()


def mining(path: Path) -> None:
    """Stage `pairs` without the engine: read, mine, replace; the peak is of this process."""
    from selfreward.recipe import Pairs
    from selfreward.stages import pairs as stage

    store = Store(path, write=True)
    of = store.stages(1)[("M1", "pairs")]
    cpu = time.process_time()
    read, (minings, pairs) = seconds(lambda: mined(store, stage, Pairs()))
    wrote, _ = seconds(lambda: store.replace_mining(of, "M1", minings, pairs))
    told(
        "mining every pair, seconds", wall=read + wrote, cpu=time.process_time() - cpu, prompts=len(minings),
        read_and_mined=read, replaced=wrote,
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        wanted={"wall": 20, "peak_gib": 1},
    )  # fmt: skip
    store.close()


def mined(store: Store, stage: Any, options: Any) -> tuple[list[r.MiningRow], list[r.PairRow]]:
    """What the default rule makes of every prompt, as rows."""
    groups = stage.grouped(store.contenders(1, "M1", "judge"), None, 0, 1, "M1")
    minings, pairs = [], []
    for group, found in stage.mined_groups(options, groups, 2048)[0]:
        minings.append(r.MiningRow(1, group.prompt, found.outcome, found.margin, len(found.pairs)))
        for best, worst in found.pairs:
            key = ids.pair_id(1, 1, group.slot, best.sample, worst.sample)
            sides = best.candidate_id, worst.candidate_id, best.mean, worst.mean
            pairs.append(r.PairRow(key, 1, group.prompt, *sides, 1.0, "best_vs_worst"))
    return minings, pairs


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
