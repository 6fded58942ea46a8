"""Commands that need no model: try a rubric, audit pairs, compare pair rules, drop near-duplicate prompts.

`cli` hangs them into its groups; what is heavy is imported late.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfreward.errors import BadInput, GateHalted
from selfreward.jsonl import json_object

if TYPE_CHECKING:
    from selfreward.audit import Preference
    from selfreward.rubric import Rubric

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

REQUEST = "Name two planets."
ANSWERS = ("Mars and Venus.", "Mars and the Moon.")


def rubric_test(
    rubric: Annotated[str, typer.Argument(help="A rubric file, or the name of a packaged one.")],
    replies: Annotated[
        Path | None, typer.Option("--replies", help='JSONL of saved replies: {"reply": "…"} a line.')
    ] = None,
    request: Annotated[str, typer.Option("--request", help="The request shown in the chat.")] = REQUEST,
    answer: Annotated[str, typer.Option("--answer", help="The answer shown in the chat.")] = ANSWERS[0],
    other: Annotated[str, typer.Option("--other", help="Answer B of a pairwise rubric.")] = ANSWERS[1],
    reference: Annotated[str | None, typer.Option("--reference", help="A reference answer.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the chat a judge would read, or with --replies what is read from each: a score or a fault."""
    from selfreward import rubric as rubrics

    found = _rubric(rubric)
    if replies:
        for score, fault in _readings(found, replies):
            typer.echo(json.dumps({"score": score, "fault": fault}))
        return
    chat = [{"role": "user", "content": request}]
    if found.kind == "pairwise":
        shown = rubrics.render_pair(found, chat, answer, other, reference)
    else:
        shown = rubrics.render(found, chat, answer, reference)
    if as_json:
        typer.echo(json.dumps(shown))
    else:
        _show_chat(shown)


def rubric_path(name: str) -> Path:
    """A rubric by path, or by the name of a packaged one."""
    from selfreward.files import packaged

    places = [Path(name), packaged(name), packaged(f"rubrics/{name}"), packaged(f"rubrics/{name}.md")]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        known = ", ".join(sorted(p.stem for p in packaged("rubrics").glob("*.md")))
        raise BadInput(f"{name} is no file, and no packaged rubric: these are {known}")
    return path


def _rubric(name: str) -> Rubric:
    from selfreward import rubric as rubrics

    path = rubric_path(name)
    try:
        return rubrics.parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as text: {error}") from None


def _readings(rubric: Rubric, replies: Path) -> list[tuple[float | None, str | None]]:
    """What is read from each saved reply, in order; `finish` is `stop` unless a line says otherwise."""
    from selfreward import rubric as rubrics
    from selfreward.stages.seeds import required_rows

    found = []
    for number, row in required_rows(replies, ()):
        reply, finish = row.get("reply"), row.get("finish", "stop")
        if not isinstance(reply, str) or not isinstance(finish, str):
            raise BadInput(
                f"{replies}, line {number}: 'reply' should be text, and 'finish' too where it is given"
            )
        found.append(rubrics.read(rubric, reply, finish))
    return found


def _show_chat(chat: list[dict[str, str]]) -> None:
    from selfreward.show.console import safe

    for message in chat:
        typer.echo(f"[{message['role']}]")
        typer.echo(safe(message["content"]).plain)


def audit_file(file: Path, as_json: bool) -> None:
    """`pairs audit --file`: doubtful labels in any preference data; ends with 5 where there are some."""
    from selfreward import audit

    rows = _preferences(file)
    found, accuracy = audit.problems(rows), audit.length_only_accuracy(rows)
    if as_json:
        typer.echo(json.dumps({"n": len(rows), "problems": found, "length_only_accuracy": accuracy}))
    else:
        typer.echo(f"{len(rows)} pairs; the longer text is the chosen one in {accuracy or 0:.1%}")
        for kind, lines in found.items():
            some = ", ".join(map(str, lines[:12])) + (", …" if len(lines) > 12 else "")
            typer.echo(f"{kind:<16} {len(lines):>6}   line {some}")
    if found:
        raise typer.Exit(GateHalted.exit_code)


def pairs_dry_run(
    run: str | None,
    of: str | None,
    rules: list[str] | None,
    dry_run: bool,
    overrides: list[str] | None,
    as_json: bool,
) -> None:
    """`pairs list --dry-run`: rules side by side on stored judgements; nothing is written."""
    from selfreward.pairs import RULES
    from selfreward.recipe_file import load
    from selfreward.runs import database_of, recipe_file
    from selfreward.show import rules as show
    from selfreward.store import Store

    if not dry_run:
        raise typer.BadParameter("--rule and --set only compare: add --dry-run", param_hint="--dry-run")
    for rule in rules or ():
        if rule not in RULES:
            raise typer.BadParameter(f"{rule!r} is none of {', '.join(RULES)}", param_hint="--rule")
    recipe = load(recipe_file(run), overrides or [])
    store = Store(database_of(run), write=False)
    try:
        rows = show.compared(recipe, store, rules or list(RULES), of)
    finally:
        store.close()
    if not rows:
        raise BadInput(f"no judgements of {of or 'any policy'} are stored: `selfreward iterate` makes them")
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        show.comparison(rows)


def _preferences(file: Path) -> list[Preference]:
    from selfreward.audit import Preference
    from selfreward.stages.seeds import required_rows

    rows = []
    for number, row in required_rows(file, ()):
        where = f"{file}, line {number}"
        prompt, chosen, rejected = (_text(row, key, where) for key in ("prompt", "chosen", "rejected"))
        chosen_score, rejected_score = (_score(row, key, where) for key in ("chosen_score", "rejected_score"))
        rows.append(Preference(number, prompt, chosen, rejected, chosen_score, rejected_score))
    return rows


def _text(row: dict[str, Any], key: str, where: str) -> str:
    """A text, or the contents of the turns of a conversational row."""
    value = row.get(key)
    if isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in value
    ):
        value = "\n\n".join(m["content"] for m in value)
    if not isinstance(value, str):
        raise BadInput(f"{where}: {key!r} is missing or no text")
    return value


def _score(row: dict[str, Any], key: str, where: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{where}: {key!r} should be a number")
    return float(value)


def prompts_dedupe(
    source: Annotated[Path, typer.Option("--in", help="Lines of text, or JSONL with `prompt` or `text`.")],
    target: Annotated[Path, typer.Option("--out", help="Where the lines that are kept go, as they came.")],
    threshold: Annotated[
        float, typer.Option("--threshold", help="ROUGE-L F1 at which a later prompt is dropped, 0 to 1.")
    ] = 0.7,
    all_scripts: Annotated[
        bool, typer.Option("--all-scripts", help="Count letters outside a-z too, as the loop does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Drop prompts too close to an earlier one that is kept: ROUGE-L as the rouge-score package counts it."""
    from selfreward.files import check_place, whole_file
    from selfreward.near import Neighbours

    if not 0 < threshold <= 1:
        raise typer.BadParameter("should be above 0 and at most 1", param_hint="--threshold")
    check_place(target)
    kept = Neighbours(threshold, rouge_score=not all_scripts)
    n, dropped = 0, []
    try:
        with whole_file(target) as out:
            for number, line, text in _prompt_lines(source):
                n += text is not None
                near = kept.nearest(text) if text else None
                if near:
                    dropped.append({"line": number, "near": int(near[0]), "f1": near[1]})
                    continue
                if text:
                    kept.add(text, str(number))
                out.write(line)
    except OSError as error:
        raise BadInput(f"{error.filename or target} cannot be read or written: {error.strerror}") from None
    _tell_dropped(n, dropped, threshold, as_json)


def _tell_dropped(n: int, dropped: list[dict[str, Any]], threshold: float, as_json: bool) -> None:
    if as_json:
        kept = n - len(dropped)
        typer.echo(json.dumps({"n": n, "kept": kept, "threshold": threshold, "dropped": dropped}))
        return
    for d in dropped:
        typer.echo(f"line {d['line']} is too close to line {d['near']} ({d['f1']:.2f})")
    typer.echo(f"{n - len(dropped)} of {n} prompts kept")


def _prompt_lines(source: Path) -> Iterator[tuple[int, bytes, str | None]]:
    """Line number from 1, the line as it is in the file, and its prompt; None for a blank line.

    A file is JSONL by its name, or if its first line that is not blank is a JSON object.
    """
    as_jsonl: bool | None = True if source.suffix == ".jsonl" else None
    with open(source, "rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{source}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise BadInput(f"{where}: not UTF-8 text ({error.reason})") from None
            if not text.strip():
                yield number, line, None
                continue
            if as_jsonl is None:
                as_jsonl = _is_object(text)
            yield number, line, _prompt(text, where) if as_jsonl else text


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _prompt(line: str, where: str) -> str:
    row = json_object(line, where)
    text = row.get("prompt", row.get("text"))
    if not isinstance(text, str):
        raise BadInput(f"{where}: an object with a text under `prompt` or `text` was expected")
    return text
