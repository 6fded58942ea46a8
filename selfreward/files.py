"""Files that appear whole or not at all, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from selfreward.errors import BadInput
from selfreward.points import reach

MAKE_ROOM = "what was stored is whole; make room and run the same command again"
ROOM_TO_WRITE = 2**20  # bytes; with less, whatever failed beside it failed for want of room


def packaged(name: str) -> Path:
    """A file shipped under `prompts/`, in a wheel and in an editable checkout alike."""
    here = Path(__file__).resolve().parent
    inside = here / "prompts" / name
    return inside if inside.exists() else here.parent / "prompts" / name


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def fsync(path: Path) -> None:
    """Forces a file, or a folder's entries, to the disk."""
    reach("fsync", path)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    reach("fsynced", path)


def rename(old: Path, new: Path) -> None:
    """Gives a file or a folder its last name; on the disk once the folder around it is."""
    reach("rename", new)
    old.rename(new)
    reach("renamed", new)


def check_place(target: Path) -> None:
    """Bad input, with what to do, unless a file can be made or replaced at `target`."""
    if target.is_dir():
        raise BadInput(f"{target} is a folder: name a file in it")
    if not target.parent.is_dir():
        raise BadInput(f"{target}: there is no folder {target.parent}; make it first, or name another")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file for bytes that takes the place of `path` when the block ends well, and is gone when not."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        reach("write", path)
        with open(beside, "wb") as target:
            yield target
            reach("write half", path)
        fsync(beside)
        rename(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes beside, forces to the disk, renames: readers see the old file or the new one."""
    with whole_file(path) as target:
        target.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_text` of compact JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False))


def place_folder(finished: Path, target: Path) -> None:
    """Moves a finished folder into place with all its bytes on the disk first; nothing may be at `target`."""
    for path in sorted(finished.rglob("*")):
        fsync(path)
    fsync(finished)
    target.parent.mkdir(parents=True, exist_ok=True)
    rename(finished, target)
    fsync(target.parent)
    fsync(finished.parent)


def remove_parts(folder: Path) -> None:
    """Removes what a killed process had written beside and not yet renamed."""
    for path in folder.rglob("*.part"):
        if path.is_file():
            path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Removes a folder and all in it; one that is not there is fine."""
    if path.exists():
        shutil.rmtree(path)


def disk_is_full(error: BaseException, folder: Path) -> bool:
    """Whether a write failed for that; libraries that write by themselves say it in ways of their own."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return shutil.disk_usage(folder).free < ROOM_TO_WRITE


def check_room(folder: Path) -> None:
    """After a child has failed: raises `BadInput` where there is no room for what it would have written."""
    if shutil.disk_usage(folder).free < ROOM_TO_WRITE:
        raise BadInput(f"{folder} has no room left: {MAKE_ROOM}")


def models_folder() -> Path:
    """Where named models of the user lie."""
    root = os.environ.get("SELFREWARD_CACHE")
    if root:
        return Path(root) / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfreward" / "models"
