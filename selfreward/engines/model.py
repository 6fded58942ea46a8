"""Finding the base: a folder, a named model in the user's cache, or a hub id fetched once and pinned.

Runs in the driver; imports no tensor library. Children get the folder and stay offline.
"""

from __future__ import annotations

from pathlib import Path

from selfreward.errors import BadInput
from selfreward.files import models_folder, sha256_of

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def resolve(name: str, revision: str | None, beside: Path, *, fetch: bool = True) -> tuple[Path, str]:
    """The folder of a base and its identity.

    The identity is `id@commit`, or the name and the sha256 of the weights or their index. Raises `BadInput`
    with one clear line where the base is missing, gated, or not a model.
    """
    for folder in (beside / Path(name).expanduser(), models_folder() / name):
        if folder.is_dir():
            return folder.resolve(), f"{folder.name} sha256:{_weights_hash(folder)}"
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise BadInput(
            f"model {name!r} is neither a folder beside the recipe nor in {models_folder()}, "
            "and no hub id (owner/name); "
            "`make demo` fetches the demo policy"
        )
    folder = _from_hub(name, revision, fetch)
    return folder, f"{name}@{folder.name}"


def _weights_hash(folder: Path) -> str:
    for name in ("model.safetensors.index.json", "model.safetensors"):
        if (folder / name).exists():
            return sha256_of(folder / name)
    raise BadInput(f"{folder} holds no model.safetensors: it is not a model that can be trained")


def _from_hub(name: str, revision: str | None, fetch: bool) -> Path:
    import os

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=WANTED, local_files_only=not fetch)
        )
    except GatedRepoError:
        why = "its owner asks you to accept terms first: do so on its page, then log in with `hf auth login`"
    except RepositoryNotFoundError:
        why = "the hub knows no such model, or it is private: check the id, or log in with `hf auth login`"
    except RevisionNotFoundError:
        why = f"it has no revision {revision}"
    except LocalEntryNotFoundError:
        why = (
            "the hub cannot be reached and it is not in the local cache: "
            "`selfreward doctor --fetch` once while online"
        )
    except (OSError, HFValidationError) as error:
        why = str(error).splitlines()[0]
    raise BadInput(f"model {name!r}: {why}")
