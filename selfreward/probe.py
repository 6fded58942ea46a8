"""The command `probe`: whether texts and judgements that were made anywhere show signs of collapse.

It needs no run and no model: two kinds of JSON lines in, one verdict out.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfreward.errors import BadInput, GateHalted
from selfreward.jsonl import numbered_rows
from selfreward.wording import plain_json

if TYPE_CHECKING:
    from selfreward.collapse.judging import Score
    from selfreward.collapse.texts import Answers
    from selfreward.collapse.verdict import Verdict

UNREAD = -1  # how many judges' files write a verdict that could not be read


def probe(
    texts: Annotated[
        Path | None, typer.Argument(help='Lines of {"text": …} or {"prompt": …, "texts": […]}.')
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Texts of the same form to compare with.")
    ] = None,
    field: Annotated[
        str | None, typer.Option("--field", help="Another name for the key `text` or `texts`.")
    ] = None,
    judgments: Annotated[
        Path | None, typer.Option("--judgments", help='Lines of {"prompt": …, "score": …, "length": …}.')
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Look for signs of collapse in texts or judgements made anywhere; exit code 5 where there are."""
    from selfreward.show import signals as show

    if texts is None and (judgments is None or against is not None):
        raise BadInput("nothing to look at: give a file of texts, or --judgments FILE alone")
    found = examine(texts, against, field, judgments)
    if as_json:
        typer.echo(plain_json(data(found), allow_nan=False))
    else:
        show.verdict(found)
    if found.level == "halt":
        raise typer.Exit(GateHalted.exit_code)


def examine(texts: Path | None, against: Path | None, field: str | None, judgments: Path | None) -> Verdict:
    """Reads the files and brings texts and judgements to one verdict."""
    from selfreward.collapse import verdict

    findings, row, said, examples = [], None, "", list[str]()
    if texts is not None:
        answers = read_answers(texts, field)
        findings += verdict.of_texts(answers, read_answers(against, field) if against else ())
        examples = verdict.examples(answers, findings)
    if judgments is not None:
        rows = read_scores(judgments)
        judged, row, said = verdict.of_judgements(rows)
        findings += judged
        if not examples:
            examples = [r.prompt for r in rows[(row or 1) - 1 :] if r.prompt]
    return verdict.verdict(findings, row, said, list(dict.fromkeys(examples)))


def data(found: Verdict) -> dict[str, Any]:
    """The verdict as plain data. `n` counts prompts; `threshold` is the level passed, or the next."""
    return {
        "verdict": found.level,
        "why": found.why,
        "signals": {
            f.signal: {
                "value": _number(f.value),
                "low": _number(f.low),
                "high": _number(f.high),
                "against": _number(f.against),
                "level": f.level,
                "n": f.n,
                "threshold": _number(f.threshold),
            }
            for f in found.findings
        },
        "since_row": found.since_row,
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def read_answers(path: Path, field: str | None = None) -> list[Answers]:
    """The texts of a file by prompt, in file order; lines of one prompt are taken together."""
    from selfreward.collapse.texts import Answers

    found: list[tuple[str | None, list[str | None]]] = []
    by_prompt: dict[str, list[str | None]] = {}
    for number, row in numbered_rows(path):
        where = f"{path}, line {number}"
        name = field or ("texts" if "texts" in row else "text")
        if name not in row:
            raise BadInput(f"{where} has no {name!r}: name the key of its text with --field")
        prompt = row.get("prompt")
        if prompt is not None and not isinstance(prompt, str):
            raise BadInput(f"{where}: 'prompt' must be a text")
        texts = _texts(row[name], where, name)
        if prompt in by_prompt:
            by_prompt[prompt] += texts
            continue
        found.append((prompt, texts))
        if prompt is not None:
            by_prompt[prompt] = texts
    return [Answers(prompt, tuple(texts)) for prompt, texts in found]


def _texts(value: Any, where: str, name: str) -> list[str | None]:
    texts = (value or [None]) if isinstance(value, list) else [value]  # no text for a prompt: one is missing
    if not all(t is None or isinstance(t, str) for t in texts):
        raise BadInput(f"{where}: {name!r} must be a text or a list of texts")
    return [t.encode("utf-8", "replace").decode() if t is not None else None for t in texts]


def read_scores(path: Path) -> list[Score]:
    """The verdicts of a file in file order; null and −1 are verdicts that could not be read."""
    from selfreward.collapse.judging import Score

    found = []
    for number, row in numbered_rows(path):
        where = f"{path}, line {number}"
        if "score" not in row:
            raise BadInput(f"{where} has no 'score'")
        score, length = (_given(row.get(key), where, key) for key in ("score", "length"))
        prompt = row.get("prompt")
        known = prompt if prompt is None or isinstance(prompt, str) else json.dumps(prompt)
        found.append(Score(known, None if score == UNREAD else score, length))
    return found


def _given(value: Any, where: str, key: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{where}: {key!r} is {value!r}, not a number: write null where there is none")
    return float(value)
