"""Resources that fail: a full disk, memory, children that hang or die, bytes that changed on the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from selfreward.engines.memory import ran_out
from tests.nursery import Ended, Nursery
from tests.runner import query
from tests.torture import COMMAND, SHORT, Damage, damage, prepare

FULL = (  # each later in a run than the one before
    "driver: commit t/selfreward.db-wal in loop._begin_policies #1",
    "driver: start selfreward.engines.child in *",
    "driver: commit t/selfreward.db-wal in candidates.run #1",
    "driver: write half training/rows.jsonl in *",
    "training *: write half checkpoint-1/complete.json in *",
    "training *: step told 2 in *",
    "driver: fsync adapter/adapter_model.safetensors in *",
    "driver: commit t/selfreward.db-wal in loop._finish *",
)


def last_line(ended: Ended) -> str:
    return ended.said.strip().splitlines()[-1]


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    nursery: Nursery, short_run: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    """One run that meets a full disk eight times, before and inside writes, each time a little later."""
    folder = prepare(tmp_path / "run", tiny_policy, **SHORT)
    for at in FULL:
        ended = nursery.run(folder, *COMMAND, faults={"at": [at], "do": "full"})
        assert ended.code == 3, f"{at}: {ended.said}"
        assert "Traceback" not in ended.said, f"{at}: {ended.said}"
        assert "run the same command again" in last_line(ended), at
        assert query(folder, "PRAGMA integrity_check") == [("ok",)]
        assert nursery.run(folder, "status").code == 0
    assert nursery.run(folder, *COMMAND).code == 0
    assert damage(folder, short_run) == Damage()


def events(folder: Path, kind: str) -> list[dict[str, str]]:
    rows = query(folder, f"SELECT detail FROM event WHERE kind = '{kind}' ORDER BY id")
    return [json.loads(detail) for (detail,) in rows]


@pytest.mark.parametrize(
    "at", ["engines.child 1: batch 6 in transformers_engine._generate #1", "training 2: step 2 in *"]
)
def test_a_child_that_hangs_is_noticed_and_started_again(
    nursery: Nursery, short_run: Path, tiny_policy: Path, tmp_path: Path, at: str
) -> None:
    folder = prepare(tmp_path / "run", tiny_policy, **SHORT, engine={"hung_after": 12})
    done = nursery.run(folder, *COMMAND, faults={"at": [at], "hold": 3600})
    assert done.code == 0, done.said
    assert "gave no sign of life for 12 s" in done.said and "started again" in done.said
    assert [e["stage"] for e in events(folder, "restart")] == ["train" if "training" in at else "candidates"]
    assert damage(folder, short_run) == Damage()


@pytest.mark.parametrize(
    ("at", "stage", "told"),
    [
        ("engines.child *: batch 6 in transformers_engine._generate #1", "candidates", "in generate"),
        ("training *: step 2 in *", "train", "after step 1"),
    ],
)
def test_three_failures_in_one_place_stop_the_run_with_the_reason(
    nursery: Nursery, short_run: Path, tiny_policy: Path, tmp_path: Path, at: str, stage: str, told: str
) -> None:
    """Every child dies there: two are started again, the third ends the run; nothing is lost by it."""
    folder = prepare(tmp_path / "run", tiny_policy, **SHORT)
    ended = nursery.run(folder, *COMMAND, faults={"at": [at], "do": "kill"})
    assert ended.code == 4 and told in last_line(ended), ended.said
    assert "code -9" in last_line(ended) and "3 times" in last_line(ended)
    assert [e["stage"] for e in events(folder, "restart")] == [stage, stage]
    assert nursery.run(folder, *COMMAND).code == 0
    assert damage(folder, short_run) == Damage()


def test_out_of_memory_halves_the_batch_for_the_rest_of_the_stage(
    nursery: Nursery, short_run: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    """Batches of 16 rows, blocks of 6, room for 4: 16 and 8 are too much, 4 is not.

    After a kill the next start knows it: no third event. Then there is room for 2, and the reference's passes
    of the training, two times two pairs, are too much too: one pair at once is not.
    """
    folder = prepare(
        tmp_path / "run", tiny_policy, **SHORT, training={"batch": 2, "micro_batch": 2, "save_steps": 1}
    )
    killed = {
        "above": 4,
        "at": ["driver: committed t/selfreward.db-wal in candidates.run #1"],
        "do": "kill all",
    }
    assert nursery.run(folder, *COMMAND, faults=killed).code == -9
    found = [e for e in events(folder, "memory") if e["stage"] == "candidates"]
    assert ["8 rows at once" in found[0]["reason"], "4 rows at once" in found[1]["reason"]] == [True, True]
    paused = nursery.run(folder, *COMMAND, "--pause-before", "judge", faults={"above": 4})
    assert paused.code == 0, paused.said
    assert [e["stage"] for e in events(folder, "memory")].count("candidates") == 2
    done = nursery.run(folder, *COMMAND, faults={"above": 2})
    assert done.code == 0, done.said
    assert [e["stage"] for e in events(folder, "memory")].count("train") == 1
    assert json.loads((folder / "iterations/t/M2/training/spec.json").read_text())["micro_batch"] == 1
    ids = "SELECT id, seed FROM candidate ORDER BY id"
    assert query(folder, ids) == query(short_run, ids)
    assert query(folder, "SELECT count(*) FROM judgement") == query(
        short_run, "SELECT count(*) FROM judgement"
    )


def test_memory_is_known_to_have_run_out_by_what_torch_says() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory.")) and ran_out(MemoryError())
    assert not ran_out(RuntimeError("shapes do not fit")) and not ran_out(ValueError("CUDA out of memory"))


def test_a_flipped_byte_in_an_adapter_is_noticed_before_it_is_worn(
    nursery: Nursery, short_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(short_run, folder)
    weights = folder / "iterations/t/M2/adapter/adapter_model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    ended = nursery.run(folder, "iterate", "--to", "M3")
    assert ended.code == 3, ended.said
    assert "the adapter of M2" in last_line(ended) and "put it back from a copy" in last_line(ended)
    assert query(folder, "SELECT count(*) FROM prompt WHERE policy = 'M2'") == [(0,)]
    weights.write_bytes(sound)
    assert nursery.run(folder, "iterate", "--to", "M3", "--pause-before", "M2/candidates").code == 0
