"""Suites asked of the policies of a run: nothing is asked twice, protocols and graders never mix.

The engine is a scripted one, except where stage `evaluate` runs for real: there it is the tiny policy's.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from selfreward import records as r
from selfreward.errors import Interrupted
from selfreward.files import sha256_of
from selfreward.protocols import Choice, Completion, Request
from selfreward.stages import work as works
from selfreward.store import Store
from tests.runner import iterate, query, write_recipe
from tests.test_cli import Said, command
from tests.test_merge import make_adapter
from tests.test_store import policy

__all__ = ["command"]
Command = Callable[..., Said]


class Scripted:
    """An engine whose reply is decided by chat, seed and adapter; it remembers what it was asked.

    `patience` is the number of calls after which it is interrupted.
    """

    asked: ClassVar[list[Request]] = []
    patience: ClassVar[int | None] = None
    invariant, at_once = True, 1

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def _called(self) -> None:
        if Scripted.patience is not None:
            Scripted.patience -= 1
            if Scripted.patience < 0:
                raise Interrupted("a signal")

    def generate(self, block: Sequence[Request]) -> list[Completion]:
        self._called()
        Scripted.asked += block
        return [Completion(f"I say {_drawn(q, q.seed, q.adapter) % 7}.", (1, 2, 3), "stop") for q in block]

    def choice_logprobs(self, block: Sequence[Choice]) -> list[list[float] | None]:
        self._called()
        weights = [[1 + _drawn(c, x, c.adapter) % 9 for x in c.choices] for c in block]
        return [[math.log(w / sum(row)) for w in row] for row in weights]

    def halve(self, times: int) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


def _drawn(asked: Any, *parts: object) -> int:
    text = json.dumps([[m["content"] for m in asked.messages], *map(str, parts)])
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`command` beside a run with M0 and M1, whose engine takes two questions at a time."""
    monkeypatch.setattr(works, "EngineClient", Scripted)
    Scripted.asked, Scripted.patience = [], None
    (tmp_path / "iterations/mine.yaml").write_text("model: base\nengine: {block: 2}\n")
    store = Store(tmp_path / "iterations/mine/selfreward.db", write=True)
    store.save(r.Run(id=1, name="mine", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    m1 = policy(1)
    weights = tmp_path / "iterations/mine/M1/adapter/adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    m1.adapter, m1.sha256 = "M1/adapter", sha256_of(weights)
    store.save(policy(0), m1)
    for name in ("M0", "M1"):
        store.save(
            r.Stage(
                run_id=1,
                policy=name,
                name="evaluate",
                made_in=1,
                made_from="{}",
                fingerprint="f",
                status="done",
            )
        )
    store.close()
    write(tmp_path / "sums.jsonl", [{"prompt": f"Say {i}.", "answer": i} for i in range(5)])
    turns = [{"question_id": i, "category": "ab"[i % 2], "turns": [f"Talk {i}.", "More."]} for i in range(5)]
    write(tmp_path / "talk.jsonl", turns)
    write(tmp_path / "plain.jsonl", [{"prompt": f"Tell {i}.", "category": "ab"[i % 2]} for i in range(5)])
    return command


def rows(sql: str) -> list[Any]:
    return sqlite3.connect("iterations/mine/selfreward.db").execute(sql).fetchall()


def stored() -> tuple[list[Any], list[Any]]:
    """Answers and grades, whole."""
    return rows("SELECT * FROM answer ORDER BY id"), rows("SELECT * FROM evaluation ORDER BY id")


def evaluate(run: Command, *arguments: str) -> Any:
    said = run("evaluate", *arguments, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


SUMS = ("M1", "--suite", "sums.jsonl", "--name", "mine")
BLOCKS = (4, 1, 4, 1) + (1,) * 10  # rows of each block of the talk by ones: turn 1, turn 2, grades
TALK = ("--suite", "talk.jsonl", "--grade-by", "expected")


def test_the_same_command_asks_nothing_again_and_more_samples_only_what_is_missing(run: Command) -> None:
    found = evaluate(run, *SUMS, "--samples", "2", "--k", "1,2", "--first", "3")
    assert (found["suite"], found["policy"], found["n_items"], found["n_samples"]) == ("mine", "M1", 3, 2)
    assert list(found["pass_at_k"]) == ["1", "2"] and list(found["items"]) == ["0", "1", "2"]
    before, asked = stored(), len(Scripted.asked)
    assert (asked, len(before[0]), len(before[1])) == (6, 6, 6)
    assert evaluate(run, *SUMS, "--samples", "2", "--k", "1,2", "--first", "3") == found
    assert len(Scripted.asked) == asked and stored() == before
    assert evaluate(run, *SUMS, "--samples", "3", "--k", "2")["n_items"] == 5
    answers, marks = stored()
    assert len(Scripted.asked) == 15 and answers[:6] == before[0] and len(marks) == 15
    assert len({q.seed for q in Scripted.asked}) == 15


def test_the_marks_are_those_of_the_same_answers_when_they_are_saved(run: Command) -> None:
    """One way to count, wherever an answer came from."""
    found = evaluate(run, *SUMS, "--k", "1,4")
    texts = rows("SELECT item, sample, text FROM answer ORDER BY id")
    said = [{"id": item.split()[1].strip("."), "sample": s, "response": text} for item, s, text in texts]
    write(Path("said.jsonl"), said)
    saved = json.loads(
        run("evaluate", "--suite", "sums.jsonl", "--responses", "said.jsonl", "--k", "1,4", "--json").out
    )
    assert {k: found[k] for k in saved if k != "suite"} == {k: v for k, v in saved.items() if k != "suite"}
    scores = rows("SELECT score FROM evaluation ORDER BY id")
    assert [bool(s) for (s,) in scores] == [m for marks in saved["items"].values() for m in marks]


def test_an_interrupted_evaluation_goes_on_to_the_same_rows_wherever_it_stopped(
    run: Command, tmp_path: Path
) -> None:
    by_ones = ("M1", *TALK, "--set", "engine.block=1")
    found = evaluate(run, *by_ones)
    whole = stored()
    assert len(whole[0]) == len(whole[1]) == 10
    for calls in range(len(BLOCKS)):
        for table in ("evaluation", "answer", "event", "metric"):
            with sqlite3.connect("iterations/mine/selfreward.db") as database:
                database.execute(f"DELETE FROM {table}")
        Scripted.patience = calls
        stopped = run("evaluate", *by_ones)
        kept = sum(len(part) for part in stored())
        assert (stopped.code, kept) == (130, sum(BLOCKS[:calls]))
        Scripted.patience = None
        assert evaluate(run, *by_ones) == found and stored() == whole


def test_every_first_turn_is_asked_before_any_second_and_the_second_follows_the_own_first(
    run: Command,
) -> None:
    found = evaluate(run, "M1", *TALK)
    turns = [len(q.messages) for q in Scripted.asked]
    assert turns == [1] * 5 + [3] * 5
    said = dict(rows("SELECT item, text FROM answer WHERE turn = 1"))
    for asked in Scripted.asked[5:]:
        first, own, second = [m["content"] for m in asked.messages]
        assert (own, second) == (said[first], "More.")
    assert (found["grader"], found["n"], set(found["categories"])) == ("M0/expected", 10, {"a", "b"})
    assert found["overall"]["low"] <= found["overall"]["value"] <= found["overall"]["high"]


def test_every_policy_draws_with_the_same_seeds(run: Command) -> None:
    for name in ("M0", "M1"):
        evaluate(run, name, *TALK)
    seeds = [
        rows(f"SELECT item, turn, seed FROM answer WHERE policy = '{p}' ORDER BY id") for p in ("M0", "M1")
    ]
    assert seeds[0] == seeds[1] and len({s for *_, s in seeds[0]}) == 10
    assert {q.adapter for q in Scripted.asked[:10]} == {None}
    assert {Path(str(q.adapter)).parts[-2:] for q in Scripted.asked[10:]} == {("M1", "adapter")}


def test_answers_of_two_protocols_never_mix(run: Command) -> None:
    evaluate(run, "M1", *TALK, "--max-new-tokens", "6")
    before = stored()
    refused = run("evaluate", "M1", *TALK, "--max-new-tokens", "7")
    assert refused.refuses("max_new_tokens was 6, is 7", "--name") and stored() == before
    write(Path("talk.jsonl"), [{"turns": ["Talk 0.", "Less."], "category": "a"}])
    assert run("evaluate", "M1", *TALK, "--max-new-tokens", "6").refuses("data was")
    assert evaluate(run, "M1", *TALK, "--max-new-tokens", "7", "--name", "short")["suite"] == "short"


def test_two_policies_are_compared_under_one_protocol_only(run: Command) -> None:
    evaluate(run, "M0", *SUMS[1:], "--samples", "4")
    evaluate(run, *SUMS, "--samples", "4")
    evaluate(run, "M0", *TALK, "--max-new-tokens", "6")
    evaluate(run, "M1", *TALK, "--max-new-tokens", "7")
    found = json.loads(run("compare", "M0", "M1", "--json").out)
    assert list(found["suites"]) == ["mine"] and found["suites"]["mine"]["difference"]["n"] == 5
    assert found["suites"]["mine"]["grader"] == "number" and found["suites"]["mine"]["self_graded"] == []
    assert "max_new_tokens" in found["not_compared"]["talk"]


def test_a_policy_that_graded_itself_is_called_so_and_graders_have_columns_of_their_own(run: Command) -> None:
    evaluate(run, "M1", *TALK)
    own = evaluate(run, "M1", *TALK, "--grader", "self")
    assert (own["grader"], own["self_graded"], own["n"]) == ("self:M1/expected", True, 10)
    assert rows("SELECT grader, count(*) FROM evaluation GROUP BY 1") == [
        ("M0/expected", 10),
        ("self:M1/expected", 10),
    ]
    assert rows("SELECT name FROM metric ORDER BY 1") == [
        ("talk/score (M0/expected)",),
        ("talk/score (self:M1/expected)",),
    ]
    assert "M1 (graded by itself)" in run("evaluate", "M1", *TALK, "--grader", "self").out
    assert evaluate(run, "M1", *TALK, "--grader", "M1")["self_graded"] is True
    evaluate(run, "M0", *TALK)
    told = run("compare", "M0", "M1")
    assert "M0/expected (M0 graded by itself)" in told.out
    assert "talk (self:M1/expected): M0 has no grades by it" in told.out
    assert (
        len({(q.seed, q.adapter) for q in Scripted.asked}) == len(Scripted.asked) == 20
    )  # answers were asked once


def test_head_to_head_shows_every_pair_of_answers_in_both_orders(run: Command) -> None:
    refused = run("evaluate", "M1", "--suite", "plain.jsonl")
    assert refused.refuses("--against") and Scripted.asked == []
    arguments = ("M1", "--suite", "plain.jsonl", "--against", "M0", "--grade-by", "expected")
    found = evaluate(run, *arguments)
    assert (found["policy"], found["against"], found["self_graded"]) == ("M1", "M0", True)
    assert found["win"] + found["tie"] + found["lose"] == found["n"] == 5 and found["faults"] == 0
    judged = rows("SELECT answer_id, against_id, position, score FROM evaluation ORDER BY 1, 3")
    ours = {i for (i,) in rows("SELECT id FROM answer WHERE policy = 'M1'")}
    assert {a for a, *_ in judged} <= ours and len(judged) == 2 * (5 - found["identical"]) > 0
    assert [p for _, _, p, _ in judged] == [1, 2] * (len(judged) // 2)
    before = stored()
    assert evaluate(run, *arguments) == found and stored() == before
    mirror = evaluate(run, "M0", *arguments[1:3], "--against", "M1", "--grade-by", "expected")
    assert (mirror["win"], mirror["lose"], mirror["tie"]) == (found["lose"], found["win"], found["tie"])
    assert mirror["win_rate"]["value"] == pytest.approx(1 - found["win_rate"]["value"])
    assert "win rate at equal lengths" in run("evaluate", *arguments).out


def test_questions_that_trained_the_policy_are_counted(run: Command, tmp_path: Path) -> None:
    store = Store(tmp_path / "iterations/mine/selfreward.db", write=True)
    of = {"run_id": 1, "policy": "M0", "messages": "[]", "source": "seed", "status": "accepted"}
    for slot, text in enumerate(("Say 3.", "Quite another thing to ask.")):
        store.add([r.Prompt(id=slot, slot=slot, text=text, **of)])
    store.close()
    assert "1 training prompt is a near-duplicate" in run("evaluate", *SUMS).err
    assert "near-duplicate" not in run("evaluate", "M0", *SUMS[1:]).err


def test_what_is_exported_is_what_other_tools_read(run: Command) -> None:
    evaluate(run, "M1", *TALK, "--export", "out")
    answers = [json.loads(line) for line in Path("out/model_answer/mine-M1.jsonl").read_text().splitlines()]
    assert [a["question_id"] for a in answers] == [0, 1, 2, 3, 4]
    assert [len(c["turns"]) for a in answers for c in a["choices"]] == [2] * 5
    graded = Path("out/model_judgment/M0_expected_single.jsonl").read_text().splitlines()
    assert {(json.loads(g)["question_id"], json.loads(g)["turn"]) for g in graded} == {
        (i, t) for i in range(5) for t in (1, 2)
    }
    write(
        Path("question.jsonl"),
        [{"question_id": i, "category": "ab"[i % 2], "turns": ["a", "b"]} for i in range(5)],
    )
    again = run("evaluate", "--suite", "mt-bench", "--data", "question.jsonl", "--judgments",
                "out/model_judgment/M0_expected_single.jsonl", "--json")  # fmt: skip
    found = evaluate(run, "M1", *TALK)
    assert json.loads(again.out)["mine-M1"]["overall"] == found["overall"]
    evaluate(run, *SUMS, "--samples", "2", "--export", "out")
    samples = [json.loads(line) for line in Path("out/samples_mine.jsonl").read_text().splitlines()]
    assert [len(s["resps"][0]) for s in samples] == [2] * 5 and samples[0]["target"] == "0"


def test_a_model_without_a_run_has_a_folder_of_its_own(run: Command, tmp_path: Path) -> None:
    found = evaluate(run, "--model", "iterations/base", "--suite", "sums.jsonl")
    assert (found["run"], found["policy"], found["n_items"]) == ("base", "M0", 5)
    assert (tmp_path / "evaluations/base/selfreward.db").exists() and stored() == ([], [])
    assert run("evaluate", "--model", "iterations/base", "--run", "mine", "--suite", "sums.jsonl").code == 2


def test_without_a_network_one_line_names_the_way_out(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run("evaluate", "M1", "--suite", "gsm8k").refuses("openai/gsm8k", "--data PATH")
    assert stored() == ([], [])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [("M9 --suite sums.jsonl --name x", "there is no policy M9"),
     ("M1 --suite nothing.jsonl", "no suite and no file"),
     ("M1 --suite sums.jsonl --name probe", "the name of other answers"),
     ("M1 --suite talk.jsonl --grader http://127.0.0.1:9/v1", "--grader-model"),
     ("M1 --suite talk.jsonl --grader M7", "M7 is no policy of this run"),
     ("M1 --suite talk.jsonl --against M1", "another policy"),
     ("M1 --suite sums.jsonl --k 1,8 --samples 4", "--samples 8")],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line(run: Command, arguments: str, told: str) -> None:
    assert run("evaluate", *arguments.split()).refuses(told)


def test_a_suite_of_the_recipe_is_asked_of_every_policy_within_its_budget(
    tiny_policy: Path, tmp_path: Path
) -> None:
    """With the real engine. 64 tokens at 8 an answer and 2 answers a question: 4 of 6 questions of each."""
    adapter = make_adapter(tiny_policy, tmp_path / "lora", std=0.5)
    (tmp_path / "iterations").mkdir()
    sums = [{"prompt": f"What is {i} + 1?", "answer": i + 1} for i in range(6)]
    write(tmp_path / "iterations/sums.jsonl", sums)
    suites = [{"suite": "sums.jsonl", "samples": 2, "max_new_tokens": 8, "role": "tax"}]
    write_recipe(
        tmp_path, tiny_policy, start={"sft": None, "adapter": str(adapter)},
        evaluate={"problems": None, "questions": None, "suites": suites, "budget": 64}, probe={"count": 2},
    )  # fmt: skip
    done = iterate(tmp_path, "--to", "M2", "--pause-before", "prompts")
    assert done.returncode == 0, done.stderr
    assert "sums is asked 4 of 6 questions" in done.stdout and "heavy modules: []" in done.stdout
    asked = "SELECT policy, count(*), count(DISTINCT item) FROM answer WHERE suite = 'sums' GROUP BY 1"
    assert query(tmp_path, asked) == [("M0", 8, 4), ("M1", 8, 4)]
    assert query(tmp_path, "SELECT DISTINCT grader FROM evaluation") == [("number",)]
