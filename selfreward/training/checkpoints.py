"""Which half-way state of a training counts: one whose manifest, written last, agrees with its files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from selfreward.errors import BadInput
from selfreward.files import fsync, rename, sha256_of, write_json
from selfreward.points import reach

MANIFEST = "complete.json"


def seal(checkpoint: Path, job: str, world: int = 1) -> None:
    """Writes the manifest that makes a checkpoint count, last, after all its files are on the disk.

    `job` is the identity of the training, `world` how many processes it is of: each left its own random
    state.
    """
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MANIFEST)
    for path in files:
        fsync(path)
    hashes = {str(p.relative_to(checkpoint)): sha256_of(p) for p in files}
    write_json(checkpoint / MANIFEST, {"job": job, "world_size": world, "sha256": hashes})
    reach("checkpoint", checkpoint)


def last_sound_checkpoint(folder: Path, job: str, world: int = 1) -> Path | None:
    """The newest checkpoint of this training whose files are all there and equal to its manifest.

    Torn ones, and those of other rows, are renamed out of the way. Raises `BadInput` for one of another
    number of processes.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1]))
    for checkpoint in found:
        if _is_sound(checkpoint, job):
            then = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["world_size"]
            if then != world:
                raise BadInput(
                    f"{checkpoint} is of {then} processes, this training has {world}: "
                    f"set training.processes to {then}, or remove {folder} to train anew"
                )
            return checkpoint
        print(f"{checkpoint.name} is not complete, or of another training: set aside", file=sys.stderr)
        rename(checkpoint, checkpoint.with_name(f"torn-{checkpoint.name}-{os.getpid()}"))
    return None


def _is_sound(checkpoint: Path, job: str) -> bool:
    try:
        told = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        manifest, known = told["sha256"], told["job"]
    except (OSError, ValueError, KeyError):
        return False
    return known == job and all(
        (checkpoint / n).is_file() and sha256_of(checkpoint / n) == h for n, h in manifest.items()
    )
