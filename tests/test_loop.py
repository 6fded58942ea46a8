"""The loop as a whole, on a tiny random policy: real engine, real trainer, real store, real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward import loop
from selfreward import rubric as rubrics
from selfreward.engines.transformers_engine import TransformersEngine
from selfreward.errors import BadInput
from selfreward.files import packaged, sha256_of
from selfreward.protocols import Answer, Question, Sampling, Scored
from selfreward.scorers.judge import JudgeScorer
from selfreward.stages import train
from selfreward.store import Lock
from tests.conftest import make_tiny_policy
from tests.runner import command, iterate, query, tables, write_recipe

SHORT = {"start": {"sft": None}, "evaluate": None}  # M1 is the base: one training to M2


@pytest.fixture(scope="module")
def whole(
    tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run from M0 to M3, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    write_recipe(folder, tiny_policy)
    return folder, iterate(folder, "--from", "M0", "--to", "M3")


@pytest.fixture(scope="module")
def short(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run from the base to M2."""
    folder = tmp_path_factory.mktemp("short")
    write_recipe(folder, tiny_policy, **SHORT, report=True)
    done = iterate(folder, "--to", "M2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"a report to read or to send: iterations/t/report\.(html|md)", done.stdout)) == 1
    return folder


def test_a_run_goes_from_m0_to_m3(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = whole
    assert done.returncode == 0, done.stdout + done.stderr
    assert query(folder, "SELECT name, status FROM policy ORDER BY idx") == [
        (f"M{i}", "promoted") for i in range(4)
    ]
    hashes = [h for (h,) in query(folder, "SELECT sha256 FROM policy WHERE idx > 0")]
    assert len(set(hashes)) == 3 and None not in hashes


def test_a_promotion_leaves_a_report_of_the_policy(short: Path) -> None:
    (report,) = (short / "iterations/t").glob("report.*")
    ((sha256,),) = query(short, "SELECT sha256 FROM policy WHERE name = 'M2'")
    told = report.read_text()
    assert sha256 in told and "M2 is the policy now" in told


def test_an_adapter_of_the_users_own_is_m1(short: Path, tiny_policy: Path, tmp_path: Path) -> None:
    given = short / "iterations" / "t" / "M2" / "adapter"
    write_recipe(tmp_path, tiny_policy, start={"sft": None, "adapter": str(given)}, evaluate=None)
    done = iterate(tmp_path, "--to", "M2", "--pause-before", "prompts")
    assert done.returncode == 0, done.stdout + done.stderr
    ((sha256, status),) = query(tmp_path, "SELECT sha256, status FROM policy WHERE name = 'M1'")
    assert (sha256, status) == (sha256_of(given / "adapter_model.safetensors"), "promoted")
    ((kl,),) = query(tmp_path, "SELECT value FROM metric WHERE policy = 'M1' AND name = 'kl_m0'")
    assert kl > 0  # the engine wore it


def test_the_driver_never_holds_a_tensor_library(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    assert "heavy modules: []" in whole[1].stdout


def test_nothing_disappears_without_a_reason(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder = whole[0]
    for policy in ("M1", "M2"):
        here = f"p.policy = '{policy}' AND p.status = 'accepted'"
        assert query(folder, f"SELECT count(*) FROM prompt p WHERE {here}") == [(8,)]
        assert query(
            folder, f"SELECT count(*) FROM prompt p JOIN mining m ON m.prompt_id = p.id WHERE {here}"
        ) == [(8,)]
        assert query(folder, f"SELECT count(*) FROM candidate WHERE policy = '{policy}'") == [(24,)]
        judged = (
            "SELECT count(DISTINCT candidate_id) FROM judgement j"
            f" JOIN candidate c ON c.id = j.candidate_id WHERE c.policy = '{policy}'"
        )
        assert query(folder, judged) == [(24,)]
    assert query(folder, "SELECT count(*) FROM prompt WHERE status = 'rejected' AND reason IS NULL") == [(0,)]


def test_what_trained_is_what_was_mined_and_is_written_down(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Rows the wrong way round, shifted or missing would show: ids in the rows file against the store."""
    folder = whole[0]
    for policy, parent in (("M2", "M1"), ("M3", "M2")):
        frozen = query(folder, f"SELECT pair_id FROM trained_on WHERE policy = '{policy}' ORDER BY position")
        mined = query(
            folder,
            "SELECT r.id FROM pair r JOIN prompt p ON p.id = r.prompt_id"
            f" WHERE p.policy = '{parent}' ORDER BY r.id",
        )
        assert frozen == mined and frozen
        rows = [
            json.loads(x)
            for x in (folder / f"iterations/t/{policy}/training/rows.jsonl").read_text().splitlines()
        ]
        stored = query(
            folder,
            f"""SELECT c.token_ids, x.token_ids FROM trained_on t
            JOIN pair r ON r.id = t.pair_id JOIN candidate c ON c.id = r.chosen_id
            JOIN candidate x ON x.id = r.rejected_id WHERE t.policy = '{policy}' ORDER BY t.position""",
        )
        for row, (chosen, rejected) in zip(rows, stored, strict=True):
            assert b"".join(i.to_bytes(4, "little") for i in row["chosen_ids"]) == chosen
            assert b"".join(i.to_bytes(4, "little") for i in row["rejected_ids"]) == rejected


def test_every_answer_is_drawn_with_a_seed_of_its_own(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """One seed for a prompt's candidates would make four copies of one answer."""
    ((seeds, n),) = query(whole[0], "SELECT count(DISTINCT seed), count(*) FROM candidate")
    assert seeds == n == 2 * 8 * 3  # iterations, prompts, candidates


def test_every_pair_prefers_the_higher_mean_of_what_its_judge_said(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """A swap condition was once never true: the verdict was ignored and the first candidate always won."""
    folder = whole[0]
    score = "(SELECT avg(score) FROM judgement j WHERE j.candidate_id = {})"
    wrong = f"SELECT id FROM pair WHERE {score.format('chosen_id')} <= {score.format('rejected_id')}"
    assert query(folder, wrong) == []
    best = f"""SELECT r.id FROM pair r JOIN candidate c ON c.prompt_id = r.prompt_id AND c.finish = 'stop'
        WHERE {score.format("c.id")} > r.chosen_score + 1e-9
        OR {score.format("c.id")} < r.rejected_score - 1e-9"""
    assert query(folder, best) == []
    firsts = query(
        folder, "SELECT count(*) FROM pair r JOIN candidate c ON c.id = r.chosen_id WHERE c.sample = 0"
    )
    assert firsts[0][0] < query(folder, "SELECT count(*) FROM pair")[0][0]


@pytest.mark.parametrize("policy", ["M1", "M2"])
def test_candidates_and_judgements_come_from_the_weights_of_their_policy(
    whole: tuple[Path, subprocess.CompletedProcess[str]], tiny_policy: Path, policy: str
) -> None:
    """What the store holds of an iteration is what its policy says, and not what its parent says."""
    folder = whole[0]
    rows = query(
        folder,
        "SELECT p.messages, c.token_ids, c.mean_logprob, c.text, c.finish, c.seed, j.score, p.reference"
        f" FROM candidate c JOIN prompt p ON p.id = c.prompt_id JOIN judgement j ON j.candidate_id = c.id"
        f" WHERE c.policy = '{policy}' AND c.fault IS NULL AND j.score IS NOT NULL ORDER BY c.id LIMIT 12",
    )
    assert len(rows) == 12
    engine = TransformersEngine(str(tiny_policy), dtype="float32", threads=1)
    rubric = rubrics.parse(packaged("rubrics/additive.md").read_text(encoding="utf-8"), "additive")
    away = {}
    parent = f"M{int(policy[1:]) - 1}"
    for name in (policy, parent):
        adapter = None if name == "M0" else str(folder / "iterations/t" / name / "adapter")
        ids = [array("i", row[1]).tolist() for row in rows]
        chats = [json.loads(row[0]) for row in rows]
        said = engine.token_logprobs(
            [Scored(engine.chat_ids([c])[0], i, adapter) for c, i in zip(chats, ids, strict=True)]
        )
        judge = JudgeScorer(engine, rubric, "expected", 1, Sampling(1, 1, 0, 8), adapter)
        questions = [
            Question(c, [Answer(r[3], r[4], r[5])], reference=r[7]) for c, r in zip(chats, rows, strict=True)
        ]
        scores = [verdicts[0][0].score for verdicts in judge.score(questions)]
        away[name] = (
            max(abs(sum(x) / len(x) - r[2]) for x, r in zip(said, rows, strict=True)),
            max(abs(score - r[6]) for score, r in zip(scores, rows, strict=True)),
        )
    assert max(away[policy]) < 1e-4 and min(away[parent]) > 1e-3


def test_each_policy_answers_with_its_own_weights(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Every generation once came from one fixed model.

    The same probe prompts and seeds must give other answers.
    """
    folder = whole[0]
    texts = {
        p: query(folder, f"SELECT text FROM answer WHERE suite = 'probe' AND policy = '{p}' ORDER BY item")
        for p in ("M0", "M1", "M2", "M3")
    }
    assert len({tuple(said) for said in texts.values()}) == 4
    for policy in ("M2", "M3"):
        (low,) = query(folder, f"SELECT low FROM metric WHERE name = 'kl_previous' AND policy = '{policy}'")[
            0
        ]
        assert low > 0
        gap, moved = (
            query(folder, f"SELECT value FROM metric WHERE name = '{n}' AND policy = '{policy}'")[0][0]
            for n in ("proof_gap", "moved")
        )
        assert moved > 5 * gap
    assert query(folder, "SELECT count(DISTINCT seed), count(*) FROM answer WHERE suite = 'probe'") == [
        (6, 24)
    ]


def test_no_held_out_prompt_is_among_the_prompts(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    assert query(whole[0], "SELECT p.id FROM prompt p JOIN answer a ON trim(a.item) = trim(p.text)") == []


def test_every_change_of_status_is_an_event(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder = whole[0]
    events = [
        json.loads(d) for (d,) in query(folder, "SELECT detail FROM event WHERE kind = 'stage' ORDER BY id")
    ]
    seen = [(e["policy"], e["stage"]) for e in events if e["status"] == "done"]
    expected = [(s.policy, s.stage) for s in loop.steps_to(3)]
    assert seen == expected
    changes = query(folder, "SELECT detail FROM event WHERE kind = 'policy' ORDER BY id")
    statuses = [json.loads(d)["status"] for (d,) in changes]
    assert statuses == ["promoted", *["training", "trained", "promoted"] * 3]


def test_running_again_changes_nothing(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    before = tables(whole[0])
    again = iterate(whole[0], "--from", "M1", "--to", "M3")
    assert again.returncode == 0 and "going on to M3" in again.stdout
    assert tables(whole[0]) == before


def test_an_adapter_in_place_without_its_row_is_adopted(
    tiny_policy: Path, tmp_path: Path, short: Path
) -> None:
    """A crash between rename and commit must not train again; a half-made folder must not be taken."""
    write_recipe(tmp_path, tiny_policy, **SHORT)
    at = {"at": ["driver: commit t/selfreward.db-wal in loop._finish #7"], "do": "kill"}
    killed = iterate(tmp_path, "--to", "M2", SELFREWARD_FAULTS=json.dumps(at))
    assert killed.returncode == -signal.SIGKILL
    weights = tmp_path / "iterations/t/M2/adapter/adapter_model.safetensors"
    made_at = weights.stat().st_mtime_ns
    assert iterate(tmp_path, "--to", "M2").returncode == 0
    assert weights.stat().st_mtime_ns == made_at
    assert tables(tmp_path) == tables(short)


def test_zero_pairs_stop_the_run_with_the_reason(tiny_policy: Path, tmp_path: Path) -> None:
    """An empty list once went on: an iteration that changes nothing is an error."""
    write_recipe(tmp_path, tiny_policy, **SHORT, pairs={"min_margin": 50})
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 5
    assert "M1 has no pairs" in done.stderr and "below_margin" in done.stderr and "min_margin" in done.stderr
    assert query(tmp_path, "SELECT name, status FROM policy") == [("M0", "promoted"), ("M1", "promoted")]
    assert query(tmp_path, "SELECT level FROM alarm WHERE stage = 'pairs'") == [("halt",)]
    word = iterate(tmp_path, "--accept", "M2", "--reason", "I want it")
    assert word.returncode == 3 and "nothing to go on with" in word.stderr


def test_a_training_that_moves_nothing_is_rejected_and_stays_rejected(
    tiny_policy: Path, tmp_path: Path
) -> None:
    write_recipe(tmp_path, tiny_policy, **SHORT, training={"lr": 1e-12})
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 5 and "nothing was learned" in done.stderr
    assert query(tmp_path, "SELECT status FROM policy WHERE name = 'M2'") == [("rejected",)]
    assert "M2 has halted" not in done.stdout and "t has halted" in done.stdout
    again = iterate(tmp_path, "--from", "M2", "--to", "M3")
    assert again.returncode == 5 and "Three ways on" in again.stderr
    for way in ("--from M1 --branch NEW", "--restart-stage M2/train", "--accept M2"):
        assert f"`selfreward iterate --run t {way}" in again.stderr
    _accepted_for_ever(tmp_path)


def _accepted_for_ever(folder: Path) -> None:
    """A person's word lets it pass; the halt, the reason and the decision stay, and once is enough."""
    word = ("--accept", "M2", "--reason", "only a test", "--to", "M2")
    for _ in range(2):
        done = iterate(folder, *word)
        assert done.returncode == 0, done.stdout + done.stderr
    assert query(folder, "SELECT status, decision FROM policy WHERE name = 'M2'") == [
        ("promoted", "accepted over a halt: only a test")
    ]
    ((told,),) = query(folder, "SELECT detail FROM event WHERE kind = 'accept'")
    assert json.loads(told)["reason"] == "only a test"
    assert {h["signal"] for h in json.loads(told)["halts"]} >= {"moved"}
    ((message,),) = query(folder, "SELECT message FROM alarm WHERE signal = 'moved' AND level = 'warn'")
    assert message.endswith("; accepted: only a test")
    assert "has stopped" not in command(folder, "status").stdout


def test_a_changed_recipe_is_refused_with_the_keys(short: Path) -> None:
    before = tables(short)
    done = iterate(short, "--to", "M2", "--set", "candidates.n=2", "--set", "training.beta=0.5")
    assert done.returncode == 3
    rows = [line.split() for line in done.stderr.splitlines()]
    assert ["M1/candidates", "candidates.n", "3", "2"] in rows
    assert ["M2/train", "training.beta", "0.1", "0.5"] in rows
    assert "put the keys back, `selfreward iterate --run t --branch NEW`, or" in done.stderr
    assert "--restart-stage M1/candidates`" in done.stderr  # the training goes with it
    assert tables(short) == before


def test_a_bad_line_is_told_before_any_work_and_the_mended_file_goes_on(
    tiny_policy: Path, tmp_path: Path
) -> None:
    write_recipe(tmp_path, tiny_policy, start={"sft": {"file": "mine.jsonl", "judge_file": None}})
    mine = tmp_path / "iterations" / "mine.jsonl"
    good = '{"prompt": "Name a colour.", "answer": "Blue."}\n'
    mine.write_text(good + '{"prompt": broken\n')
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 3 and "mine.jsonl, line 2" in done.stderr
    assert query(tmp_path, "SELECT count(*) FROM answer") == [(0,)]
    mine.write_text(good * 3)
    mended = iterate(tmp_path, "--to", "M2", "--pause-before", "M1/probe")
    assert mended.returncode == 0, mended.stdout + mended.stderr


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"start": {"sft": None, "adapter": "nowhere"}}, "start.adapter"),
        ({"start": {"sft": None}, "prompts": {"from": "empty.jsonl"}}, "empty.jsonl is empty"),
    ],
)
def test_files_of_later_stages_are_read_before_any_work(
    tiny_policy: Path, tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    write_recipe(tmp_path, tiny_policy, **changed)
    (tmp_path / "iterations" / "empty.jsonl").write_text("")
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 3 and told in done.stderr
    assert not list((tmp_path / "iterations/t/logs").glob("engine*"))


def test_a_stage_that_made_nothing_binds_nobody(tmp_path: Path) -> None:
    """Without a chat template the first request fails; naming one is then no change of what was made."""
    write_recipe(tmp_path, make_tiny_policy(tmp_path / "bare", template=None), **SHORT)
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 3 and "no chat template" in done.stderr
    plain = ("--set", "model.chat_template=plain")
    mended = iterate(tmp_path, "--to", "M2", "--pause-before", "prompts", *plain)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    changed = iterate(tmp_path, "--to", "M2")  # now M0 is probed with it: it binds
    assert changed.returncode == 3 and "model.chat_template" in changed.stderr


def test_a_second_iterate_on_the_same_store_is_refused(short: Path) -> None:
    with Lock(short / "iterations" / "t"):
        done = iterate(short, "--to", "M2")
    assert done.returncode == 3 and f"process {os.getpid()}" in done.stderr


def test_a_missing_start_policy_is_an_error_that_names_the_way(tiny_policy: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path, tiny_policy)
    done = iterate(tmp_path, "--from", "M1", "--to", "M2")
    assert done.returncode == 3 and "iterate --from M0" in done.stderr


def test_pausing_stops_before_the_stage_and_the_same_command_goes_on(
    tiny_policy: Path, tmp_path: Path
) -> None:
    write_recipe(tmp_path, tiny_policy, **SHORT)
    paused = iterate(tmp_path, "--to", "M2", "--pause-before", "candidates")
    assert paused.returncode == 0 and "paused before candidates of M1" in paused.stdout
    assert query(tmp_path, "SELECT count(*) FROM candidate") == [(0,)]
    prompts = query(tmp_path, "SELECT * FROM prompt ORDER BY id")
    assert iterate(tmp_path, "--to", "M2").returncode == 0
    assert query(tmp_path, "SELECT * FROM prompt ORDER BY id") == prompts
    assert query(tmp_path, "SELECT status FROM policy WHERE name = 'M2'") == [("promoted",)]


def test_unreadable_judgements_are_faults_and_never_pairs(tiny_policy: Path, tmp_path: Path) -> None:
    """A parse failure once became a score of -1 (or 0, or a tie) that then competed and lost."""
    write_recipe(
        tmp_path,
        tiny_policy,
        **SHORT,
        judge={"mode": "sampled", "samples": 2, "sampling": {"max_new_tokens": 24}},
    )
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 5 and "too_few_scores" in done.stderr
    kinds = dict(query(tmp_path, "SELECT fault, count(*) FROM judgement GROUP BY 1"))
    assert None not in kinds and sum(kinds.values()) == 2 * 24
    assert query(tmp_path, "SELECT count(*) FROM judgement WHERE score IS NOT NULL") == [(0,)]
    assert query(tmp_path, "SELECT count(*) FROM judgement WHERE raw IS NULL") == [(0,)]
    assert query(tmp_path, "SELECT DISTINCT outcome, n_pairs FROM mining") == [("too_few_scores", 0)]


def test_prompts_of_ones_own_are_taken_whole_and_held_out_ones_refused(
    tiny_policy: Path, tmp_path: Path
) -> None:
    """What trains must not evaluate: a probe prompt in the user's file is refused, with the reason."""
    write_recipe(tmp_path, tiny_policy, **SHORT, prompts={"from": "own.jsonl", "count": 4})
    probe = json.loads(packaged("probe.jsonl").read_text().splitlines()[0])["prompt"]
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello there."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Name a river."},
    ]
    lines = [
        "Plain words about bread?",
        json.dumps({"messages": chat, "reference": "Rhine"}),
        json.dumps({"prompt": probe}),
    ]
    (tmp_path / "iterations" / "own.jsonl").write_text("\n".join(lines) + "\n")
    assert iterate(tmp_path, "--to", "M2", "--pause-before", "candidates").returncode == 0
    rows = query(
        tmp_path, "SELECT text, source, status, reason, messages, reference FROM prompt ORDER BY slot"
    )
    assert [r[:4] for r in rows] == [
        ("Plain words about bread?", "user", "accepted", None),
        ("Name a river.", "user", "accepted", None),
        (probe, "user", "rejected", "near_held_out"),
    ]
    assert json.loads(rows[1][4]) == chat and rows[1][5] == "Rhine"


def test_a_disk_without_room_for_the_next_adapter_is_seen_before(
    tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = SimpleNamespace(base=tiny_policy, folder=tmp_path)
    spec = SimpleNamespace(lora_r=16)
    train._check_room(work, spec)
    monkeypatch.setattr(train.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(BadInput, match="MiB free; the next training needs about"):
        train._check_room(work, spec)


def test_an_illegal_move_is_never_made() -> None:
    assert "done" not in loop.STAGE_MOVES["pending"] and "promoted" not in loop.POLICY_MOVES["training"]
    assert loop.POLICY_MOVES["promoted"] == set() and "promoted" not in loop.POLICY_MOVES["rejected"]


@pytest.mark.slow
def test_the_real_policy_goes_round_once(real_policy: Path, tmp_path: Path) -> None:
    """SmolLM2-135M: its own prompts, answers, judgements and a training that moves it."""
    sizes = {
        "engine": {"block": 8, "threads": None},
        "start": {"sft": None},
        "prompts": {"count": 8, "requests": 6, "rounds": 2, "sampling": {"max_new_tokens": 64}},
        "candidates": {"n": 3, "sampling": {"max_new_tokens": 64}},
        "training": {"lr": 5e-5, "batch": 2, "micro_batch": 2, "save_steps": 2, "lora": {"r": 16}},
        "probe": {"count": 8, "max_new_tokens": 24},
        "evaluate": None,
    }
    write_recipe(tmp_path, real_policy, **sizes)
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert query(tmp_path, "SELECT status FROM policy WHERE name = 'M2'") == [("promoted",)]
    invented = query(
        tmp_path, "SELECT count(*) FROM prompt WHERE source = 'self-instruct' AND status = 'accepted'"
    )
    assert invented[0][0] >= 2
    assert query(tmp_path, "SELECT low > 0 FROM metric WHERE name = 'kl_previous' AND policy = 'M2'") == [
        (1,)
    ]
    faults = query(tmp_path, "SELECT avg(fault IS NOT NULL) FROM judgement")
    assert faults[0][0] < 0.05
