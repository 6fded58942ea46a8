"""Files that appear whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


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
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file for bytes that takes the place of `path` when the block ends well, and is gone when not."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as target:
            yield target
        fsync(beside)
        beside.rename(path)
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
    finished.rename(target)
    fsync(target.parent)
    fsync(finished.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder and all in it; one that is not there is fine."""
    if path.exists():
        shutil.rmtree(path)


def models_folder() -> Path:
    """Where named models of the user lie."""
    root = os.environ.get("SELFREWARD_CACHE")
    if root:
        return Path(root) / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfreward" / "models"
