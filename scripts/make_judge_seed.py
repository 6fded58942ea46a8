"""Makes `prompts/seed/judge.jsonl` from the seed instructions.

The judgements' score is known by how they were made: each example takes a written answer and does one thing
to it, and the score follows from what was done, not from an opinion. Run it again after the instructions
change; the same input gives the same file.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

SEED = Path(__file__).resolve().parent.parent / "prompts" / "seed"
EACH = 15
PRAISE = [
    "What a wonderful question, thank you for asking it. It is a subject that many people care about deeply.",
    "I am so glad you brought this up. There is truly a great deal that one could say about it.",
    "This is an excellent request and you should be proud of it. I would love to help you with it.",
    "Great thinking. Questions like this one show real curiosity, and that is the best thing of all.",
]
PADDING = [
    "As a side note, many people also enjoy long walks, and the weather is often mild at this time of year.",
    "On another subject, it is always good to keep a tidy desk and to drink enough water during the day.",
    "By the way, numbers can be even or odd, and there are many words in a dictionary.",
]
SAYS = {
    "good": [
        "The answer does everything that was asked, correctly, and is clear without a wasted word.",
        "It meets the whole request, what it says is right, and nothing is missing or superfluous.",
        "All statements hold: on the subject, complete, correct and well put.",
    ],
    "padded": [
        (
            "The request is met fully and correctly, but the answer ends in "
            "remarks that have nothing to do with it."
        ),
        "It does all that was asked, yet adds superfluous sentences about something else.",
        "Complete and right, though not free of needless text at the end.",
    ],
    "cut": [
        "It is on the subject and does a good part of the task, but it breaks off before the end.",
        "The first part is useful; the rest is missing, so the request is not fully met.",
        "Readable and relevant, with a substantial part done, but incomplete.",
    ],
    "praise": [
        (
            "It can be read and refers to the request, but it only compliments the person and "
            "does nothing that was asked."
        ),
        "Friendly words around the subject, no part of the task is done.",
        "The text is readable and touches the request, yet it contains no answer.",
    ],
    "other": [
        "The answer is about something else than what was asked.",
        "It does not deal with this request at all.",
        "None of the statements hold: the text answers a different question.",
    ],
    "shuffled": [
        "The words are in no order and the text cannot be followed.",
        "It is garbled: no sentence can be read.",
        "None of the statements hold, for the answer is unreadable.",
    ],
}
SCORES = {"good": 5, "padded": 4, "cut": 3, "praise": 2, "other": 1, "shuffled": 1}


def made(kind: str, row: dict[str, str], other: dict[str, str], draw: random.Random) -> str:
    """The answer after `kind` was done to it."""
    words = row["answer"].split()
    match kind:
        case "good":
            return row["answer"]
        case "padded":
            return f"{row['answer']} {draw.choice(PADDING)}"
        case "cut":
            return " ".join(words[: len(words) // 2])
        case "praise":
            return draw.choice(PRAISE)
        case "other":
            return other["answer"]
        case "shuffled":
            shuffled = words[:]
            while shuffled == words:
                draw.shuffle(shuffled)
            return " ".join(shuffled)
    raise ValueError(kind)


def main() -> None:
    """Writes the file; every instruction is used at most once as a request."""
    draw = random.Random(20)
    rows = [
        json.loads(line) for line in (SEED / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    usable = [r for r in rows if len(r["answer"].split()) >= 16 and "```" not in r["answer"]]
    draw.shuffle(usable)
    kinds = [kind for kind in SCORES for _ in range(EACH)]
    draw.shuffle(kinds)
    lines = []
    for i, kind in enumerate(kinds):
        row, other = usable[i], usable[(i + len(kinds)) % len(usable)]
        assert row["category"] != other["category"] or row["id"] != other["id"]
        example = {
            "id": f"judge-{i + 1:03}",
            "made": kind,
            "from": row["id"],
            "prompt": row["prompt"],
            "answer": made(kind, row, other, draw),
            "score": SCORES[kind],
            "judgement": SAYS[kind][i % 3],
        }
        lines.append(json.dumps(example, ensure_ascii=False) + "\n")
    (SEED / "judge.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
