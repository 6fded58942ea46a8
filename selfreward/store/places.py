"""Where a store lies while it is written: beside its run, alone on a network file system, or on a local disk.

WAL needs memory that all readers share, which a network file system has not. There the writer keeps the file
to itself and readers see a snapshot; or the file is on a local disk and copied back when a stage is done.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfreward.errors import StoreError
from selfreward.files import sha256_of_text
from selfreward.store import lease
from selfreward.store.mirror import ELSEWHERE, SNAPSHOT, Mirror, elsewhere

if TYPE_CHECKING:
    from selfreward.store.store import Store

# File systems that several machines write: their names in /proc/self/mountinfo.
SHARED = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "afs", "9p", "panfs",
    "pvfs2", "orangefs", "wekafs", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "fuse.juicefs", "fuse.ceph",
}  # fmt: skip
Say = Callable[[str], None]


def filesystem_of(path: Path) -> str:
    """The kind of file system a path is on, as the kernel names it; empty where that cannot be seen."""
    place, found, longest = path.resolve(), "", -1
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            before, after = line.split(" - ", 1)
            mount = Path(before.split()[4].replace("\\040", " "))
            if place.is_relative_to(mount) and len(mount.parts) >= longest:
                found, longest = after.split()[0], len(mount.parts)
    return found


@contextmanager
def opened(home: Path, path: str | None, network: bool | Literal["auto"], say: Say) -> Iterator[Store]:
    """The store of the run whose file is `home`, to be written, wherever the recipe wants it meanwhile.

    The caller holds the run's lock. `path` is a folder on a local disk.
    """
    shared = filesystem_of(home.parent) in SHARED if network == "auto" else network
    held = lease.Lease(home.parent) if shared else nullcontext()
    with held as own:
        if isinstance(own, lease.Lease) and own.said:
            say(own.said)
        if path is not None:
            with _on_local_disk(home, Path(path).expanduser(), say) as store:
                yield store
            return
        _refuse_elsewhere(home, None)
        with closing(_store(home, alone=shared)) as store:
            if shared:
                store.mirror = Mirror(store.copy_to, home.with_name(SNAPSHOT), after_blocks=True)
                say(f"{home.parent} is on a network: readers see the run as of the last snapshot")
            store.lease = own if isinstance(own, lease.Lease) else None
            yield store
        home.with_name(SNAPSHOT).unlink(missing_ok=True)


def _store(path: Path, *, alone: bool = False, home: Path | None = None) -> Store:
    from selfreward.store.store import Store

    return Store(path, write=True, alone=alone, home=home)


@contextmanager
def _on_local_disk(home: Path, folder: Path, say: Say) -> Iterator[Store]:
    """Fetches the store, works on it there, and copies it back; a crash leaves the newest rows there."""
    local = folder / f"{home.parent.name}-{sha256_of_text(str(home))[:12]}.db"
    here = {"host": socket.gethostname(), "path": str(local)}
    mine = _refuse_elsewhere(home, here)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not mine:
            _fetch(home, local)
        home.with_name(ELSEWHERE).write_text(json.dumps(here), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"store.path {folder} cannot be used: {error.strerror or error}") from None
    say(f"the store is worked on in {local} and copied back when a stage is done")
    store = _store(local, home=home.parent)
    store.mirror = Mirror(store.copy_to, home, after_blocks=False)
    try:
        yield store
    finally:
        try:
            store.mirror.copy()
        except StoreError as error:
            raise StoreError(
                f"{error}; the newest rows are in {local}: the same command here goes on"
            ) from None
        finally:
            store.close()
    home.with_name(ELSEWHERE).unlink(missing_ok=True)


def _fetch(home: Path, local: Path) -> None:
    from selfreward.store import backup

    for suffix in ("", "-wal", "-shm"):
        Path(f"{local}{suffix}").unlink(missing_ok=True)
    if home.exists():
        backup.put_copy(home, local)


def _refuse_elsewhere(home: Path, here: dict[str, str] | None) -> bool:
    """Whether an interrupted run left its newest rows here. Raises `StoreError` if they are elsewhere."""
    found = elsewhere(home)
    if found is None:
        return False
    if here is not None and found == here and Path(here["path"]).exists():
        return True
    raise StoreError(
        f"the newest rows of this run are in {found['path']} on {found['host']}, where it was interrupted: "
        f"go on there with the same store.path, or remove {home.with_name(ELSEWHERE)} to go on from the copy "
        "here, which is as of its last finished stage"
    )
