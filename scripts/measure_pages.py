"""How fast the pages are over 250,000 made-up pairs while a writer commits.

    python scripts/measure_pages.py FOLDER      # makes FOLDER/iterations/many once, about 1 GB

Times are those of a client on the same machine, whole answers, the median and the worst of ten; then the
first paint of pages in a real browser, where there is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from selfreward import ids
from selfreward import records as r
from selfreward.store import Store

PAIRS = 250_000
POLICIES = 3  # iterations of M1, M2, M3
ANSWERS = 4  # a prompt
BLOCK = 2000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
RARE = "xylophonist"  # in one pair, near the end
PAGES = {
    "run": "/",
    "policy": "/policy/M2",
    "pairs": "/pairs",
    "pairs, largest margin": "/pairs?sort=-margin",
    "pairs of M3, smallest margin": "/pairs?of=M3&sort=margin",
    "pairs, deep in the list": "/pairs?sort=-margin&after=1.0:0",
    "pairs dropped": "/pairs?review=drop",
    "pairs nobody reviewed": "/pairs?review=auto",
    "pairs with a fault": "/pairs?fault=no_score",
    "pairs of a scorer": "/pairs?scorer=judge",
    "pairs of no scorer": "/pairs?scorer=length",
    "prompts": "/prompts",
    "prompts that tied": "/prompts?outcome=tie",
    "search, a word of every text": "/pairs?search=the",
    "search, a word of one pair": f"/pairs?search={RARE}",
    "search, a word of none": "/pairs?search=qqqq",
}


def main() -> None:
    """Makes the store if it is not there, serves it, measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    wanted = parser.parse_args()
    path = wanted.folder / "iterations" / "many" / "selfreward.db"
    if not path.exists():
        path.parent.mkdir(parents=True)
        (wanted.folder / "iterations" / "many.yaml").write_text("model: made-up\n")
        _make(path, wanted.pairs)
    print(f"store: {path.stat().st_size / 1e6:,.0f} MB")
    command = [sys.executable, "-m", "selfreward.cli", "ui", "--run", "many"]
    with subprocess.Popen(command, cwd=wanted.folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = server.stdout.readline().split()[0].rstrip("/")
        stop = threading.Event()
        writer = threading.Thread(target=_write, args=(path, stop))
        writer.start()
        try:
            _measure(address, server.pid)
            _paint(address)
        finally:
            stop.set()
            writer.join()
            server.terminate()


def _measure(address: str, server: int) -> None:
    first = _get(address + "/pairs?sort=-margin")
    pair = re.findall(r'class="row" href="(/pairs/\d+)', first)[7]
    pages = PAGES | {"one pair": pair, "next of a filter": f"{pair}/next?sort=-margin&review=auto"}
    pages["next, search for none"] = f"{pair}/next?search=qqqq"
    for name, page in pages.items():
        before = _cpu(server)
        took = sorted(_timed(lambda page=page: _get(address + page)) for _ in range(10))  # type: ignore[misc]
        own = (_cpu(server) - before) / 10
        times = f"{statistics.median(took) * 1000:7.0f} ms, worst {took[-1] * 1000:7.0f} ms"
        print(f"{name:<32} {times}, of the server's own {own * 1000:5.0f} ms", flush=True)


def _paint(address: str) -> None:
    """Time from asking for a page to its first text on the screen, in a real browser, once it is warm."""
    chromium = shutil.which("chromium")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        print("first paint: needs playwright and a Chromium (pip install 'selfreward[browser]')")
        return
    from playwright.sync_api import sync_playwright

    told = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for name in ("run", "policy", "pairs", "pairs, largest margin", "prompts"):
            took = []
            for _ in range(11):
                page.goto(address + PAGES[name])
                while (painted := page.evaluate(told)) is None:
                    page.wait_for_timeout(20)
                took.append(float(painted))
            took = sorted(took[1:])
            print(
                f"first paint, {name:<19} {statistics.median(took):7.0f} ms, worst {took[-1]:7.0f} ms",
                flush=True,
            )
        browser.close()


def _cpu(process: int) -> float:
    """CPU seconds a process has used, to a hundredth: what a page costs however busy the machine is."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _timed(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


def _get(address: str) -> str:
    with urllib.request.urlopen(address) as answer:
        return str(answer.read().decode())


def _write(path: Path, stop: threading.Event) -> None:
    """A driver at work: a commit of two hundred events every tenth of a second."""
    store = Store(path, write=True)
    while not stop.wait(0.1):
        store.add([store.event(1, "measured", n=i) for i in range(200)])
    store.close()


def _make(path: Path, n_pairs: int) -> None:
    """Texts of 20 to 160 words from a list of 2,000, four answers a prompt, one judgement an answer."""
    store = Store(path, write=True)
    draw = random.Random(0)
    words = ["the", *("".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(2000))]
    store.save(
        r.Run(id=1, name="many", recipe="{}", fingerprint="f", seed=0, created_at="2026-01-01T00:00:00Z")
    )
    for idx in range(POLICIES + 2):
        store.save(
            r.Policy(
                run_id=1, name=f"M{idx}", idx=idx, parent=f"M{idx - 1}" if idx else None, model="made-up",
                made_in=1, status="promoted", created_at="2026-01-01T00:00:00Z",
            )
        )  # fmt: skip
    each = n_pairs // POLICIES
    for idx in range(1, POLICIES + 1):
        scorer = r.ScorerRow(run_id=1, policy=f"M{idx}", name="judge", type="judge", settings="{}")
        store.save(scorer)
        for start in range(0, each, BLOCK):
            store.add(list(_rows(draw, words, idx, range(start, min(start + BLOCK, each)), each)))
        print(f"M{idx}: {each:,} pairs", flush=True)
    store.close()


def _rows(draw: random.Random, words: list[str], idx: int, slots: range, each: int) -> Iterator[object]:
    """Rows of a block, table by table; every twentieth judgement is a fault, every ninth prompt a tie."""
    kinds: dict[str, list[object]] = {
        k: [] for k in ("prompt", "candidate", "judgement", "mining", "pair", "review")
    }
    for slot in slots:
        own = ids.prompt_id(1, idx, slot)
        text = " ".join(draw.choices(words, k=12))
        chat = json.dumps([{"role": "user", "content": text}])
        kinds["prompt"].append(
            r.Prompt(
                id=own, run_id=1, policy=f"M{idx}", slot=slot, text=text, messages=chat, source="user",
                status="accepted",
            )
        )  # fmt: skip
        scores = sorted((float(draw.randint(2, 15)) / 3 for _ in range(ANSWERS)), reverse=True)
        if scores[0] == scores[-1]:
            scores[0] += 1.0
        rare = idx == POLICIES and slot == each - 100
        for sample, score in enumerate(scores):
            said = " ".join(draw.choices(words, k=draw.randint(20, 160))) + (RARE if rare else "")
            kinds["candidate"].append(
                r.Candidate(
                    id=ids.candidate_id(1, idx, slot, sample), run_id=1, prompt_id=own, policy=f"M{idx}",
                    sample=sample, text=said, token_ids=bytes(400), n_tokens=100, finish="stop", seed=slot,
                )
            )  # fmt: skip
            fault = None if draw.random() > 0.05 else "no_score"
            kinds["judgement"].append(
                r.Judgement(
                    run_id=1, candidate_id=ids.candidate_id(1, idx, slot, sample), scorer="judge", sample=0,
                    score=None if fault else score, fault=fault, raw=None, seed=slot,
                )
            )  # fmt: skip
        tie = slot % 9 == 8
        key = {"run_id": 1, "prompt_id": own}
        kinds["mining"].append(
            r.Mining(
                **key,
                outcome="tie" if tie else "pair",
                margin=0.0 if tie else scores[0] - scores[-1],
                n_pairs=int(not tie),
            )
        )
        sides = {
            "chosen_id": ids.candidate_id(1, idx, slot, 0),
            "rejected_id": ids.candidate_id(1, idx, slot, ANSWERS - 1),
        }
        kinds["pair"].append(
            r.Pair(
                id=ids.pair_id(1, idx, slot, 0, ANSWERS - 1), **key, **sides, chosen_score=scores[0],
                rejected_score=scores[-1], rule="best_vs_worst",
            )
        )  # fmt: skip
        if slot % 500 == 7:
            kinds["review"].append(
                r.Review(run_id=1, **sides, review="drop" if slot % 1000 == 7 else "keep", at="now")
            )
    for rows in kinds.values():
        yield from rows


if __name__ == "__main__":
    main()
