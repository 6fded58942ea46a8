"""Finds and opens a run: which recipe is meant, and everything an `iterate` needs before its first stage."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from selfreward.errors import BadInput, RecipeError
from selfreward.stopping import Stop

if TYPE_CHECKING:  # a door that only looks at a run must not wait for what makes one
    from selfreward.recipe import Recipe
    from selfreward.records import Run
    from selfreward.stages.work import Progress, Work
    from selfreward.store import Store

FOLDER = Path("iterations")
LAST = FOLDER / ".last"
DATABASE = "selfreward.db"
NAME = r"[a-z0-9][a-z0-9._~-]*"
NAME_RULE = "lower-case letters, digits and . _ ~ - only, a letter or digit first"


def recipe_file(name: str | None) -> Path:
    """The recipe of that run; without a name, the only one here or the one iterated last."""
    if name is not None:
        return FOLDER / f"{name}.yaml"
    here = sorted(FOLDER.glob("*.yaml"))
    if len(here) == 1:
        return here[0]
    if LAST.exists() and (last := FOLDER / f"{LAST.read_text(encoding='utf-8').strip()}.yaml").exists():
        return last
    if not here:
        raise RecipeError("no recipe in iterations/: `selfreward init NAME --model ID` writes one")
    raise RecipeError(f"which run? --run takes one of {', '.join(p.stem for p in here)}")


def database_of(name: str | None) -> Path:
    """The store file of a run."""
    file = recipe_file(name)
    path = file.parent / file.stem / DATABASE
    if not path.exists() and not file.exists():
        raise RecipeError(f"{file} does not exist: `selfreward init {file.stem} --model ID` writes it")
    return path


@contextmanager
def open_work(
    file: Path, overrides: list[str], progress: Progress, stop: Stop | None = None
) -> Iterator[Work]:
    """The run behind a recipe, locked for this process; what can be checked before work starts is checked.

    A hub model stays at the commit the run began with, taken from the local cache.
    """
    from selfreward.files import remove_parts
    from selfreward.recipe_file import load, locate
    from selfreward.stages.work import Work
    from selfreward.store import Lock
    from selfreward.store.places import opened

    if not re.fullmatch(NAME, file.stem):
        raise RecipeError(f"{file.stem!r} cannot name a run: {NAME_RULE}")
    recipe = load(file, overrides)
    for name in recipe.files:
        locate(file, name)
    folder = file.parent / file.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (file.parent / LAST.name).write_text(file.stem + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written: {error.strerror}. Choose a folder you may write to"
        ) from None
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{folder} cannot be written. Choose a folder you may write to")
    home, place = (folder / DATABASE).resolve(), recipe.store
    with Lock(folder), opened(home, place.path, place.network, progress.say) as store:
        remove_parts(folder)
        base, identity = _base(store, recipe, file)
        run = _run_row(store, file.stem, recipe, overrides)
        yield Work(
            store, run, recipe, file.resolve(), folder.resolve(), base, identity, progress, stop or Stop()
        )


@contextmanager
def look_into(file: Path, overrides: list[str]) -> Iterator[Work]:
    """The run behind a recipe for a door that asks its policies something: no lock, and nothing is written.

    The engine child, if one is started, has a log of its own and is gone at the end.
    """
    from selfreward.recipe_file import load
    from selfreward.stages.work import Work
    from selfreward.store import Store

    recipe, folder = load(file, overrides), file.parent / file.stem
    store = Store((folder / DATABASE).resolve(), write=False)
    try:
        base, identity = _base(store, recipe, file)
        run = store.run()
        if run is None:
            raise BadInput(f"{file.stem} has not begun: `selfreward iterate --run {file.stem}` begins it")
        work = Work(store, run, recipe, file.resolve(), folder.resolve(), base, identity, Silent())
        work.engine_log = "looking.log"
        try:
            yield work
            work.close_engine()
        except BaseException:
            work.abandon_engine()
            raise
    finally:
        store.close()


class Silent:
    """Progress for nobody."""

    def begin(self, policy: str, stage: str, done: int, total: int | None) -> None:
        """Nothing."""

    def advance(self, done: int, total: int | None, tokens: int) -> None:
        """Nothing."""

    def end(self, note: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


def _base(store: Store, recipe: Recipe, file: Path) -> tuple[Path, str]:
    """The base's folder and identity, pinned by the store once the run has begun."""
    from selfreward.engines import model

    known = store.policies(1).get("M0")
    pinned = known is not None and known.model.startswith(f"{recipe.model.id}@")
    commit = known.model.split("@", 1)[1] if known and pinned else recipe.model.revision
    return model.resolve(recipe.model.id, commit, file.parent, fetch=not pinned)


def _run_row(store: Store, name: str, recipe: Recipe, overrides: list[str]) -> Run:
    """The run's row, made at the first start; the loop keeps its recipe as it is in force."""
    from selfreward.files import sha256_of_text
    from selfreward.records import Run
    from selfreward.store.database import now

    text = recipe.model_dump_json(by_alias=True)
    run = store.run()
    if run is None:
        run = Run(
            id=1, name=name, recipe=text, fingerprint=sha256_of_text(text), seed=recipe.seed, created_at=now()
        )
        store.save(run, events=[store.event(1, "run", name=name, overrides=overrides)])
    return run
