"""`selfreward export`: a policy as a folder that other tools load, its adapter or merged weights.

Written beside and renamed: the folder is there whole, checked, or not at all.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from selfreward.errors import BadInput, WorkFailed

DTYPES = ("bfloat16", "float32", "float16", "base")
LEFT_OUT = ("job.json", "README.md")  # the run's own note, and a model card nobody filled in
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def export(
    policy: Annotated[str, typer.Argument(help="M1, M2, …")],
    to: Annotated[Path, typer.Option("--to", help="A folder that does not exist yet.")],
    merge: Annotated[bool, typer.Option("--merge", help="Whole weights instead of the adapter.")] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", help="What merged weights are stored in; base: as the base's.")
    ] = "bfloat16",
    run: Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")] = None,
) -> None:
    """Write a policy's adapter, or with --merge its whole weights, with tokenizer and chat template."""
    from selfreward.runs import database_of, recipe_file

    if dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is none of {', '.join(DTYPES)}", param_hint="--dtype")
    found = Source.of(database_of(run), recipe_file(run), policy)
    typer.echo(write_merged(found, to, dtype) if merge else write_adapter(found, to))


@dataclass(frozen=True, slots=True)
class Source:
    """A policy of a run with what an export needs: its adapter, checked, its base and its template.

    `hub` is the base's `id@commit`, None for a folder; `template` the text of the recipe's own chat template;
    `facts` what a report tells of the run, for the model card.
    """

    name: str
    adapter: Path
    sha256: str
    base: Path
    hub: str | None
    template: str | None
    logs: Path
    facts: dict[str, Any] | None

    @classmethod
    def of(cls, database: Path, file: Path, name: str) -> Source:
        """Raises `BadInput` for a policy that has no adapter, or one that is not what was trained."""
        from selfreward.engines import model
        from selfreward.files import sha256_of
        from selfreward.recipe_file import parse
        from selfreward.report.facts import gather
        from selfreward.store import Views

        views = Views(database, write=False)
        run_id, policy = views.addressed(name)
        row = next(p for p in views.status(run_id)["policies"] if p.name == policy)
        recipe = parse(json.loads(views.recipe(run_id) or "{}"), str(database))
        views.close()
        if row.adapter is None:
            raise BadInput(
                f"{name} is the base itself ({row.model}), or is not trained yet: nothing to export"
            )
        adapter = database.parent / row.adapter
        weights = adapter / "adapter_model.safetensors"
        if not weights.is_file() or sha256_of(weights) != row.sha256:
            raise BadInput(
                f"{weights} is not what was trained: it is missing, or its sha256 is not {row.sha256}"
            )
        hub = row.model if row.model.startswith(f"{recipe.model.id}@") else None
        commit = hub.rpartition("@")[2] if hub else recipe.model.revision
        base, identity = model.resolve(recipe.model.id, commit, file.parent, fetch=False)
        if identity != row.model:
            raise BadInput(f"{name} was made from {row.model}, {recipe.model.id} is now {identity}")
        return cls(
            name,
            adapter,
            row.sha256,
            base,
            hub,
            _template(recipe.model.chat_template, file),
            database.parent / "logs",
            gather(database) if run_id == 1 else None,  # a report tells of the recipe's own run
        )


def write_adapter(source: Source, to: Path) -> str:
    """The adapter with its tokenizer and chat template; weights are held against the stored sha256."""
    from selfreward.files import sha256_of

    part = _part_of(to)
    try:
        for path in sorted(source.adapter.iterdir()):
            if path.is_file() and path.name not in LEFT_OUT:
                shutil.copyfile(path, part / path.name)
        _complete(source, part, merged=False)
        if sha256_of(part / "adapter_model.safetensors") != source.sha256:
            raise WorkFailed(f"the copy of {source.adapter} is not equal to it: is the disk sound?")
        _place(part, to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"{source.name} written to {to}: adapter {source.sha256[:12]} of {source.hub or source.base}"


def write_merged(source: Source, to: Path, dtype: str) -> str:
    """The merged model, made and checked in a child whose log is among the run's."""
    from selfreward.engines import merge as merging
    from selfreward.engines import process

    merging.refuse_unmergeable(source.base, source.adapter)
    part, log = _part_of(to), source.logs / "export.log"
    try:
        job = {"base": str(source.base), "adapter": str(source.adapter.resolve()), "to": str(part.resolve())}
        arguments = [json.dumps(job | {"dtype": dtype, "threads": None})]
        child = process.start("selfreward.engines.merge", arguments, log, None, {"CUDA_VISIBLE_DEVICES": ""})
        try:
            code = child.process.wait()
        except BaseException:
            child.process.kill()
            raise
        finally:
            child.close()
        if code:
            kind = BadInput if code == BadInput.exit_code else WorkFailed
            raise kind(f"merging {source.name}: {child.log_tail(1)} (log: {log})")
        found = json.loads((part / merging.RESULT).read_text(encoding="utf-8"))
        _complete(source, part, merged=True)
        _place(part, to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _said(source.name, to, found)


def _said(name: str, to: Path, found: dict[str, Any]) -> str:
    told = (
        f"{name} merged into {to}, {found['dtype']}: the adapter moved log-probabilities by "
        f"{found['moved']:.1e} nats a token, rounding by {found['rounding']:.1e}, nothing else by more than "
        f"{found['gap']:.1e}"
    )
    if found["rounding"] > found["moved"] / 4:
        told += ". Rounding took much of what was learnt: --dtype float32 keeps it"
    return told


def _template(wanted: str | None, file: Path) -> str | None:
    """The text of the recipe's own chat template; None for the model's."""
    from selfreward.engines.chat import PLAIN_TEMPLATE
    from selfreward.recipe_file import locate

    if wanted == "plain":
        return PLAIN_TEMPLATE
    return locate(file, wanted).read_text(encoding="utf-8") if wanted else None


def _complete(source: Source, part: Path, *, merged: bool) -> None:
    """What a foreign adapter may lack, a base that others can find, and the model card."""
    from selfreward.report.text import card

    if source.facts is not None:
        told = card(source.facts, source.name, hub=source.hub, merged=merged)
        (part / "README.md").write_text(told, encoding="utf-8")
    for name in (*TOKENIZER, "chat_template.jinja"):
        if not (part / name).exists() and (source.base / name).is_file():
            shutil.copyfile(source.base / name, part / name)
    if source.template and not (source.adapter / "chat_template.jinja").exists():
        (part / "chat_template.jinja").write_text(source.template, encoding="utf-8")
    config = part / "adapter_config.json"
    if config.is_file():
        values = json.loads(config.read_text(encoding="utf-8"))
        name, _, commit = source.hub.rpartition("@") if source.hub else (str(source.base), "", "")
        values |= {"base_model_name_or_path": name, "revision": commit or None}
        config.write_text(json.dumps(values, indent=2), encoding="utf-8")


def _part_of(to: Path) -> Path:
    """The folder to write beside the wanted one, empty."""
    if to.exists() or not to.parent.is_dir():
        raise BadInput(f"{to} exists already, or its parent folder does not: name a new folder")
    part = to.with_name(f"{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
    except OSError as error:
        raise BadInput(f"{part} cannot be written: {error.strerror}") from None
    return part


def _place(part: Path, to: Path) -> None:
    from selfreward.files import place_folder

    place_folder(part, to)
