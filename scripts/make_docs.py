"""Writes docs/recipes.md and docs/store.md from the code itself; a test fails when one is stale.

    python scripts/make_docs.py

A key's meaning is the comment behind it in its class and the class's own docstring; its range and default
are what pydantic checks. The store's columns are those of a store that was just made.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import sqlite3
import tempfile
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from selfreward import recipe as recipes
from selfreward import records
from selfreward.store import Store

DOCS = Path(__file__).resolve().parent.parent / "docs"
# What a number counts, by the last part of its key; a key of another name is a bare number, a name or a file.
UNITS = {
    "hours": "hours", "requests": "requests", "tokens": "tokens", "batch": "rows", "block": "prompts",
    "threads": "CPU threads", "tensor_parallel": "GPUs", "gpu_memory": "share of a GPU's memory",
    "kv_cache_gib": "GiB", "context": "tokens", "concurrency": "requests", "timeout": "seconds",
    "max_new_tokens": "tokens", "max_length": "tokens", "epochs": "passes over the rows",
    "micro_batch": "rows", "lr": "per optimiser step", "warmup": "share of the steps",
    "save_steps": "optimiser steps", "examples": "rows", "judge_examples": "rows", "min_words": "words",
    "max_words": "words", "low": "words", "best": "words", "high": "words", "rounds": "rounds",
    "seed_shots": "prompts", "own_shots": "prompts", "n": "answers a prompt", "samples": "replies",
    "processes": "processes", "least": "prompts", "workers": "processes", "budget": "tokens a policy",
}  # fmt: skip
COUNTS = {"prompts.count": "accepted prompts an iteration", "probe.count": "prompts"}
# What a key is, where neither a comment behind it nor its name and its section's words say it.
NOTES = {
    "seed": "every draw of a run comes from it; another seed is another run",
    "rewards": "what scores the candidates: sections with a `type`, below",
    "evaluate": "null leaves evaluation out",
    "model.id": "the model itself is short for it: `model: org/name`",
    "model.revision": "commit of a hub model; null: the newest when the run begins, and kept",
    "model.system": "a system turn before every chat",
    "model.dtype": "`auto`: bfloat16 beside an NVIDIA GPU, else float32; the same in engine and trainer",
    "engine.tensor_parallel": "vLLM: GPUs a policy is spread over",
    "engine.gpu_memory": "vLLM: what it may take",
    "engine.concurrency": "openai: on their way at once",
    "engine.timeout": "openai: what a reply may take",
    "engine.api_key_env": "the environment variable that holds the key, which never stands in a recipe",
    "start.sft": "null: M1 is the base itself, or `start.adapter`",
    "start.adapter": "a LoRA folder that becomes M1",
    "start.sft.file": "JSONL of prompts with written answers",
    "start.sft.judge_file": "JSONL of judgements whose score is known; null: none",
    "prompts.from": "self-instruct, or a file of your own: a line of text or {\"prompt\": …} each",
    "prompts.seed_file": "prompts people wrote: the few-shot pool",
    "candidates.n": "samples; Self-Rewarding LMs: 4",
    "judge.rubric": "the text a judge reads; docs/judges.md",
    "pairs.min_margin": "in points of the scorer; 0: any difference counts",
    "training.reference": "what DPO is held to: the policy the iteration started from, or the base",
    "training.gradient_checkpointing": "less memory, more time",
    "training.lora.r": "rank",
    "training.lora.alpha": "weights are scaled by alpha / r",
    "training.lora.targets": "`auto`: every linear layer but the head; or names of modules",
    "probe.file": "held-out prompts; none of them may train",
    "evaluate.questions": "two-turn questions, graded; null: none",
    "evaluate.problems": "problems with integer answers, checked by rule; null: none",
    "evaluate.rubric": "what the grader reads",
    "gate.on_collapse": "`warn`: say so and go on",
    "temperature": "0: greedy", "top_k": "0: off", "top_p": "share of probability that is drawn from",
    "save_steps": "between checkpoints", "judge_examples": "null: all",
}  # fmt: skip


def main() -> None:
    """Writes both pages."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
        print(f"docs/{name} is written")


def pages() -> dict[str, str]:
    """Both pages by file name."""
    return {"recipes.md": recipe_page(), "store.md": store_page()}


RECIPE_HEAD = """# Every key of a recipe

Made from the code by `python scripts/make_docs.py`; a test fails when it is stale. `selfreward init` writes a
commented recipe with the keys most people change; every other key has the default below, and any key can be
overridden once with `--set key=value`. An unknown key is refused with the nearest known one. A default that
names no source is ours. Recipes for machines of several sizes: [recipes/](recipes/)."""


def recipe_page() -> str:
    """Every key of a recipe, section by section."""
    parts = [RECIPE_HEAD]
    plain_recipe = recipes.Recipe.model_validate({"model": "?"})
    for path, section, values in sections(recipes.Recipe, plain_recipe, ""):
        title = f"`{path}`" if path else "The recipe itself"
        fields = section.model_fields.items()
        rows = [row for name, field in fields if (row := key_row(path, section, name, field, values))]
        if rows:
            table = [
                "| key | default | takes | unit | what it is, and whose it is |",
                "|---|---|---|---|---|",
            ]
            parts.append("\n\n".join([f"## {title}", told(section), "\n".join([*table, *rows])]))
        elif section.model_fields:
            parts[-1] += f"\n\n`SIGNAL` below is one of {', '.join(f'`{n}`' for n in section.model_fields)}."
    return "\n\n".join(parts) + "\n"


def sections(section: type[BaseModel], values: Any, path: str) -> Iterator[tuple[str, type[BaseModel], Any]]:
    """The section and all below it in the order of their keys, with the defaults; those of a list end in [].

    Many keys of one kind (`gate.limits`) are told once, under the names of all.
    """
    yield path, section, values
    alike = {f.annotation for f in section.model_fields.values()}
    if len(section.model_fields) > 5 and len(alike) == 1:
        kind = alike.pop()
        assert isinstance(kind, type) and issubclass(kind, BaseModel)
        yield f"{path}.SIGNAL", kind, kind()
        return
    for name, field in section.model_fields.items():
        for kind, many in models_of(field.annotation):
            key = ".".join(filter(None, [path, field.alias or name])) + ("[]" if many else "")
            own = (
                get_args(kind.model_fields["type"].annotation) if many and "type" in kind.model_fields else ()
            )
            below = None if many else getattr(values, name, None)
            yield from sections(kind, below, f"{key} (type: {', '.join(map(str, own))})" if own else key)


def models_of(annotation: Any, many: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """The sections an annotation holds, and whether in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, many
    for inner in get_args(annotation):
        if not isinstance(inner, str):
            yield from models_of(inner, many or get_origin(annotation) is list)


def key_row(path: str, section: type[BaseModel], name: str, field: FieldInfo, values: Any) -> str | None:
    """A key that holds a value itself; None for a section, which has a table of its own."""
    inner = list(models_of(field.annotation))
    takes = kinds(field)
    if inner and "null" not in takes and not any(many for _, many in inner):
        return None
    key = ".".join(filter(None, [re.sub(r" \(.*\)", "", path), field.alias or name]))
    unit = COUNTS.get(key, UNITS.get(name, "")) if "integer" in takes or "number" in takes else ""
    value = getattr(values, name, field.default)
    own = comments(section).get(name, "") if value == field.default else ""  # it is of the class's default
    note = re.sub(r"\bNone:", "null:", own) or NOTES.get(key) or NOTES.get(name, "")
    cells = [f"`{key}`", default(field, value), takes, unit, note]
    return f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |"


def default(field: FieldInfo, value: Any) -> str:
    """As a recipe would write it."""
    if field.default is PydanticUndefined:
        return "must be given"
    if isinstance(value, BaseModel):
        return "its own section"
    if isinstance(value, list):
        value = [v.model_dump() if isinstance(v, BaseModel) else v for v in value]
    return f"`{json.dumps(value)}`"


def kinds(field: FieldInfo) -> str:
    """What the key takes, limits included."""
    limits = limits_of([*field.metadata, *get_args(field.annotation)])
    return " or ".join(
        dict.fromkeys(k + limits if k in ("integer", "number") else k for k in plain(field.annotation))
    )


def plain(annotation: Any) -> Iterator[str]:
    """The kinds of an annotation, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    names = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null"}
    if annotation in names:
        yield names[annotation]
    elif origin is Literal:
        yield from (f"`{json.dumps(v)}`".replace('"', "") for v in inner)
    elif origin in (Union, UnionType):
        for part in inner:
            yield from plain(part)
    elif origin is Annotated:
        limits = limits_of(inner[1:])
        yield from (k + limits if k in ("integer", "number") else k for k in plain(inner[0]))
    elif origin is list:
        yield "a list"
    elif origin is tuple:
        yield f"{len(inner)} numbers"
    else:
        yield "a section"


def limits_of(metadata: Any) -> str:
    """Bounds among the metadata of an annotation, as signs."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found: dict[str, Any] = {}
    for one in metadata:
        for inner in [one, *getattr(one, "metadata", [])]:
            found |= {name: v for name in signs if isinstance(v := getattr(inner, name, None), int | float)}
    return "".join(f" {signs[name]} {value:.12g}" for name, value in found.items())


def comments(section: type[BaseModel]) -> dict[str, str]:
    """The comment behind each key of a class, or of a class it comes from."""
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if kind is BaseModel or not issubclass(kind, BaseModel):
            continue
        source = textwrap.dedent(inspect.getsource(kind))
        name = None
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            line = re.match(r"    (\w+): ", token.line)
            if token.type == tokenize.NAME and line and token.start[1] == 4:
                name = line[1]
            elif token.type == tokenize.COMMENT and name and not token.string.startswith("# fmt"):
                found[name] = token.string.lstrip("# ")
    return found


def told(section: type[BaseModel]) -> str:
    """The class's docstring as paragraphs."""
    paragraphs = (section.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(p.split()) for p in paragraphs)


def store_page() -> str:
    """Every table and column of a store that was just made."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "selfreward.db"
        Store(path, write=True).close()
        database = sqlite3.connect(path)
        rows = database.execute(
            "SELECT type, name, sql, tbl_name FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        ).fetchall()
        tables = [(n, s) for t, n, s, _ in rows if t == "table" and n != "alembic_version"]
        parts = [STORE_HEAD, *(table_part(database, n, s, rows) for n, s in tables)]
        views = "\n\n".join(f"```sql\n{s}\n```" for t, _, s, _ in rows if t == "view")
        database.close()
    return "\n\n".join([*parts, "## Views", views]) + "\n"


STORE_HEAD = """# The store, table by table

Made from the schema by `python scripts/make_docs.py`; a test fails when it is stale. A run's store is
`iterations/NAME/selfreward.db`, a SQLite file open to any tool. Names are public: columns may be added, none
is renamed or dropped. [architecture.md](architecture.md) says who writes what, and when."""


def table_part(database: sqlite3.Connection, name: str, sql: str, rows: list[Any]) -> str:
    """A table: what it is, its columns, what guards it."""
    kind = next((k for k in vars(records).values() if getattr(k, "__tablename__", None) == name), None)
    about = " ".join((kind.__doc__ or "").split()) if kind else ""
    notes = column_notes(sql)
    columns = database.execute(f"PRAGMA table_info({name})").fetchall()
    table = ["| column | type | | what it is |", "|---|---|---|---|"]
    for _, column, of, not_null, value, key in columns:
        marks = ", ".join(filter(None, ["key" if key else "", "" if not_null or key else "may be NULL",
                                        f"default {value}" if value is not None else ""]))  # fmt: skip
        table.append(f"| `{column}` | {of} | {marks} | {notes.get(column, '').replace('|', chr(92) + '|')} |")
    guards = [f"- `{g}`" for g in conditions(sql)]
    indexes = [f"- index `{n}`" for t, n, _, of in rows if t == "index" and of == name]
    triggers = [f"- trigger `{n}`" for t, n, _, of in rows if t == "trigger" and of == name]
    return "\n\n".join(
        filter(None, [f"## `{name}`", about, "\n".join(table), "\n".join(guards + indexes + triggers)])
    )


def column_notes(sql: str) -> dict[str, str]:
    """The comment at the end of a line belongs to the last column that the line names."""
    notes = {}
    for line in sql.splitlines():
        code, dashes, note = line.partition("--")
        names = re.findall(r"(?:^\s*|, )(\w+) (?:INTEGER|TEXT|REAL|BLOB)", code)
        if dashes and names:
            notes[names[-1]] = note.strip()
    return notes


def conditions(sql: str) -> list[str]:
    """Every CHECK, UNIQUE and FOREIGN KEY of a table, its parentheses whole."""
    code = " ".join(line.partition("--")[0].strip() for line in sql.splitlines())
    found = []
    for match in re.finditer(r"\b(?:CHECK|UNIQUE|FOREIGN KEY) ?\(", code):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
        after = re.match(r" REFERENCES \w+\([^)]*\)", code[end:])
        found.append(code[match.start() : end] + (after[0] if after else ""))
    return found


if __name__ == "__main__":
    main()
