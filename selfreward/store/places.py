"""Where a store lies while it is written: beside its run, alone on a network file system, or on a local disk.

WAL needs memory that all readers share, which a network file system has not. There the writer keeps the file
to itself and readers see a snapshot; or the file is on a local disk and copied back when a stage is done.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfreward.errors import StoreError
from selfreward.files import sha256_of_text
from selfreward.store import lease

if TYPE_CHECKING:
    from selfreward.store.database import Database
    from selfreward.store.store import Store

SNAPSHOT = "selfreward.snapshot.db"
ELSEWHERE = "store.json"  # says that the newest rows are on a machine's own disk
# File systems that several machines write: their names in /proc/self/mountinfo.
SHARED = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "afs", "9p", "panfs",
    "pvfs2", "orangefs", "wekafs", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "fuse.juicefs", "fuse.ceph",
}  # fmt: skip
SHARE_OF_TIME = 0.02  # of a run that copying snapshots may take
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


class Mirror:
    """Keeps a copy of an open store: after blocks, when one is due, or only when a stage is done."""

    def __init__(self, db: Database, target: Path, *, after_blocks: bool) -> None:
        self.target = target
        self._db, self._after_blocks = db, after_blocks
        self._due = 0.0

    def block_ended(self) -> None:
        """Copies if it is time; a copy that fails is tried again later, for the rows themselves are safe."""
        if self._after_blocks and time.monotonic() >= self._due:
            start = time.monotonic()
            with suppress(StoreError):
                self.copy()
            self._due = time.monotonic() + max(1.0, (time.monotonic() - start) / SHARE_OF_TIME)

    def stage_ended(self) -> None:
        """Copies. Raises `StoreError` where that fails."""
        self.copy()

    def copy(self) -> None:
        """The store as it is now, whole, in the target's place."""
        self._db.copy_to(self.target)


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
                store.mirror = Mirror(store, home.with_name(SNAPSHOT), after_blocks=True)
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
    store.mirror = Mirror(store, home, after_blocks=False)
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


def elsewhere(home: Path) -> dict[str, Any] | None:
    """Host and path of the file with the newest rows, while that is not the run's own."""
    with suppress(OSError, ValueError):
        found = json.loads(home.with_name(ELSEWHERE).read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"host", "path"} <= found.keys():
            return found
    return None


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


def readable(path: Path) -> Path:
    """The file a reader opens: the snapshot while a writer keeps the store to itself, or died doing so."""
    snapshot = path.with_name(SNAPSHOT)
    torn = Path(f"{path}-journal")
    return snapshot if snapshot.exists() and (lease.is_fresh(path.parent) or torn.exists()) else path
