"""Which half-way state of a training counts: one whose manifest, written last, agrees with its files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from selfreward.files import fsync, sha256_of, write_json

MANIFEST = "complete.json"


def seal(checkpoint: Path) -> None:
    """Writes the manifest that makes a checkpoint count, last, after all its files are on the disk."""
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MANIFEST)
    for path in files:
        fsync(path)
    write_json(checkpoint / MANIFEST, {str(p.relative_to(checkpoint)): sha256_of(p) for p in files})


def last_sound_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all there and equal to its manifest.

    Torn ones are renamed out of the way.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1]))
    for checkpoint in found:
        if _is_sound(checkpoint):
            return checkpoint
        print(f"{checkpoint.name} is not complete: set aside", file=sys.stderr)
        checkpoint.rename(checkpoint.with_name(f"torn-{checkpoint.name}-{os.getpid()}"))
    return None


def _is_sound(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / n).is_file() and sha256_of(checkpoint / n) == h for n, h in manifest.items())
