"""What a terminal shows: side by side where it fits, plain where it is piped, keys where there are some."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from selfreward.show import console
from tests.gallery import DROPPED, FAULTY, HOSTILE, LONG, PAIRS, PLAIN, WIDE, build, reviews
from tests.test_cli import RAW

ROOT = Path(__file__).resolve().parent.parent
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "iterations/gallery").mkdir(parents=True)
    (tmp_path / "iterations/gallery.yaml").write_text("model: base\n")
    build(tmp_path / "iterations/gallery/selfreward.db")
    return tmp_path


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    return subprocess.run(
        [sys.executable, "-m", "selfreward.cli", *arguments], cwd=folder, capture_output=True, text=True,
        env=env | {"PYTHONPATH": str(ROOT)} | environment, timeout=60,
    )  # fmt: skip


class Terminal:
    """A command on a terminal of its own; `said` is all it wrote."""

    def __init__(self, folder: Path, *arguments: str, columns: int = 120, **environment: str) -> None:
        self._master, slave = pty.openpty()
        env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        env |= {"PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "LINES": "60", "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "selfreward.cli", *arguments], cwd=folder, env=env | environment,
            stdin=slave, stdout=slave, stderr=slave, close_fds=True, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.said, self._seen = "", 0

    def read(self, until: str | None = None, seconds: float = 30.0) -> None:
        """Reads on until it says this, or until it ends; what stands behind it is left for the next call."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (until is None or until not in self.said[self._seen :]):
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                self.said += os.read(self._master, 65536).decode("utf-8", "replace")
            except OSError:
                break
        if until is not None:
            assert until in self.said[self._seen :], f"{until!r} is not in {self.said[self._seen :]!r}"
            self._seen = self.said.index(until, self._seen) + len(until)

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Reads to the end; the exit code."""
        self.read()
        code = self.process.wait(30)
        os.close(self._master)
        return code


@pytest.fixture
def terminal(folder: Path) -> Iterator[Any]:
    """Opens commands on terminals, and ends what is left of them."""
    opened: list[Terminal] = []

    def start(*arguments: str, **options: Any) -> Terminal:
        opened.append(Terminal(folder, *arguments, **options))
        return opened[-1]

    yield start
    for one in opened:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def ids(said: subprocess.CompletedProcess[str]) -> list[int]:
    return [row["id"] for row in json.loads(said.stdout)]


@pytest.mark.parametrize(
    ("arguments", "slots"),
    [
        ("--review auto --sort -margin", [PLAIN, FAULTY, HOSTILE, WIDE, LONG]), ("--review drop", [DROPPED]),
        ("--fault no_score", [FAULTY]), ("--fault no_score --scorer length", []),
        ("--scorer judge --min-margin 2", [PLAIN]), ("--search DOG", [PLAIN]), ("--of M2", []),
    ],
)  # fmt: skip
def test_a_list_of_pairs_has_those_asked_for(folder: Path, arguments: str, slots: list[int]) -> None:
    said = command(folder, "pairs", "list", "--json", *arguments.split())
    assert ids(said) == [PAIRS[s] for s in slots]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("", 1),
        ("--search question", 1),
        ("--search one", 1),
        ("--search nope", 0),
        ("--fault no_score", 0),
        ("--scorer judge", 0),
    ],
)
def test_prompts_without_a_pair_are_filtered_too(folder: Path, arguments: str, found: int) -> None:
    said = command(folder, "pairs", "list", "--json", "--outcome", "tie", *arguments.split())
    assert len(ids(said)) == found


def test_a_piped_list_is_a_line_a_row_without_colour(folder: Path) -> None:
    lines = command(folder, "pairs", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["id", *(str(i) for i in PAIRS.values())]
    assert [line for line in lines if RAW.search(line)] == []


@pytest.mark.parametrize(("columns", "aside"), [(120, True), (80, False)])
def test_two_answers_stand_side_by_side_where_they_fit(terminal: Any, columns: int, aside: bool) -> None:
    shown = terminal("pairs", "show", str(PAIRS[PLAIN]), columns=columns)
    assert shown.end() == 0
    lines = ESCAPES.sub("", shown.said).splitlines()
    assert any("cat sat" in line and "dog sat" in line for line in lines) is aside
    assert max(cell_len(line.rstrip()) for line in lines) <= columns


def test_the_words_that_differ_are_underlined_also_without_colour(terminal: Any) -> None:
    for environment in ({}, {"NO_COLOR": "1"}):
        shown = terminal("pairs", "show", str(PAIRS[PLAIN]), **environment)
        assert shown.end() == 0
        marked = re.findall(r"\x1b\[([0-9;]*)m(cat|dog)\x1b\[0m", shown.said)
        assert [word for _, word in marked] == ["cat", "dog"]
        assert all("4" in codes.split(";") for codes, _ in marked)
        coloured = re.search(r"\x1b\[[0-9;]*3[0-7]m", shown.said)
        assert bool(coloured) is not bool(environment)


@pytest.mark.parametrize("view", ["pairs list", "pairs show {}", "status", "status --tree", "prompts list"])
def test_a_terminal_gets_no_control_of_a_models_making(terminal: Any, view: str) -> None:
    shown = terminal(*view.format(PAIRS[HOSTILE]).split())
    assert shown.end() == 0
    said = ESCAPES.sub("", shown.said.replace("\r\n", "\n"))
    assert RAW.findall(said) == [] and ("\\u202e" in said or "<script>" in said)
    assert "\x1b[31m" not in shown.said or "\\u001b[31m" in said


@pytest.mark.parametrize("columns", [80, 109, 110])
def test_no_number_of_a_list_of_pairs_is_broken(terminal: Any, columns: int) -> None:
    """A narrow terminal has the texts of a pair below each other, a line each; its scores stay whole."""
    shown = terminal("pairs", "list", "--search", "DOG", columns=columns)
    assert shown.end() == 0
    lines = [line.rstrip() for line in ESCAPES.sub("", shown.said).splitlines() if line.strip()]
    assert max(cell_len(line) for line in lines) <= columns
    (first,) = [line for line in lines if line.startswith(str(PAIRS[PLAIN]))]
    assert re.search(r" M1 +\d\.\d{3} +\d\.\d\d > \d\.\d\d ", first)
    assert len(lines) == (2 if columns >= 110 else 4)
    assert [line.split()[0] for line in lines[2:]] == ([] if columns >= 110 else ["+", "-"])


def test_a_terminal_too_narrow_for_a_list_breaks_texts_before_numbers(terminal: Any) -> None:
    shown = terminal("pairs", "list", "--search", "DOG", columns=58)
    assert shown.end() == 0
    assert re.search(rf"{PAIRS[PLAIN]} +M1 +\d\.\d{{3}} +\d\.\d\d > \d\.\d\d ", ESCAPES.sub("", shown.said))


@pytest.mark.parametrize(
    "listed", ["pairs list --of M2", "pairs list --outcome too_long", "prompts list --of M2"]
)
def test_an_empty_list_says_so_on_a_terminal_and_has_no_row_in_a_pipe(
    folder: Path, terminal: Any, listed: str
) -> None:
    shown = terminal(*listed.split())
    assert shown.end() == 0 and re.fullmatch(r"No (pair|prompt) fits\.\s*", ESCAPES.sub("", shown.said))
    (heading,) = command(folder, *listed.split()).stdout.splitlines()
    assert "id" in heading.split() and "of" in heading.split()


def test_wide_signs_take_two_cells_in_a_list(folder: Path, terminal: Any) -> None:
    shown = terminal("pairs", "list", "--search", "猫", columns=110)
    assert shown.end() == 0
    lines = [line.rstrip() for line in ESCAPES.sub("", shown.said).splitlines()]
    assert "猫" in shown.said and max(cell_len(line) for line in lines) <= 110
    assert cell_len(console.short("猫" * 50, 20).plain) <= 20


def test_reviews_are_given_by_keys(terminal: Any, folder: Path) -> None:
    """By margin: PLAIN is kept, FAULTY gets a note and is dropped, HOSTILE is passed, come back to, kept."""
    walk = terminal("pairs", "review", "--sort", "-margin")
    walk.read(f"pair {PAIRS[PLAIN]}")
    walk.read("q leave")
    walk.type("a")
    walk.read(f"pair {PAIRS[FAULTY]}")
    walk.read("q leave")
    walk.type("n")
    walk.read("note: ")
    walk.type("unread, adj\n")
    walk.read("note for the verdict: unread, adj")
    walk.type("d")
    walk.read(f"pair {PAIRS[HOSTILE]}")
    walk.read("q leave")
    walk.type("j")
    walk.read(f"pair {PAIRS[WIDE]}")
    walk.read("q leave")
    walk.type("k")
    walk.read(f"pair {PAIRS[HOSTILE]}")
    walk.read("q leave")
    walk.type("zaq")  # an unknown key is nothing
    assert walk.end() == 0 and "2 kept, 1 dropped" in walk.said and "selfreward report --html" in walk.said
    found = reviews(folder / "iterations/gallery/selfreward.db")
    assert {k: v for k, v in found.items() if k != PAIRS[DROPPED]} == {
        PAIRS[PLAIN]: ("keep", None), PAIRS[FAULTY]: ("drop", "unread, adj"), PAIRS[HOSTILE]: ("keep", None),
    }  # fmt: skip


@pytest.mark.parametrize("arguments", ["pairs review", "status --watch"])
def test_what_needs_a_terminal_says_so_elsewhere(folder: Path, arguments: str) -> None:
    said = command(folder, *arguments.split())
    assert (said.returncode, said.stdout) == (3, "")
    assert re.fullmatch(r"selfreward: .*terminal.*`selfreward .*\n", said.stderr)


def test_watching_follows_the_run_and_ends_with_ctrl_c(terminal: Any, folder: Path) -> None:
    from selfreward.store import Store

    watching = terminal("status", "--watch")
    watching.read("6 of 12")
    driver = Store(folder / "iterations/gallery/selfreward.db", write=True)
    driver.commit_block(driver.stages(1)["M1", "judge"], [], 3)
    driver.close()
    watching.read("9 of 12")
    watching.process.send_signal(signal.SIGINT)
    assert watching.end() == 0


def test_the_tree_tells_counts_speed_and_what_is_left(folder: Path) -> None:
    """6 of 12 and 60 tokens in 3 s: 2 a second, 20 tokens a second, 3 s left."""
    said = command(folder, "status", "--tree").stdout
    assert "judge  6 of 12, 2.0 a second, 60 tokens (20 a second), about 3 s left" in " ".join(
        said.split(" ")
    )
    assert "became 6 pairs, 1 tie" in said
    assert "10 s of work, 130 tokens generated, no GPU so far" in said
    assert "gate after probe: 1 signal, 1 warn" in said


def test_statistics_tell_how_far_people_agree(folder: Path) -> None:
    found = json.loads(command(folder, "pairs", "stats", "--json").stdout)["M1"]["reviews"]
    assert [(a["scorer"], a["kept"], a["dropped"], a["agrees"]["value"]) for a in found] == [
        ("judge", 0, 1, 0.0)
    ]
    said = command(folder, "pairs", "stats").stdout
    assert "0 kept, 1 dropped; judge agrees on 0%" in said
