"""What in a run's folder no lineage needs, with its bytes; and removing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import BadInput, StoreError
from selfreward.files import remove_folder
from selfreward.store import space
from selfreward.store.lineage import branch_id, runs

POLICY = r"M(0|[1-9]\d?)"
PAGES = 1 << 20  # bytes: fewer unused ones are not worth writing the file anew


@dataclass(frozen=True, slots=True)
class Item:
    """Something to remove: why nothing needs it, where it is, its bytes. `path` None: pages in the store."""

    why: str
    path: Path | None
    size: int


def items(path: Path, views: Any) -> list[Item]:
    """All that no lineage needs in the folder of the store at `path`; nothing that a policy or branch has."""
    found = [Item(why, p, _size(p)) for why, p in _unneeded(path, views)]
    unused = space.unused(path)
    return found + ([Item("unused pages of the store", None, unused)] if unused >= PAGES else [])


def _unneeded(path: Path, views: Any) -> Iterator[tuple[str, Path]]:
    folder, rows = path.parent, views.runs()
    for one in sorted((folder / "set-aside").glob("*")):
        yield "of a policy that was made again", one
    for one in sorted(folder.glob(f"{path.name}.replaced-*")):
        yield "a store that a backup has replaced", one
    for one in sorted([*folder.glob("*.part"), *(folder / "backups").glob("*.part")]):
        yield "a file that was never finished", one
    homes = {r.id: folder / "branches" / r.name if r.parent_id else folder for r in rows}
    for one in sorted((folder / "branches").glob("*")):
        if one not in homes.values():
            yield "of no branch there is", one
    for run_id, home in homes.items():
        policies = {p.name: p for p in views.status(run_id)["policies"]}
        for one in sorted(home.glob("M*")):
            if re.fullmatch(POLICY, one.name) and one.is_dir():
                yield from _of_policy(one, policies.get(one.name), run_id)


def _of_policy(home: Path, policy: Any, run_id: int) -> Iterator[tuple[str, Path]]:
    if policy is None or policy.made_in != run_id:
        yield "of no policy there is", home
        return
    if policy.status != "training":
        for name in ("training/checkpoints", "training/adapter", "adapter.part"):
            if (home / name).exists():
                yield "of a training that is done", home / name


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(p.lstat().st_size for p in path.rglob("*") if not p.is_dir())


def remove(path: Path, found: list[Item]) -> None:
    """Removes them; the caller holds the run's lock."""
    for item in found:
        if item.path is None:
            space.shrink(path)
        elif item.path.is_dir() and not item.path.is_symlink():
            remove_folder(item.path)
        else:
            item.path.unlink(missing_ok=True)


def check_branch(views: Any, name: str) -> int:
    """The id of a branch that nothing else needs. Raises `StoreError` where another lineage does."""
    run_id = branch_id(views, name)
    if run_id == runs(views)[0].id:
        raise BadInput(f"{name} is the run itself: its folder is what there is to remove")
    needing = [r.name for r in runs(views) if r.parent_id == run_id]
    if needing:
        raise StoreError(
            f"branch {name} is needed by {', '.join(needing)}, which grew from it: remove those first"
        )
    return run_id
