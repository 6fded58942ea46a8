"""Branches, restarts and changed recipes on the tiny policy: what is shared, made, refused."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from selfreward.files import sha256_of
from selfreward.store import Lock, promises
from selfreward.store import backup as backups
from tests.runner import TABLES, command, iterate, query, tables, write_recipe

SHORT: dict[str, Any] = {"start": {"sft": None}, "evaluate": None}  # M1 is the base: one training to M2
CALMER = ("--set", "training.beta=0.5")
WEIGHTS = "adapter/adapter_model.safetensors"


TRAINING = "driver: committed * in *.copy_log #1"  # the driver has heard of a step


def killed_at(point: str) -> str:
    """What makes the run's processes die at a point, as by kill -9."""
    return json.dumps({"at": [point], "do": "kill"})


def run_of(folder: Path) -> Path:
    return folder / "iterations" / "t"


def rows_of(folder: Path, run: int) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that decides of one run, table by table."""
    return {
        name: query(folder, f"SELECT {columns} FROM {name} WHERE run_id = {run} ORDER BY 1, 2, 3")
        for name, columns in TABLES.items()
        if name not in ("run", "rubric")
    }


@pytest.fixture(scope="module")
def short(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from the base to M2."""
    folder = tmp_path_factory.mktemp("short")
    write_recipe(folder, tiny_policy, **SHORT)
    done = iterate(folder, "--to", "M2")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def branched(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a branch from M1 that trains with another beta."""
    folder = tmp_path_factory.mktemp("branched") / "copy"
    shutil.copytree(short, folder)
    done = iterate(folder, "--from", "M1", "--branch", "calmer", "--to", "M2", *CALMER)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def copy(short: Path, tmp_path: Path) -> Path:
    """A copy of the short run, to be changed."""
    shutil.copytree(short, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_branch_shares_every_stage_that_its_recipe_leaves_alone(short: Path, branched: Path) -> None:
    """Beta decides the training alone: prompts to pairs are run 1's, M2 and its probe the branch's own."""
    made_in = query(branched, "SELECT policy, name, made_in FROM stage WHERE run_id = 2 ORDER BY 1, 2")
    shared = {(p, s) for p, s, made in made_in if made == 1}
    assert shared == {("M0", "probe"), ("M1", "probe")} | {
        ("M1", s) for s in ("prompts", "candidates", "judge", "pairs")
    }
    assert {(p, s) for p, s, made in made_in if made == 2} >= {("M2", "train"), ("M2", "probe")}
    assert rows_of(branched, 1) == rows_of(short, 1)
    for table in ("prompt", "candidate", "judgement", "mining", "pair"):
        assert query(branched, f"SELECT count(*) FROM {table} WHERE run_id = 2") == [(0,)]


def test_a_branch_trains_an_adapter_of_its_own_and_leaves_the_others(short: Path, branched: Path) -> None:
    first, second = run_of(branched) / "M2", run_of(branched) / "branches/calmer/M2"
    assert sha256_of(first / WEIGHTS) == sha256_of(run_of(short) / "M2" / WEIGHTS)
    assert sha256_of(first / WEIGHTS) != sha256_of(second / WEIGHTS)
    assert query(
        branched, "SELECT adapter, made_in, status FROM policy WHERE run_id = 2 AND name = 'M2'"
    ) == [("branches/calmer/M2/adapter", 2, "promoted")]
    read = "SELECT pair_id FROM trained_on WHERE run_id = {} ORDER BY position"
    assert query(branched, read.format(1)) == query(branched, read.format(2)) != []
    ((parent, policy, recipe),) = query(
        branched, "SELECT parent_id, parent_policy, recipe FROM run WHERE id = 2"
    )
    assert (parent, policy, json.loads(recipe)["training"]["beta"]) == (1, "M1", 0.5)


def test_the_same_command_changes_nothing_and_another_recipe_is_refused(branched: Path) -> None:
    before = tables(branched)
    again = iterate(branched, "--from", "M1", "--branch", "calmer", "--to", "M2", *CALMER)
    assert again.returncode == 0 and tables(branched) == before
    other = iterate(branched, "--branch", "calmer", "--to", "M2")
    assert other.returncode == 3 and tables(branched) == before
    assert ["M2/train", "training.beta", "0.5", "0.1"] in [x.split() for x in other.stderr.splitlines()]
    assert "--branch calmer --restart-stage M2/train" in other.stderr


def test_what_a_branch_shares_is_frozen_on_both_sides(branched: Path) -> None:
    before = tables(branched)
    for arguments in ((), ("--branch", "calmer", *CALMER)):
        done = iterate(branched, "--to", "M2", "--restart-stage", "M1/candidates", *arguments)
        assert done.returncode == 3 and "frozen" in done.stderr and "--branch NEW" in done.stderr
    mixed = iterate(branched, "--to", "M2", "--set", "candidates.n=2")
    assert mixed.returncode == 3 and "--branch NEW" in mixed.stderr and "--restart-stage" not in mixed.stderr
    assert tables(branched) == before


def test_policies_of_a_branch_are_named_with_it(branched: Path) -> None:
    listed = command(branched, "pairs", "list", "--of", "calmer/M1", "--json")
    own = command(branched, "pairs", "list", "--of", "M1", "--json")
    assert listed.returncode == 0 and json.loads(listed.stdout.splitlines()[0]) == json.loads(
        own.stdout.splitlines()[0]
    )
    out = command(branched, "export", "calmer/M2", "--to", "out")
    assert out.returncode == 0, out.stderr
    weights = branched / "out" / "adapter_model.safetensors"
    assert sha256_of(weights) == sha256_of(run_of(branched) / "branches/calmer/M2" / WEIGHTS)
    missing = command(branched, "pairs", "list", "--of", "bolder/M1")
    assert missing.returncode == 3 and "there is no branch bolder: the run has calmer" in missing.stderr
    nobody = command(branched, "export", "calmer/M7", "--to", "out7")
    assert nobody.returncode == 3 and "no policy M7 in branch calmer" in nobody.stderr


def test_the_tree_draws_the_lineage(branched: Path) -> None:
    told = command(branched, "status", "--tree").stdout
    assert told.index("M1 promoted") < told.index("calmer branch") < told.index("its start")
    assert told.count("= candidates  as in t") == 1 and told.count("✓ candidates") == 1
    status = json.loads(command(branched, "status", "--branch", "calmer", "--json").stdout.splitlines()[0])
    (m2,) = [p for p in status["policies"] if p["name"] == "M2"]
    assert m2["run_id"] == 2 and "kl_previous" in m2["metrics"]
    (m1,) = [p for p in status["policies"] if p["name"] == "M1"]
    assert m1["iteration"]["candidates"] == [24, 0] and m1["metrics"]["kl_m0"]["n"] > 0
    assert status["branches"] == [{"name": "calmer", "of": "t", "policy": "M1", "made_by": "user"}]


def test_a_branch_killed_and_run_again_is_the_branch_as_if_nothing_had_happened(
    copy: Path, branched: Path
) -> None:
    """Killed after its first rows, and inside its training."""
    wanted = ("--from", "M1", "--branch", "calmer", "--to", "M2", *CALMER)
    for point in ("driver: committed * in branching.grow #1", TRAINING):
        assert iterate(copy, *wanted, SELFREWARD_FAULTS=killed_at(point)).returncode == -signal.SIGKILL
    done = iterate(copy, *wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables(copy) == tables(branched)


def test_a_branch_begins_where_its_recipe_would_make_something_else(copy: Path) -> None:
    """Without --from. Four candidates a prompt: the prompts are shared, the rest is the branch's."""
    wanted = ("--branch", "more", "--to", "M2", "--set", "candidates.n=4", "--pause-before", "train")
    done = iterate(copy, *wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    made_in = dict(query(copy, "SELECT name, made_in FROM stage WHERE run_id = 2 AND policy = 'M1'"))
    assert (made_in["prompts"], made_in["candidates"], made_in["pairs"]) == (1, 2, 2)
    counts = "SELECT count(*), count(DISTINCT prompt_id) FROM candidate WHERE run_id = 2"
    assert query(copy, counts) == [(32, 8)]
    assert query(copy, "SELECT count(*) FROM mining WHERE run_id = 2") == [(8,)]
    assert query(copy, "SELECT count(*) FROM pair_of WHERE in_run = 2 AND run_id <> 2") == [(0,)]
    assert query(copy, "SELECT parent_policy FROM run WHERE id = 2") == [("M1",)]
    assert command(copy, "verify").returncode == 0


def test_a_training_is_made_again_to_the_same_adapter_and_the_old_one_waits(copy: Path) -> None:
    before, weights = tables(copy), sha256_of(run_of(copy) / "M2" / WEIGHTS)
    killed = iterate(copy, "--to", "M2", "--restart-stage", "M2/train", SELFREWARD_FAULTS=killed_at(TRAINING))
    assert killed.returncode == -signal.SIGKILL
    assert query(copy, "SELECT count(*) FROM answer WHERE policy = 'M2'") == [(0,)]
    done = iterate(copy, "--to", "M2", "--restart-stage", "M2/train")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on with it" in done.stdout
    assert tables(copy) == before  # it had begun its training: nothing was taken out twice
    aside = run_of(copy) / "set-aside" / "t-M2-1"
    assert sha256_of(run_of(copy) / "M2" / WEIGHTS) == weights == sha256_of(aside / WEIGHTS)
    shown = command(copy, "gc")
    assert "set-aside/t-M2-1" in shown.stdout and aside.exists()
    removed = command(copy, "gc", "--yes")
    assert removed.returncode == 0 and not aside.exists() and tables(copy) == before
    assert [p.name.split("-")[0] for p in backups.backups(run_of(copy) / "selfreward.db")].count(
        "restart"
    ) == 1


def test_a_measure_made_again_takes_nothing_else_along(copy: Path) -> None:
    before = tables(copy)
    done = iterate(copy, "--to", "M2", "--restart-stage", "M2/probe", "--set", "probe.count=4")
    assert done.returncode == 3  # M0 and M1 were probed with six
    assert "M0/probe" in done.stderr and "--restart-stage M0/probe --restart-stage M1/probe" in done.stderr
    again = iterate(copy, "--to", "M2", "--restart-stage", "M2/probe")
    assert again.returncode == 0, again.stdout + again.stderr
    assert tables(copy) == before


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("--branch", "Calmer"), "cannot name a branch"),
        (("--branch", "b", "--from", "M3", "--to", "M4"), "M3 is no promoted policy of t to branch from"),
        (("--from", "other/M1", "--to", "M2"), "there is no branch other"),
        (("--restart-stage", "M1"), "write it as POLICY/STAGE"),
        (("--restart-stage", "M3/train"), "M3/train was never begun in t"),
    ],
)
def test_a_branch_or_stage_that_cannot_be_is_refused_in_one_line(
    branched: Path, arguments: tuple[str, ...], told: str
) -> None:
    before = tables(branched)
    done = iterate(branched, *arguments)
    assert done.returncode == 3 and told in done.stderr and len(done.stderr.splitlines()) == 1
    assert tables(branched) == before


def test_a_branch_is_removed_whole_and_nothing_it_shared(short: Path, branched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(branched, folder)
    shown = command(folder, "gc", "--branch", "calmer")
    assert shown.returncode == 0 and "trained_on" in shown.stdout and "add --yes" in shown.stdout
    assert query(folder, "SELECT count(*) FROM run") == [(2,)]
    with Lock(run_of(folder)):
        assert command(folder, "gc", "--branch", "calmer", "--yes").returncode == 3
    done = command(folder, "gc", "--branch", "calmer", "--yes")
    assert done.returncode == 0, done.stderr
    assert not (run_of(folder) / "branches" / "calmer").exists()
    assert tables(folder) == tables(short)
    assert command(folder, "verify").returncode == 0


# What breaks a promise, and the promise that must be said to be broken.
BREAKS = [
    ("UPDATE judgement SET score = 9 WHERE id = 1", "a score lies on its rubric's scale"),
    ("UPDATE judgement SET fault = 'no_score' WHERE id = 1", "a judgement is a score or a fault"),
    ("UPDATE judgement SET scorer = 'nobody' WHERE id = 1", "a judgement names a scorer"),
    ("DELETE FROM judgement WHERE candidate_id = (SELECT min(candidate_id) FROM judgement)",
     "every answered candidate of a judged iteration has a judgement"),
    ("UPDATE candidate SET text = 'the same' WHERE id IN (SELECT chosen_id FROM pair UNION"
     " SELECT rejected_id FROM pair)", "the two texts of a pair differ"),
    ("UPDATE pair SET chosen_score = rejected_score - 1", "a pair prefers the higher score"),
    ("UPDATE candidate SET finish = 'length' WHERE id = (SELECT chosen_id FROM pair)", "the chosen one was"),
    ("DELETE FROM judgement WHERE candidate_id = (SELECT rejected_id FROM pair)", "sides of a pair were"),
    ("DELETE FROM mining WHERE outcome <> 'pair'", "of a mined iteration has its mining"),
    ("UPDATE mining SET n_pairs = n_pairs + 1 WHERE outcome = 'pair'", "a mining row counts its pairs"),
    ("UPDATE prompt SET status = 'rejected', reason = 'x' WHERE id = (SELECT prompt_id FROM mining)",
     "only accepted prompts are mined"),
    ("UPDATE candidate SET sample = 7 WHERE sample = 1", "the samples of a prompt have no gap"),
    ("UPDATE candidate SET token_ids = NULL WHERE sample = 1", "a text has its token ids"),
    ("UPDATE candidate SET seed = seed + 1 WHERE sample = 1", "the seed of an answer follows"),
    ("DELETE FROM prompt WHERE slot = 0 AND policy = 'M1'", "the slots of an iteration have no gap"),
    ("UPDATE policy SET sha256 = (SELECT sha256 FROM policy WHERE name = 'M2' AND run_id = 1)"
     " WHERE run_id = 2 AND name = 'M2'", "two trainings leave two adapters"),
    ("UPDATE stage SET status = 'failed' WHERE name = 'probe' AND policy = 'M2'", "stages behind it"),
    ("DELETE FROM trained_on WHERE run_id = 2", "a trained policy tells what it was trained on"),
    ("INSERT INTO review SELECT run_id, chosen_id, rejected_id, 'drop', NULL, '2000-01-01' FROM pair",
     "no training read a pair that a person had dropped"),
    ("DELETE FROM metric WHERE name = 'kl_previous'", "has its distance from its parent"),
    ("UPDATE stage SET fingerprint = 'x' WHERE run_id = 1 AND name = 'judge'", "is the very stage"),
    ("UPDATE stage SET made_from = '{}' WHERE run_id = 1 AND name = 'judge'", "a fingerprint is the hash"),
    ("UPDATE metric SET n = 0", "a metric carries its n"),
    ("UPDATE prompt SET text = (SELECT item FROM answer LIMIT 1) WHERE id = (SELECT prompt_id FROM mining)",
     "no probe or evaluation prompt trains"),
    ("DELETE FROM candidate WHERE id = (SELECT chosen_id FROM pair)", "what a row names exists"),
    ("UPDATE policy SET status = 'rejected' WHERE run_id = 1 AND name = 'M1'", "grows from a promoted"),
    ("UPDATE policy SET status = 'trained' WHERE run_id = 2 AND name = 'M2'", "told as an event"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "promise"), BREAKS)
def test_what_breaks_a_promise_is_found(branched: Path, tmp_path: Path, sql: str, promise: str) -> None:
    path = tmp_path / "selfreward.db"
    with contextlib.closing(sqlite3.connect(run_of(branched) / "selfreward.db")) as source:
        whole = sqlite3.connect(path)
        source.backup(whole)
    for (trigger,) in whole.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        whole.execute(f"DROP TRIGGER {trigger}")
    assert [b for _, b in promises.broken(path) if b is not None] == []
    whole.execute("PRAGMA ignore_check_constraints=ON")
    whole.execute(sql)
    whole.commit()
    whole.close()
    assert any(promise in told for told, b in promises.broken(path) if b is not None)


def test_verify_reads_the_files_too(branched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(branched, folder)
    sound = command(folder, "verify", "--json")
    assert sound.returncode == 0 and json.loads(sound.stdout.splitlines()[0])["broken"] == []
    home = run_of(folder) / "branches" / "calmer" / "M2"
    weights = bytearray((home / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (home / WEIGHTS).write_bytes(weights)
    with (home / "training" / "rows.jsonl").open("a") as rows:
        rows.write("{}\n")
    (run_of(folder) / "M2" / "adapter" / "proof.json").unlink()
    (copy, *_) = backups.backups(run_of(folder) / "selfreward.db")
    copy.write_bytes(copy.read_bytes()[:5000])
    done = command(folder, "verify", "--json")
    told = {b["promise"]: b["n"] for b in json.loads(done.stdout.splitlines()[0])["broken"]}
    assert done.returncode == 5 and told == {
        "an adapter's weights have the hash its policy tells": 1,
        "a trained adapter brings its proof": 1,
        "a training's rows file has the hash its adapter tells": 1,
        "a backup can be put back": 1,
    }


def test_a_damaged_store_is_refused_with_the_backup_and_goes_on_from_it(
    branched: Path, tmp_path: Path
) -> None:
    """The header of the second page overwritten, as a bad disk would: page 2 is a table's root."""
    folder = tmp_path / "copy"
    shutil.copytree(branched, folder)
    path, before = run_of(folder) / "selfreward.db", tables(folder)
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    done = iterate(folder, "--to", "M2")
    assert done.returncode == 3 and "is damaged" in done.stderr and len(done.stderr.splitlines()) == 1
    command_told = done.stderr.split("`selfreward restore --run t ")[1].split("`")[0]
    back = command(folder, "restore", command_told)
    assert back.returncode == 0, back.stderr
    assert tables(folder) == before  # the backup was made as the branch's M2 was promoted
    assert (path.parent / "selfreward.db.replaced-1").read_bytes() == bytes(data)
    assert iterate(folder, "--branch", "calmer", "--to", "M2", *CALMER).returncode == 0
