"""Saved answers and gradings: shapes, numbers by hand, every bad line named, and other tools' formats."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from selfreward import cli
from selfreward.evaluation import gradings, suites
from tests.test_cli import Said, command

__all__ = ["command"]
DATA = Path(os.environ.get("SELFREWARD_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
Command = Callable[..., Said]
AIME = ("evaluate", "--suite", "aime25", "--data", "data.jsonl", "--responses", "said.jsonl")
GRADED = ("evaluate", "--suite", "mt-bench", "--data", "question.jsonl", "--judgments", "judged.jsonl")


def write(name: str, rows: list[Any]) -> None:
    Path(name).write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))


def said(texts: dict[str, list[str | None]]) -> list[dict[str, Any]]:
    return [{"id": i, "sample": s, "response": t} for i, row in texts.items() for s, t in enumerate(row)]


@pytest.fixture
def aime(command: Command) -> Command:
    """Three problems, four samples each: 2 of 4 right and one "203 or 204"; 1 of 3 read; none right."""
    answers = {"a": 204, "b": 25, "c": 7}
    write("data.jsonl", [{"id": i, "problem": f"Find {i}.", "answer": x} for i, x in answers.items()])
    texts: dict[str, list[str | None]] = {
        "a": ["It is 3.", r"\boxed{204}", "203 or 204", "204"],
        "b": ["Who knows?", "26", "25", "26"],
        "c": ["8", "9", "8", "1"],
    }
    write("said.jsonl", said(texts))
    return command


def test_an_answer_suite_has_the_shape_and_the_numbers_worked_out_by_hand(aime: Command) -> None:
    """Avg (2/4 + 1/3 + 0) / 3 = 5/18. pass@2: (1 − 1/6) and (1 − C(2,2)/C(3,2)) and 0: (5/6 + 2/3) / 3 = 1/2.

    maj@2 by pairs: a: (3|204) ½, (-|204) ½; b: (-|26) 0, (25|26) ½; c: 0: (½ + ¼ + 0) / 3 = ¼.
    Attempts 2, 3 and 4.
    """
    found = json.loads(aime(*AIME, "--k", "1,2", "--json").out)
    assert list(found) == [
        "suite", "n_items", "n_samples", "avg", "pass_at_k", "maj_at_k", "mean_attempts", "faults", "items",
    ]  # fmt: skip
    assert found["items"] == {
        "a": [False, True, False, True], "b": [None, False, True, False], "c": [False] * 4,
    }  # fmt: skip
    assert (found["suite"], found["n_items"], found["n_samples"], found["faults"]) == ("aime25", 3, 4, 1)
    assert found["avg"]["value"] == pytest.approx(5 / 18)
    assert found["avg"] == found["pass_at_k"]["1"] and set(found["avg"]) == {"value", "low", "high"}
    assert found["pass_at_k"]["2"]["value"] == pytest.approx(1 / 2)
    assert found["maj_at_k"]["2"]["value"] == pytest.approx(1 / 4)
    assert found["mean_attempts"]["value"] == 3.0
    for number in (found["avg"], found["pass_at_k"]["2"], found["maj_at_k"]["2"]):
        assert 0 <= number["low"] < number["value"] < number["high"] <= 1
    assert 1 <= found["mean_attempts"]["low"] < 3 < found["mean_attempts"]["high"] <= 4


def test_a_fault_takes_no_item_out_of_pass_at_k(aime: Command) -> None:
    """Pass@4: a and b have a right one among the 4 and the 3 that were read, c has none: 2/3."""
    assert json.loads(aime(*AIME, "--k", "4", "--json").out)["pass_at_k"]["4"]["value"] == pytest.approx(
        2 / 3
    )


def test_the_table_tells_the_same_and_counts_faults_apart_from_wrong_answers(aime: Command) -> None:
    table = aime(*AIME, "--k", "1,2").out
    for told in ("27.8 %", "50.0 %", "25.0 %", "3.00", "faults (in no mean): 1 (1 no_answer)", "stated: 1"):
        assert told in table, told


def test_the_first_questions_are_those_of_the_file_and_answers_to_others_are_left_alone(
    aime: Command,
) -> None:
    found = json.loads(aime(*AIME, "--first", "1", "--json").out)
    assert found["items"] == {"a": [False, True, False, True]} and found["avg"]["value"] == 0.5


def test_a_missing_or_failed_answer_is_a_fault_and_no_wrong_answer(aime: Command) -> None:
    write("said.jsonl", said({"a": ["204", None], "b": ["25"]}))
    told = aime(*AIME, "--json")
    found = json.loads(told.out)
    assert found["items"] == {"a": [True, None], "b": [True, None], "c": [None, None]}
    assert found["avg"]["value"] == 1.0 and found["faults"] == 4
    assert "lacks 3 of 6 answers" in told.err


def test_nothing_read_is_no_number(aime: Command) -> None:
    write("said.jsonl", said({"a": ["?"], "b": ["?"], "c": ["?"]}))
    found, nothing = json.loads(aime(*AIME, "--json").out), {"value": None, "low": None, "high": None}
    numbers = (found["avg"], found["pass_at_k"]["1"], found["maj_at_k"]["1"], found["mean_attempts"])
    assert numbers == (nothing,) * 4 and found["faults"] == 3 and "-" in aime(*AIME).out


def test_a_cut_off_answer_is_a_fault(aime: Command) -> None:
    write(
        "said.jsonl",
        [{"id": "a", "sample": 0, "response": "so 204", "finish": "length"}, *said({"b": ["25"]})],
    )
    assert json.loads(aime(*AIME, "--json").out)["items"]["a"] == [None]


def test_a_set_that_differs_from_the_known_one_is_told(aime: Command) -> None:
    assert "data.jsonl holds 3 questions, aime25 has 30" in aime(*AIME, "--json").err
    write("data.jsonl", [{"id": i, "problem": f"{i}?", "answer": i} for i in range(30)])
    write("said.jsonl", said({"1": ["1"]}))
    assert "holds" not in aime(*AIME).err  # aime25 was not at hand: its count alone is known
    assert "other text or answers" in aime(*[a.replace("aime25", "aime24") for a in AIME]).err


def test_gsm8k_takes_its_published_fields_and_counts_lines_as_ids(command: Command) -> None:
    rows = [
        ("9 eggs at $2.\n#### 18", "#### 18.00"),
        ("Loss.\n#### -1,000", "He lost; -$1,000"),
        ("#### 3", "4"),
    ]
    write("data.jsonl", [{"question": "?", "answer": a} for a, _ in rows])
    write("said.jsonl", [{"id": n, "sample": 0, "response": r} for n, (_, r) in enumerate(rows)])
    found = json.loads(command(*[a.replace("aime25", "gsm8k") for a in AIME], "--json").out)
    assert found["items"] == {"0": [True], "1": [True], "2": [False]}
    assert found["mean_attempts"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_a_file_of_ones_own_is_a_suite_with_numbers_and_words(command: Command) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of France?"}]
    items = [
        {"id": "x", "prompt": "0.1 + 0.2?", "answer": 0.3},
        {"id": "y", "messages": chat, "answer": "Paris"},
    ]
    write("mine.jsonl", items)
    write("said.jsonl", said({"x": ["It is 0.30.", "0.31"], "y": ["**Paris**.", "Rome"]}))
    found = json.loads(
        command("evaluate", "--suite", "mine.jsonl", "--responses", "said.jsonl", "--json").out
    )
    assert found["suite"] == "mine.jsonl" and found["items"] == {"x": [True, False], "y": [True, False]}


ITEM, SAID = {"id": "a", "problem": "?", "answer": 1}, {"id": "a", "sample": 0, "response": "1"}


@pytest.mark.parametrize(
    ("file", "rows", "told"),
    [
        ("data", [ITEM, "{"], "data.jsonl, line 2: not JSON"), ("data", ["[]"], "line 1: a JSON object"),
        ("data", [ITEM, ITEM], "line 2: the id 'a'"),
        ("data", [{"id": "a", "answer": 1}], "line 1: 'problem'"),
        ("data", [ITEM | {"answer": 1000}], "line 1: 'answer' should be an integer from 0 to 999"),
        ("data", [ITEM | {"answer": "1 or 2"}], "line 1: 'answer'"),
        ("data", [ITEM | {"answer": True}], "'answer'"),
        ("data", [ITEM | {"id": 1.5}], "line 1: 'id'"), ("data", [], "data.jsonl is empty"),
        ("said", [SAID, SAID], "said.jsonl, line 2: sample 0 of 'a' stands in line 1 already"),
        ("said", [SAID | {"id": "zz"}], "line 1: the data has no item 'zz'"),
        ("said", [{"id": "a", "sample": 0}], "line 1: 'response' is missing"),
        ("said", [SAID | {"response": 204}], "line 1: 'response' should be text"),
        ("said", [SAID | {"sample": -1}], "line 1: 'sample'"),
        ("said", [SAID | {"sample": 7}], "line 1: 'sample'"),
        ("said", [SAID | {"sample": "0"}], "line 1: 'sample'"),
        ("said", [SAID | {"finish": "eos"}], "'finish'"),
        ("said", [SAID, "", "nonsense"], "said.jsonl, line 3: not JSON"), ("said", [], "said.jsonl is empty"),
    ],
)  # fmt: skip
def test_a_bad_line_is_one_line_with_file_and_number(
    aime: Command, file: str, rows: list[Any], told: str
) -> None:
    write("data.jsonl", [ITEM])
    write("said.jsonl", [SAID])
    write(f"{file}.jsonl", rows)
    assert aime(*AIME).refuses(told) and aime(*AIME, "--json").refuses(told)


def test_what_cannot_be_graded_without_a_model_or_a_file_says_so(aime: Command) -> None:
    write("mine.jsonl", [{"prompt": "Write a poem.", "rubric": "It rhymes."}])
    assert aime("evaluate", "--suite", "mine.jsonl", "--responses", "said.jsonl").refuses("line 1", "rubric")
    assert aime("evaluate", "--suite", "aime99", "--responses", "said.jsonl").refuses("'aime99'", "aime24")
    assert aime(*AIME, "--k", "5").refuses("pass@5 needs 5 answers", "of one is 4")
    assert aime(*AIME[:-1], "nope.jsonl").refuses("nope.jsonl cannot be read")


@pytest.mark.parametrize(
    "arguments",
    ["--suite aime24 --responses said.jsonl", "--suite mt-bench --data data.jsonl",
     "--suite gsm8k --data data.jsonl",
     "--suite mt-bench --data d --judgments j --first 3",
     "--suite aime25 --data data.jsonl --judgments said.jsonl",
     "--suite aime25 --data data.jsonl --responses said.jsonl --k 0", "--suite aime25 --first 0", ""],
)  # fmt: skip
def test_options_that_do_not_go_together_are_a_usage_error(aime: Command, arguments: str) -> None:
    assert aime("evaluate", *arguments.split()).code == 2


def test_an_export_is_what_the_harness_logs_and_fastchat_reads(aime: Command) -> None:
    assert aime(*AIME, "--export", "out").code == 0
    samples = [json.loads(line) for line in Path("out/samples_aime25.jsonl").read_text().splitlines()]
    assert samples[1]["resps"] == [["Who knows?", "26", "25", "26"]]
    assert samples[1]["filtered_resps"] == [["", "26", "25", "26"]] and samples[1]["target"] == "25"
    assert [s["exact_match"] for s in samples] == pytest.approx([0.5, 1 / 3, 0.0])
    assert (
        samples[0]["arguments"] == {"gen_args_0": {"arg_0": "Find a.", "arg_1": {}}}
        and samples[2]["doc_id"] == 2
    )
    answers = [json.loads(line) for line in Path("out/model_answer/said.jsonl").read_text().splitlines()]
    assert (
        answers[0]["choices"][1] == {"index": 1, "turns": [r"\boxed{204}"]}
        and answers[0]["model_id"] == "said"
    )
    assert aime(*AIME, "--export", "said.jsonl/x").refuses("cannot be written")


QUESTIONS = [(1, "math"), (2, "math"), (3, "writing")]


@pytest.fixture
def graded(command: Command) -> Command:
    """Three questions; `a` has 2, -1 (a fault), 4 then 8 for the same turn, 6, 10, 10; `b` one grade."""
    write("question.jsonl", [{"question_id": q, "category": c, "turns": ["x", "y"]} for q, c in QUESTIONS])
    rows = [(1, 1, 2), (1, 2, -1), (2, 1, 4), (2, 2, 6), (2, 1, 8), (3, 1, 10), (3, 2, 10)]
    judged = [
        {"question_id": q, "model": "a", "judge": ["g", "v1"], "turn": t, "score": s, "judgment": "…"}
        for q, t, s in rows
    ]
    write("judged.jsonl", [*judged, {"question_id": 1, "model": "b", "turn": 1, "score": 8.5}])
    return command


def test_gradings_have_the_shape_and_the_means_worked_out_by_hand(graded: Command) -> None:
    """Of `a` count 2, 8, 6, 10, 10: 36 / 5; turn 1: 2, 8, 10; turn 2: 6, 10; math: 2, 8, 6."""
    said = graded(*GRADED, "--json")
    found = json.loads(said.out)
    assert list(found) == ["a", "b"]
    assert list(found["a"]) == ["overall", "turn_1", "turn_2", "categories", "n", "faults", "duplicates"]
    means = [found["a"][k]["value"] for k in ("overall", "turn_1", "turn_2")]
    assert means == pytest.approx([7.2, 20 / 3, 8.0])
    by_category = {c: v["value"] for c, v in found["a"]["categories"].items()}
    assert by_category == {"math": pytest.approx(16 / 3), "writing": 10.0}
    assert [found["a"][k] for k in ("n", "faults", "duplicates")] == [5, 1, 1]
    assert found["b"]["overall"]["value"] == 8.5 and found["b"]["turn_2"]["value"] is None
    for number in (found["a"]["overall"], found["a"]["categories"]["writing"], found["b"]["overall"]):
        assert 1 <= number["low"] <= number["value"] <= number["high"] <= 10
        assert number["high"] - number["low"] > 0.1
    assert "holds 3 questions, mt-bench has 80" in said.err and "lacks 5 of the 6 gradings of b" in said.err


def test_the_last_grading_counts_also_when_it_could_not_be_read(graded: Command) -> None:
    row = {"question_id": 1, "model": "a", "turn": 1}
    write("judged.jsonl", [row | {"score": 9}, row | {"turn": 2, "score": 3}, row | {"score": -1}])
    found = json.loads(graded(*GRADED, "--json").out)["a"]
    assert (found["overall"]["value"], found["n"], found["faults"], found["duplicates"]) == (3.0, 1, 1, 1)


def test_an_export_of_gradings_is_fastchats_file_without_the_replaced_ones(graded: Command) -> None:
    graded(*GRADED, "--export", "out")
    rows = [json.loads(line) for line in Path("out/model_judgment/g_single.jsonl").read_text().splitlines()]
    assert [(r["question_id"], r["turn"], r["score"]) for r in rows if r["model"] == "a"] == [
        (1, 1, 2), (1, 2, -1), (2, 2, 6), (2, 1, 8), (3, 1, 10), (3, 2, 10),
    ]  # fmt: skip
    assert rows[0]["judgment"] == "…" and "7.20" in graded(*GRADED).out


GRADE = {"question_id": 1, "model": "a", "judge": ["g", "v"], "turn": 1, "score": 5}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question_id": 9}, "no question_id 9"), ({"turn": 3}, "'turn'"), ({"turn": True}, "'turn'"),
        ({"score": 11}, "'score'"), ({"score": 0}, "'score'"), ({"score": "8"}, "'score'"),
        ({"score": float("nan")}, "'score'"), ({"model": None}, "'model'"),
        ({"judge": ["h", "v"]}, "graded by 'h'"),
        ({"judge": 5}, "'judge'"),
    ],
)  # fmt: skip
def test_a_bad_grading_is_one_line_with_file_and_number(
    graded: Command, row: dict[str, Any], told: str
) -> None:
    write("judged.jsonl", [GRADE, GRADE | {"turn": 2}, GRADE | row])
    assert graded(*GRADED, "--json").refuses("judged.jsonl, line 3", told)


@pytest.mark.skipif(
    not DATA.is_dir(), reason=f"{DATA} is absent: set SELFREWARD_TEST_DATA to the data folder"
)
def test_published_gradings_have_the_means_of_an_independent_computation(command: Command) -> None:
    bench = DATA / "mt_bench"
    category = {
        q["question_id"]: q["category"]
        for q in map(json.loads, (bench / "question.jsonl").read_text(encoding="utf-8").splitlines())
    }
    sums: dict[tuple[str, str], list[float]] = defaultdict(list)
    file = bench / "judgments.mixtral.gpt-4_single.jsonl"
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        if row["score"] != -1:
            for column in ("overall", f"turn_{row['turn']}", category[row["question_id"]]):
                sums[row["model"], column].append(row["score"])
    said = command(
        "evaluate", "--suite", "mt-bench", "--data", bench / "question.jsonl", "--judgments", file, "--json"
    )
    found = json.loads(said.out)
    assert said.err == "" and {m for m, _ in sums} == set(found) and len(sums) == 2 * (3 + 8)
    for (model, column), scores in sums.items():
        of = found[model]
        cell = of[column] if column in of else of["categories"][column]
        assert abs(cell["value"] - sum(scores) / len(scores)) < 1e-9


@pytest.mark.skipif(
    not DATA.is_dir(), reason=f"{DATA} is absent: set SELFREWARD_TEST_DATA to the data folder"
)
def test_known_sets_are_known_and_written_solutions_right(command: Command) -> None:
    for name, file in (("aime24", DATA / "aime/aime24.jsonl"), ("gsm8k", DATA / "gsm8k/test.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        texts = [f"#### {r['answer']}" if name == "aime24" else r["answer"] for r in rows]
        write(
            "said.jsonl",
            [{"id": r.get("id", i), "response": t} for i, (r, t) in enumerate(zip(rows, texts, strict=True))],
        )
        done = command("evaluate", "--suite", name, "--data", file, "--responses", "said.jsonl", "--json")
        found = json.loads(done.out)
        assert (
            done.err == "" and found["avg"]["value"] == 1.0 and found["n_items"] == suites.KNOWN[name].count
        )


def test_ten_thousand_answers_are_graded_in_seconds(command: Command) -> None:
    """The promise is 5 s; measured in processor time, so that a busy machine does not fail it."""
    write("data.jsonl", [{"id": i, "question": "?", "answer": f"#### {i}"} for i in range(1250)])
    told = "First 12 eggs at $3.50 each, so 12 * 3.5 = 42.\nThen 7 more.\nThat is why the answer is {}."
    write("said.jsonl", said({str(i): [told.format(i + s) for s in range(8)] for i in range(1250)}))
    start = time.process_time()
    found = json.loads(command(*[a.replace("aime25", "gsm8k") for a in AIME], "--k", "1,8", "--json").out)
    assert time.process_time() - start < 5
    assert found["avg"]["value"] == pytest.approx(1 / 8) and found["pass_at_k"]["8"]["value"] == 1.0


def test_two_turns_of_a_question_are_no_two_draws() -> None:
    """Both turns graded alike: the interval is that of one turn, over ten questions."""
    one = [gradings.Grading("a", str(q), 1, 1.0 + q % 7, {}) for q in range(10)]
    both = [*one, *(gradings.Grading("a", str(q), 2, 1.0 + q % 7, {}) for q in range(10))]
    assert gradings.mean(both) == pytest.approx(gradings.mean(one))


def test_the_commands_in_the_page_are_ones_the_program_knows() -> None:
    page = (Path(__file__).parents[1] / "docs/evaluation.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    selfreward ((?:evaluate|compare) .+)$", page, re.MULTILINE)
    group: Any = typer.main.get_command(cli.app)
    for line in lines:
        name, *words = shlex.split(line)
        group.commands[name].make_context(name, words)
    assert len(lines) >= 4
