"""Where a store lies while it is written: leases, snapshots, a local disk, and what a crash leaves."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from selfreward import records as r
from selfreward.errors import StoreError
from selfreward.store import Lock, Reviews, Store, Views, is_held
from selfreward.store import backup as backups
from selfreward.store.lease import NAME, Lease, is_fresh
from selfreward.store.mirror import ELSEWHERE, SNAPSHOT
from selfreward.store.places import filesystem_of, opened
from tests.runner import command, iterate, query, write_recipe

SHORT = {"start": {"sft": None}, "evaluate": None}


def quiet(_: str) -> None:
    """Nobody listens."""


def begin(store: Store) -> None:
    store.save(r.Run(id=1, name="a", recipe="{}", fingerprint="f", seed=0, created_at="now"))


def held_by(folder: Path, host: str, pid: int, age: float) -> None:
    """A lease as another process left it."""
    (folder / NAME).write_text(json.dumps({"host": host, "pid": pid, "since": 0}))
    os.utime(folder / NAME, (time.time() - age, time.time() - age))


def gone() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def events(path: Path) -> int:
    with closing(Views(path, write=False)) as views:
        return int(views.one("SELECT count(*) FROM event")[0])


def test_a_lease_of_another_host_is_respected_until_it_is_silent(tmp_path: Path) -> None:
    held_by(tmp_path, "login7", 4242, age=5)
    with (
        pytest.raises(StoreError, match=r"in use by process 4242 on login7, .* sign of life \d+ s ago"),
        Lease(tmp_path),
    ):
        pass
    held_by(tmp_path, "login7", 4242, age=61)
    with Lease(tmp_path) as own:
        assert own.said.startswith("taken over from process 4242 on login7, silent for 6")
        assert is_fresh(tmp_path)
    assert not (tmp_path / NAME).exists()


def test_a_lease_of_a_dead_process_of_this_host_is_stale_at_once(tmp_path: Path) -> None:
    held_by(tmp_path, socket.gethostname(), gone(), age=1)
    assert not is_fresh(tmp_path)
    with Lease(tmp_path) as own:
        assert "taken over" in own.said


def test_a_lease_is_renewed_while_it_is_held_and_a_takeover_is_noticed(tmp_path: Path) -> None:
    with Lease(tmp_path, beat=0.05) as own:
        os.utime(tmp_path / NAME, (1, 1))
        deadline = time.monotonic() + 30
        while (tmp_path / NAME).stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (tmp_path / NAME).stat().st_mtime > 2
        own.check()
        held_by(tmp_path, "other", 1, age=0)
        with pytest.raises(StoreError, match="taken over by process 1 on other"):
            own.check()
    assert json.loads((tmp_path / NAME).read_text())["host"] == "other"  # not ours to remove


def test_on_a_network_the_writer_is_alone_and_readers_see_a_snapshot(tmp_path: Path) -> None:
    home = tmp_path / "selfreward.db"
    with opened(home, None, True, quiet) as store:
        begin(store)
        store.add([store.event(1, "one")])
        assert store.one("PRAGMA journal_mode")[0] == "delete"
        with closing(sqlite3.connect(home, timeout=0)) as other, pytest.raises(sqlite3.OperationalError):
            other.execute("SELECT count(*) FROM event").fetchone()
        assert store.mirror is not None
        store.mirror.copy()
        assert events(home) == 1 and is_held(tmp_path)
        store.add([store.event(1, "two")])
        assert events(home) == 1  # as of the last snapshot
        store.mirror._due = 0.0
        store.add([store.event(1, "three")])
        assert events(home) == 3
    assert not (tmp_path / SNAPSHOT).exists() and events(home) == 3
    with closing(Store(home, write=True)) as store:  # back beside its readers
        assert store.one("SELECT count(*) FROM event")[0] == 3


def test_a_local_disk_is_copied_back_at_stage_ends_and_a_crash_loses_nothing(tmp_path: Path) -> None:
    home, disk = tmp_path / "run" / "selfreward.db", tmp_path / "disk"
    home.parent.mkdir()
    with opened(home, str(disk), False, quiet) as store:
        begin(store)
        store.stage_ended()
        assert events(home) == 0
        store.add([store.event(1, "one")])
        assert events(home) == 0
        store.stage_ended()
        assert events(home) == 1
        store.backup("promoted", "M2")
    assert not home.with_name(ELSEWHERE).exists() and len(backups.backups(home)) == 1
    crashed = opened(home, str(disk), False, quiet)
    store = crashed.__enter__()
    store.add([store.event(1, "two")])
    assert events(home) == 1
    for path, why in ((None, "the newest rows"), (str(tmp_path / "other"), "the newest rows")):
        with (
            pytest.raises(StoreError, match=f"{why} of this run are in {disk}"),
            opened(home, path, False, quiet),
        ):
            pass
    with pytest.raises(StoreError, match=f"reviews wait: .* {disk}"):
        Reviews(home)
    store.close()
    with opened(home, str(disk), False, quiet) as store:
        assert store.one("SELECT count(*) FROM event")[0] == 2
    assert events(home) == 2


def test_rows_left_on_another_host_are_told_with_its_name(tmp_path: Path) -> None:
    home = tmp_path / "selfreward.db"
    home.with_name(ELSEWHERE).write_text(json.dumps({"host": "node12", "path": "/scratch/a.db"}))
    with (
        pytest.raises(StoreError, match=r"in /scratch/a.db on node12, .*remove .*store.json"),
        opened(home, None, False, quiet),
    ):
        pass


def test_the_kind_of_file_system_is_seen() -> None:
    assert filesystem_of(Path("/proc/self")) == "proc"
    assert filesystem_of(Path.cwd()) not in ("", "proc")


def test_a_file_system_without_locks_is_no_other_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("selfreward.store.lock.fcntl.flock", unsupported)
    with Lock(tmp_path), Lock(tmp_path):  # the lease is what keeps two apart there
        assert (tmp_path / "lock").read_text(encoding="utf-8") == ""  # no holder is named that nobody can see


def test_a_run_on_a_network_and_then_on_a_local_disk(tiny_policy: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path, tiny_policy, **SHORT, store={"network": True})
    done = iterate(tmp_path, "--to", "M2", "--pause-before", "M1/probe")
    assert done.returncode == 0, done.stdout + done.stderr
    home = tmp_path / "iterations" / "t"
    assert query(tmp_path, "SELECT count(*) FROM answer") == [(6,)]
    assert not (home / NAME).exists() and not (home / SNAPSHOT).exists()
    disk = tmp_path / "disk"
    wanted = ("--to", "M2", "--pause-before", "prompts", "--set", f"store.path={disk}")
    faults = {"at": ["driver: committed * in probe.* #1"], "do": "kill"}
    killed = iterate(tmp_path, *wanted, SELFREWARD_FAULTS=json.dumps(faults))
    assert killed.returncode == -9 and (home / ELSEWHERE).exists()
    assert command(tmp_path, "status").returncode == 0
    refused = iterate(tmp_path, "--to", "M2", "--pause-before", "prompts")
    assert refused.returncode == 3 and "the newest rows" in refused.stderr
    assert "taken over" in refused.stdout  # the killed one left its lease
    again = iterate(tmp_path, *wanted)
    assert again.returncode == 0, again.stdout + again.stderr
    assert query(tmp_path, "SELECT count(*) FROM answer") == [(12,)]
    assert not (home / ELSEWHERE).exists()
