"""A run in one file: its facts are the store's, nothing of a model runs or hides, nothing is fetched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from selfreward import records as r
from selfreward.evaluation.versus import Grade
from selfreward.report import refresh
from selfreward.report.facts import LONGEST, gather
from selfreward.report.results import categories_of, parts
from selfreward.report.text import card, fenced, markdown, plain
from selfreward.report.words import summary
from selfreward.store import Store
from tests.gallery import ATTACK, PAIRS, PLAIN, SHOWN, build
from tests.test_cli import RAW
from tests.test_store import policy

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "iterations/gallery"
    folder.mkdir(parents=True)
    (folder.parent / "gallery.yaml").write_text("model: base\n")
    return build(folder / "selfreward.db")


@pytest.fixture(scope="module")
def facts(path: Path) -> dict[str, Any]:
    return gather(path)


@pytest.fixture(scope="module")
def html(facts: dict[str, Any]) -> str:
    pytest.importorskip("matplotlib", reason="selfreward[report] is not installed")
    from selfreward.report.page import page

    return page(facts)


class Read(HTMLParser):
    """Elements with their attributes, the text outside of style, and what is still open at the end."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without an inside."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """An element ends: the one that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text."""
        if self.open[-1:] != ["style"]:
            self.text += data


def told(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfreward.cli", "report", *arguments], cwd=path.parent.parent.parent,
        capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(path.parent)},
    )  # fmt: skip


def test_the_numbers_are_those_of_the_store(facts: dict[str, Any]) -> None:
    """Margins 1, 2, 1, 0.5, 0.25, 1.5: mean 6.25/6.

    13 verdicts, one unread; the read ones sum to 6·3 + 6.25 + 6·3 = 42.25, between 3 and 5.
    """
    m1 = facts["policies"][1]
    assert m1["pairs"]["n"] == 6 and m1["pairs"]["margin"] == pytest.approx(6.25 / 6)
    (judged,) = m1["judgements"]
    assert (judged["scorer"], judged["n"], judged["faults"]) == ("judge", 13, 1)
    assert judged["mean"] == pytest.approx(42.25 / 12)
    (scores,) = facts["scores"]
    assert (scores["policy"], scores["low"], scores["high"]) == ("M1", 3.0, 5.0)
    assert sum(scores["counts"]) == 12 and scores["counts"][0] == 6 and scores["counts"][-1] == 1
    assert m1["outcomes"] == {"pair": 6, "tie": 1} and m1["candidates"]["n"] == 14
    assert facts["faults"] == [{"scorer": "judge", "fault": "no_score", "n": 1}]
    assert facts["cost"]["seconds"] == 10.0 and facts["cost"]["tokens"] == 130


def test_a_fault_is_in_no_mean_and_is_told(facts: dict[str, Any]) -> None:
    said = " ".join(summary(facts))
    assert "1 of 13 judgements could not be read" in said
    assert sum(sum(h["counts"]) for h in facts["scores"]) == 12


def test_examples_are_the_ends_of_the_margins_and_their_texts_are_cut(facts: dict[str, Any]) -> None:
    ends = facts["examples"]
    assert ends["of"] == "M1" and ends["largest"][0]["id"] == PAIRS[PLAIN]
    assert [e["margin"] for e in ends["largest"]] == [2.0, 1.5, 1.0]
    assert [e["margin"] for e in ends["smallest"]] == [0.25, 0.5, 1.0]
    assert len({e["id"] for e in ends["largest"] + ends["smallest"]}) == 6
    assert len(ends["smallest"][0]["chosen"]) < LONGEST + 60
    assert f"({1_000_000 - LONGEST:,} more characters)" in ends["smallest"][0]["chosen"]


def test_what_nobody_reviewed_and_nobody_compared_is_said_to_be_unknown(facts: dict[str, Any]) -> None:
    said = " ".join(summary(facts | {"reviews": []}))
    assert "Nobody has reviewed a pair" in said and "whether it got better is not known" in said
    assert "Nobody has reviewed" not in " ".join(summary(facts))  # the gallery has a review


def test_a_page_runs_nothing_and_reaches_for_nothing(html: str) -> None:
    read = Read(html)
    assert read.open == []
    kinds = {tag for tag, _ in read.elements}
    assert not kinds & {"script", "img", "link", "iframe", "object", "embed", "form", "a", "base", "image"}
    for _, attributes in read.elements:
        assert not [a for a in attributes if a.startswith("on")]
        for name, value in attributes.items():
            if name.endswith("href"):
                assert value is not None and value.startswith("#")
            elif not name.startswith("xmlns"):
                assert "http" not in (value or "") and "url(" not in re.sub(r"url\(#", "", value or "")
    (policy_of_content,) = (a["content"] for t, a in read.elements if "http-equiv" in a)
    assert policy_of_content == "default-src 'none'; style-src 'unsafe-inline'"


def test_a_hostile_text_is_shown_as_it_is_with_what_cannot_be_seen(html: str) -> None:
    assert RAW.findall(html.replace("👩\u200d👩\u200d👧", "")) == []  # joiners that shape a sign may stay
    read = Read(html)
    assert "<script>alert(1)</script>" in read.text and "{{ 7*7 }}" in read.text
    assert all(sign in read.text for sign in SHOWN)


def test_ids_of_a_page_are_one_of_a_kind(html: str) -> None:
    """Figures stand in one page: an id twice would give one figure's clipping to another."""
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_the_same_store_gives_the_same_bytes(path: Path, html: str) -> None:
    from selfreward.report.page import page

    assert page(gather(path)) == html


def test_the_longest_run_stays_under_a_megabyte(tmp_path: Path) -> None:
    """M0 to M63, 70 signals each with a hostile message, a suite of 40 parts."""
    pytest.importorskip("matplotlib", reason="selfreward[report] is not installed")
    from selfreward.report.page import LARGEST, page

    store = Store(tmp_path / "s.db", write=True)
    store.save(r.Run(id=1, name="long", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    for idx in range(64):
        store.save(policy(idx))
        key = {"run_id": 1, "policy": f"M{idx}"}
        level = {"n": 9, "value": idx + 0.123456789, "low": idx + 0.0, "high": idx + 1.0}
        store.add([r.Metric(**key, **level, stage="probe", name=f"signal_{i}") for i in range(70)])
        store.add([r.Metric(**key, **level, stage="evaluate", name=f"own/part {i} $x$") for i in range(40)])
        store.add([
            r.Alarm(**key, stage="probe", signal=f"signal_{i}", level="ok", value=1.0, threshold=2.0,
                    message=ATTACK) for i in range(70)
        ])  # fmt: skip
    store.close()
    made = page(gather(tmp_path / "s.db"))
    assert len(made.encode()) <= LARGEST and "signal_69" in made


def test_markdown_has_no_markup_of_a_models_making(facts: dict[str, Any]) -> None:
    text = markdown(facts)
    assert RAW.findall(text) == []
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", text)
    assert "alert(1)" in outside  # the decision about M2 is hostile
    assert not re.findall(r"(?<!\\)<", outside)


def test_what_is_markup_in_markdown_is_escaped_and_words_are_left_alone() -> None:
    assert plain("# a | b <i> [x](y) *s* cut_share _e_ $1$") == (
        r"\# a \| b \<i\> \[x\](y) \*s\* cut_share \_e\_ \$1\$"
    )
    assert plain("one\ntwo\x1b") == "one two\\\\u001b"  # which is read as a backslash, a u and the code
    assert fenced("a\n````\nb").startswith("`````text\n")


def test_a_model_card_says_what_was_made_of_what(facts: dict[str, Any]) -> None:
    text = card(facts, "M2", hub="org/base@abc", merged=False)
    front = text.split("---")[1]
    assert 'base_model: "org/base"' in front and "library_name: peft" in front
    assert "a" * 64 in text and RAW.findall(text) == [] and "rejected" in text
    assert "base_model" not in card(facts, "M2", hub=None, merged=True).split("---")[1]


def test_the_command_writes_the_forms_that_were_asked_for(path: Path, tmp_path: Path) -> None:
    printed = told(path, "--json")
    assert printed.returncode == 0 and RAW.findall(printed.stdout) == []
    assert json.loads(printed.stdout)["policies"][2]["status"] == "rejected"
    said = told(path, "--md", str(tmp_path / "r.md"))
    assert said.returncode == 0 and (tmp_path / "r.md").read_text() == markdown(gather(path))
    assert told(path).stdout == markdown(gather(path))
    nowhere = told(path, "--md", str(tmp_path / "none/r.md"))
    assert nowhere.returncode == 3 and len(nowhere.stderr.splitlines()) == 1


def test_without_matplotlib_one_line_says_what_to_do(path: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from selfreward import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "--html", str(tmp_path / "r.html")],
        cwd=path.parent.parent.parent, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 3 and not (tmp_path / "r.html").exists()
    assert re.fullmatch(r"selfreward: .*selfreward\[report\].*--md.*\n", done.stderr)


def test_a_report_beside_a_run_is_there_at_the_end_of_the_command(path: Path) -> None:
    said: list[str] = []
    with refresh.refreshed(path, said.append, True) as on_verdict:
        assert on_verdict is not None
        on_verdict("M1")
        on_verdict("M2")
    (made,) = path.parent.glob("report.*")
    assert len(said) == 1 and made.name in said[0] and "gallery" in made.read_text()
    made.unlink()


@pytest.mark.parametrize("broken", ["no store", "no place"])
def test_a_report_that_fails_is_a_line_and_the_run_goes_on(path: Path, tmp_path: Path, broken: str) -> None:
    said: list[str] = []
    database = tmp_path / "none.db" if broken == "no store" else path
    with refresh.refreshed(database, said.append, True) as on_verdict:
        assert on_verdict is not None
        if broken == "no place":
            on_verdict.to = tmp_path / "none/report.md"  # type: ignore[attr-defined]
        on_verdict("M1")
    assert len(said) == 1 and "the report was not written" in said[0]


def test_nothing_is_written_where_the_recipe_wants_no_report(path: Path) -> None:
    with refresh.refreshed(path, print, False) as on_verdict:
        assert on_verdict is None
    assert list(path.parent.glob("report.*")) == []


def test_pass_at_k_and_categories_are_those_of_the_stored_grades() -> None:
    """Two items with three samples, one answer unread.

    a: right, wrong, unread: pass@1 is 1/2 of 2 read, pass@2 and pass@3 with both of them 1. b: wrong three
    times: 0. So 1/4, 1/2 and 1/2. Categories: a's mean 1/2, b's 0; one item of no category is in none.
    """
    marks = {"a": [1.0, 0.0, None], "b": [0.0, 0.0, 0.0]}
    grades = [Grade(i, 1, s, 0, "rule", m) for i, of in marks.items() for s, m in enumerate(of)]
    found = dict(parts(grades, {"a": "math", "b": "writing"}))
    assert {n: round(i.value, 6) for n, i in found.items()} == {
        "pass@1": 0.25, "pass@2": 0.5, "pass@3": 0.5, "category math": 0.5, "category writing": 0.0
    }  # fmt: skip
    assert found["pass@1"].n == 2 and found["category math"].n == 1
    assert list(parts([Grade("a", 1, 0, 0, "M0", 7.5)], {})) == []  # one sample on a scale: neither
    assert [n for n, _ in parts([Grade("a", 1, s, 0, "M0", 7.5) for s in (0, 1)], {})] == []


def test_categories_come_from_the_files_a_run_asked_from(tmp_path: Path) -> None:
    kept, own = tmp_path / "run/suites/mt-bench.jsonl", tmp_path / "own.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"category": "writing", "turns": ["Write.", "Again."]}) + "\n")
    own.write_text(json.dumps({"category": "math", "prompt": "Add."}) + "\n")
    recipe = {"evaluate": {"suites": [{"suite": "own.jsonl", "data": "own.jsonl"}, {"suite": "aime24"}]}}
    assert categories_of(tmp_path / "run", recipe) == {"Write.": "writing", "Add.": "math"}
    kept.write_text("not JSON")
    assert categories_of(tmp_path / "run", {"evaluate": None}) == {}
