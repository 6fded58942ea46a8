"""A store to look at: M0 to M2, pairs with known margins and faults, and texts that try everything."""

from __future__ import annotations

import json
from pathlib import Path

from selfreward import records as r
from selfreward.store import Store, Views
from tests.test_store import candidate, judgement, mined, policy, prompt, sides

ATTACK = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}{% for x in y %}"
    "\"><svg/onload=alert(3)>' onmouseover='alert(4)"
    " \x00\x07\x1b[31m\u202eesrever\u2066\u200b&lt;b&gt; javascript:alert(5) </textarea></title>"
)
SHOWN = ("U+0000", "U+0007", "U+001B", "U+202E", "U+2066", "U+200B")
# Slots of M1: what makes them different.
HOSTILE, PLAIN, WIDE, DROPPED, TIE, LONG, FAULTY = range(7)
MARGINS = {HOSTILE: 1.0, PLAIN: 2.0, WIDE: 1.0, DROPPED: 0.5, LONG: 0.25, FAULTY: 1.5}
PAIRS = {slot: mined(slot)[1].id for slot in MARGINS}


def build(path: Path) -> Path:
    """Makes the store at `path`; returns it."""
    store = Store(path, write=True)
    store.save(r.Run(id=1, name="gallery", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    rejected = policy(2)
    rejected.status, rejected.decision, rejected.sha256, rejected.adapter = (
        "rejected",
        ATTACK,
        "a" * 64,
        "M2/adapter",
    )
    store.save(policy(0), policy(1), rejected)
    made = {"run_id": 1, "policy": "M1", "made_in": 1, "made_from": "{}", "fingerprint": "f"}
    store.save(
        r.Stage(**made, name="prompts", status="done", n_done=7, n_total=7, n_tokens=70, seconds=7.0),
        r.Stage(
            **made, name="judge", status="running", n_done=6, n_total=12, n_tokens=60, seconds=3.0, attempt=1
        ),
        r.Stage(**(made | {"policy": "M2"}), name="train", status="failed", error=ATTACK),
        r.RubricRow(sha256="b" * 64, name="plain", kind="points", low=1, high=5, text=ATTACK),
        r.ScorerRow(
            run_id=1,
            policy="M1",
            name="judge",
            type="judge",
            judge="M1",
            rubric_sha256="b" * 64,
            settings="{}",
        ),
    )
    prompts = [prompt(slot) for slot in range(7)]
    prompts[HOSTILE].text = ATTACK
    prompts[HOSTILE].messages = json.dumps(
        [{"role": "system", "content": ATTACK}, {"role": ATTACK, "content": ATTACK}]
    )
    for p in prompts[1:]:
        p.text = f"Question {p.slot}?"
        p.messages = json.dumps([{"role": "user", "content": p.text}])
    prompts[PLAIN].parents = json.dumps([prompts[HOSTILE].id, prompts[TIE].id])
    refused = prompt(7, reason=ATTACK)
    refused.text, refused.messages = ATTACK, "[]"
    texts = {
        HOSTILE: (ATTACK, f"worse {ATTACK}"),
        PLAIN: ("The cat sat on the mat.", "The dog sat on the mat."),
        WIDE: ("猫がマットの上に座った。👩‍👩‍👧", "犬がマットの上に座った。שלום"),
        DROPPED: ("dropped yes", "dropped no"),
        TIE: ("one", "two"),
        LONG: ("x" * 1_000_000, "word " * 200_000),
        FAULTY: ("read", "unreadable"),
    }
    store.add([*prompts, refused])
    store.add([candidate(slot, s, t) for slot, pair in texts.items() for s, t in enumerate(pair)])
    verdicts = []
    for slot, margin in MARGINS.items():
        verdicts += [judgement(slot, 0, 0, 3.0 + margin), judgement(slot, 1, 0, 3.0)]
    verdicts[0].raw, verdicts[1].detail = ATTACK, json.dumps({ATTACK: 0.5, "said": ATTACK})
    unread = judgement(FAULTY, 1, 1, None)
    unread.raw = ATTACK
    tie = r.Mining(run_id=1, prompt_id=prompts[TIE].id, outcome="tie", margin=0.0, detail=ATTACK)
    rows = [row for slot, margin in MARGINS.items() for row in mined(slot, chosen_score=3.0 + margin)]
    store.add([*verdicts, unread, *rows, tie])
    store.add([r.Review(run_id=1, **sides(DROPPED), review="drop", note=ATTACK, at="now")])
    of = {"run_id": 1, "policy": "M1", "stage": "probe"}
    store.add([r.Metric(**of, name="kl_m0", value=0.25, n=6, low=0.125, high=0.5)])
    store.add([r.Alarm(**of, signal="loops", level="warn", value=0.5, threshold=0.25, message=ATTACK)])
    steps = [(1, 0.7), (2, None), (3, 0.6)]
    store.add(
        [
            r.Metric(run_id=1, policy="M2", stage="train", name="train/loss", step=s, value=v, n=2)
            for s, v in steps
        ]
    )
    store.add(
        [store.event(1, "stage", policy=ATTACK, stage="judge", status="running"), store.event(1, ATTACK)]
    )
    store.close()
    return path


def reviews(path: Path) -> dict[int, tuple[str, str | None]]:
    """Reviewed pairs with verdict and note."""
    views = Views(path, write=False)
    rows = views.rows("SELECT id, review, review_note FROM reviewed_pair WHERE review <> 'auto'")
    views.close()
    return {r.id: (r.review, r.review_note) for r in rows}
