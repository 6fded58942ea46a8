"""The commands that need no model, by their entry point: what they print, write and end with."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from selfreward import cli
from selfreward import records as r
from selfreward.store import Store
from tests.labelled_replies import LABELLED
from tests.test_store import candidate, judgement, mined, policy, prompt


class Said(NamedTuple):
    """What a command ended with and printed."""

    code: int
    out: str
    err: str

    def refuses(self, *told: str) -> bool:
        """Code 3, nothing on standard output, and one line that tells this."""
        one_line = re.fullmatch(r"selfreward: .+\n", self.err) is not None
        return self.code == 3 and not self.out and one_line and all(t in self.err for t in told)


Command = Callable[..., Said]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The entry point, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["selfreward", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return call


def write(path: str, *rows: Any) -> str:
    Path(path).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["additive", "direct-10", "aspects", "checklist", "pairwise"])
def test_saved_replies_are_read_in_order_a_line_each(command: Command, name: str) -> None:
    mine = [(reply, label) for rubric, reply, label in LABELLED if rubric == name]
    file = write("replies.jsonl", *({"reply": reply} for reply, _ in mine))
    said = command("rubric", "test", name, "--replies", file)
    read = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == 0 and len(read) == len(mine) and all(r.keys() == {"score", "fault"} for r in read)
    for (_, label), row in zip(mine, read, strict=True):
        assert (row["score"] is None) == isinstance(label, str) == (row["fault"] is not None)
        assert isinstance(label, str) or row["score"] == pytest.approx(label)


def test_a_saved_reply_that_was_cut_off_says_so_itself(command: Command) -> None:
    file = write("replies.jsonl", {"reply": "Score: 4"}, {"reply": "Score: 4", "finish": "length"})
    said = command("rubric", "test", "additive", "--replies", file)
    assert [json.loads(line) for line in said.out.splitlines()] == [
        {"score": 4, "fault": None}, {"score": None, "fault": "cut_off"}
    ]  # fmt: skip


def test_a_rubric_of_the_users_own_is_shown_as_the_judge_would_read_it(command: Command) -> None:
    Path("mine.md").write_text(
        "---\nname: mine\nkind: direct\nlow: 0\nhigh: 3\n---\nQ {{request}} A {{answer}} R {{reference}}"
    )
    said = command("rubric", "test", "mine.md", "--request", "why?", "--answer", "\x1b[31m{{request}}")
    assert said.code == 0 and "[user]\nQ why? A \\u001b[31m{{request}} R none given\n" in said.out
    as_json = json.loads(command("rubric", "test", "mine.md", "--request", "why?", "--json").out)
    assert as_json[0]["role"] == "user" and as_json[0]["content"].startswith("Q why? A ")
    pairwise = command("rubric", "test", "rubrics/pairwise.md", "--answer", "one", "--other", "two").out
    assert "[ANSWER A]\none\n" in pairwise and "[ANSWER B]\ntwo\n" in pairwise


@pytest.mark.parametrize(
    ("line", "told"),
    [('{"reply": 4}', "line 2"), ("[1]", "line 2"), ("{", "line 2"), ('{"text": "x"}', "'reply'")],
)
def test_a_malformed_file_of_replies_is_named_with_its_line(command: Command, line: str, told: str) -> None:
    Path("r.jsonl").write_text('{"reply": "Score: 4"}\n' + line + "\n")
    assert command("rubric", "test", "additive", "--replies", "r.jsonl").refuses("r.jsonl", "line 2", told)


def test_a_rubric_that_is_not_there_is_answered_with_those_that_are(command: Command) -> None:
    assert command("rubric", "test", "addditive").refuses("addditive", "additive, aspects, checklist")
    assert command("rubric", "test", "additive", "--replies", "no.jsonl").refuses("no.jsonl")
    Path("bad.md").write_bytes(b"---\n\xff")
    assert command("rubric", "test", "bad.md").refuses("bad.md", "as text")


SOUND = {"prompt": "Name a river.", "chosen": "The Seine is a river in France.", "rejected": "Paris."}


def test_an_audit_prints_kinds_with_lines_and_ends_with_five(command: Command) -> None:
    """Of the four, the longer text is chosen in lines 1 and 4, neither in 2 and 3: (1 + ½ + ½ + 1) / 4."""
    same = SOUND | {"rejected": SOUND["chosen"]}
    tied = SOUND | {"chosen": "A tree.", "rejected": "Salmon.", "chosen_score": 3, "rejected_score": 3}
    rows = [SOUND | {"chosen_score": 2, "rejected_score": 5}, same, tied, SOUND | {"prompt": "Again?"}]
    Path("pairs.jsonl").write_text("\n" + "\n\n".join(map(json.dumps, rows)))
    said = command("pairs", "audit", "--file", "pairs.jsonl", "--json")
    assert said.code == 5 and json.loads(said.out) == {
        "n": 4,
        "problems": {"score_order": [2], "identical": [4], "tie": [6]},
        "length_only_accuracy": 0.75,
    }
    as_text = command("pairs", "audit", "--file", "pairs.jsonl")
    assert as_text.code == 5 and re.search(r"identical +1 +line 4\n", as_text.out)


def test_an_audit_of_sound_pairs_ends_with_nought(command: Command) -> None:
    file = write("pairs.jsonl", SOUND, SOUND | {"prompt": "Another?"})
    said = command("pairs", "audit", "--file", file, "--json")
    assert said.code == 0 and json.loads(said.out) == {"n": 2, "problems": {}, "length_only_accuracy": 1.0}


def test_an_audit_reads_what_pairs_export_writes(command: Command) -> None:
    chat = {k: [{"role": "user" if k == "prompt" else "assistant", "content": v}] for k, v in SOUND.items()}
    file = write("pairs.jsonl", chat, chat | {"rejected": chat["chosen"]})
    assert json.loads(command("pairs", "audit", "--file", file, "--json").out)["problems"] == {
        "identical": [2]
    }


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '"text"', '{"prompt": "p", "chosen": "c"}', '{"prompt": "p", "chosen": "c", "rejected": 4}',
     json.dumps(SOUND | {"chosen_score": "5"}), json.dumps(SOUND | {"rejected_score": True}),
     json.dumps(SOUND | {"chosen_score": float("nan")}), json.dumps(SOUND | {"prompt": [{"role": "user"}]})],
)  # fmt: skip
def test_a_malformed_line_of_pairs_is_named(command: Command, line: str) -> None:
    Path("pairs.jsonl").write_text(json.dumps(SOUND) + "\n" + line + "\n")
    assert command("pairs", "audit", "--file", "pairs.jsonl", "--json").refuses("pairs.jsonl", "line 2")


def test_an_audit_of_nothing_is_refused(command: Command) -> None:
    assert command("pairs", "audit", "--file", "no.jsonl").refuses("no.jsonl")
    Path("none.jsonl").touch()
    assert command("pairs", "audit", "--file", "none.jsonl").refuses("none.jsonl")


PROMPTS = [
    "Name a tall tree in Norway.",
    "Why is the sky blue?",
    "Name a tall tree in Sweden!",
    "Why is it blue?",
]


def test_kept_lines_come_back_as_they_came_and_dropped_ones_are_told(command: Command) -> None:
    """`name a tall tree in norway/sweden`: LCS 5 of 6 and 6, F1 5/6. `why is blue`: 3 of 5 and 4, F1 2/3."""
    Path("in.txt").write_bytes("\r\n".join(PROMPTS).encode() + b"\r\n\r\nOne more, without an end")
    said = command("prompts", "dedupe", "--in", "in.txt", "--out", "out.txt", "--threshold", "0.7", "--json")
    lines = Path("in.txt").read_bytes().splitlines(keepends=True)
    assert Path("out.txt").read_bytes() == b"".join([lines[0], lines[1], *lines[3:]])
    assert said.code == 0 and json.loads(said.out) == {
        "n": 5, "kept": 4, "threshold": 0.7, "dropped": [{"line": 3, "near": 1, "f1": pytest.approx(5 / 6)}]
    }  # fmt: skip
    lower = command("prompts", "dedupe", "--in", "in.txt", "--out", "out.txt", "--threshold", "0.6")
    assert "line 3 is too close to line 1 (0.83)\nline 4 is too close to line 2 (0.67)\n3 of 5" in lower.out


@pytest.mark.parametrize(("key", "name"), [("prompt", "in.jsonl"), ("text", "in.jsonl"), ("text", "in.txt")])
def test_jsonl_lines_keep_their_other_keys_and_their_form(command: Command, key: str, name: str) -> None:
    lines = [f'{{"id":{i},   "{key}": {json.dumps(p)}}}\n' for i, p in enumerate(PROMPTS)]
    Path(name).write_text("".join(lines))
    said = command("prompts", "dedupe", "--in", name, "--out", name, "--json")  # over itself
    assert [d["line"] for d in json.loads(said.out)["dropped"]] == [3]
    assert Path(name).read_text() == lines[0] + lines[1] + lines[3]


def test_a_text_that_begins_with_a_brace_is_a_text_among_texts(command: Command) -> None:
    Path("in.txt").write_text("Name a tree.\n{x} is what?\n")
    assert json.loads(command("prompts", "dedupe", "--in", "in.txt", "--out", "o", "--json").out)["kept"] == 2


def test_twins_in_other_scripts_are_dropped_where_that_is_asked_for(command: Command) -> None:
    Path("in.txt").write_text("Напиши стихотворение\nнапиши стихотворение!\n")
    arguments = ("prompts", "dedupe", "--in", "in.txt", "--out", "out.txt", "--json")
    assert json.loads(command(*arguments).out)["kept"] == 2
    assert json.loads(command(*arguments, "--all-scripts").out)["kept"] == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"prompt": "a b"}\nNo JSON\n', "in.jsonl, line 2"),
        (b'{"prompt": "a b"}\n{"question": "x"}\n', "in.jsonl, line 2"),
        (b'{"prompt": "a b"}\n{"prompt": 3}\n', "in.jsonl, line 2"),
        (b'{"prompt": "a b"}\n\xff\n', "in.jsonl, line 2"),
    ],
)
def test_a_malformed_prompt_is_named_and_nothing_is_left_behind(
    command: Command, content: bytes, told: str
) -> None:
    Path("in.jsonl").write_bytes(content)
    Path("out").mkdir()
    assert command("prompts", "dedupe", "--in", "in.jsonl", "--out", "out/o.jsonl").refuses(told)
    assert not list(Path("out").iterdir())


def test_what_cannot_be_read_or_written_is_said(command: Command) -> None:
    Path("in.txt").write_text("a\n")
    assert command("prompts", "dedupe", "--in", "no.txt", "--out", "o.txt").refuses("no.txt")
    assert command("prompts", "dedupe", "--in", "in.txt", "--out", "no/o.txt").refuses(
        "no/o.txt: there is no folder"
    )
    assert command("prompts", "dedupe", "--in", "in.txt", "--out", ".").refuses("is a folder")
    for threshold in ("0", "1.1", "nan", "-1"):
        said = command("prompts", "dedupe", "--in", "in.txt", "--out", "o.txt", "--threshold", threshold)
        assert said.code == 2


@pytest.fixture
def judged(command: Command, tmp_path: Path) -> Command:
    """`command` beside a run whose M1 judged three answers: 4, 3 and 1; the pair 4 over 3 is stored."""
    (tmp_path / "iterations/mine").mkdir(parents=True)
    (tmp_path / "iterations/mine.yaml").write_text("model: base\n")
    store = Store(tmp_path / "iterations/mine/selfreward.db", write=True)
    store.save(r.Run(id=1, name="mine", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    store.save(policy(0), policy(1))
    store.add([prompt(0), *(candidate(0, s, f"answer {s}") for s in range(3))])
    store.add([judgement(0, s, 0, score) for s, score in enumerate((4.0, 3.0, 1.0))])
    store.add([judgement(0, 2, 1, None), *mined(0)])
    store.close()
    return command


def test_rules_are_compared_on_what_is_stored_and_nothing_is_made(judged: Command) -> None:
    """Best against worst: 4 over 1, margin 3. All above a margin of 2: 4 over 1 and 3 over 1, mean 2.5."""
    before = Path("iterations/mine/selfreward.db").read_bytes()
    every = json.loads(judged("pairs", "list", "--dry-run", "--json").out)
    assert [row["rule"] for row in every] == [
        "best_vs_worst",
        "best_vs_random",
        "above_margin",
        "length_band",
        "anchored",
    ]
    assert (every[0]["n"], every[0]["margin_mean"], every[0]["stored_now"]) == (1, 3, 0)
    assert (every[2]["n"], every[2]["margin_mean"], every[2]["stored_now"]) == (3, 2, 1)
    wide = (
        "pairs",
        "list",
        "--rule",
        "above_margin",
        "--dry-run",
        "--set",
        "pairs.min_margin=2",
        "--of",
        "M1",
    )
    (row,) = json.loads(judged(*wide, "--json").out)
    assert (row["of"], row["n"], row["margin_mean"], row["outcomes"]) == ("M1", 2, 2.5, {"pair": 1})
    assert "above_margin" in judged(*wide).out
    assert Path("iterations/mine/selfreward.db").read_bytes() == before


def test_a_comparison_that_cannot_be_made_is_refused(judged: Command) -> None:
    assert judged("pairs", "list", "--dry-run", "--of", "M0").refuses("M0", "iterate")
    assert judged("pairs", "list", "--rule", "above_margin").code == 2
    assert judged("pairs", "list", "--dry-run", "--rule", "worst").code == 2
