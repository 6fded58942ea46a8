"""The code reward: programs nobody has read pass their tests or fail, harm nothing, and are then linted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.protocols import Answer, Question
from selfreward.scorers import code as codes
from selfreward.scorers import confined, lint, sandbox
from selfreward.scorers.code import CodeScorer, code_of, is_empty
from selfreward.scorers.sandbox import Outcome

universal = settings(deadline=None, derandomize=True, max_examples=200)
here = pytest.mark.skipif(not confined.available(), reason="code is run on Linux on x86-64 alone")
RIGHT, WRONG = "def f(x):\n    return x + 1", "def f(x):\n    return x"
TESTS = "assert f(1) == 2\nassert f(-1) == 0"


def run(code: str, tests: str = "pass", seconds: int = 1, memory_mib: int = 256) -> Outcome:
    return sandbox.run(code, tests, seconds=seconds, memory_mib=memory_mib)


@here
def test_tests_tell_right_code_from_wrong() -> None:
    assert run(RIGHT, TESTS).passed
    assert run(WRONG, TESTS) == Outcome(reason="AssertionError")
    assert run("def f(x)", TESTS) == Outcome(reason="SyntaxError")
    library = "import collections, dataclasses, itertools, json, math, random, re, threading, typing"
    assert run(library, "assert math.gcd(4, 6) == 2").passed


@here
@pytest.mark.parametrize(
    "code",
    ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise KeyboardInterrupt", "import os; os.abort()",
     "import os\nfor i in range(64):\n    try: os.write(i, b'passed\\n')\n    except OSError: pass"],
)  # fmt: skip
def test_code_that_ends_before_its_tests_has_not_passed_them(code: str) -> None:
    """Guards: `sys.exit(0)` read as success, and a verdict the candidate writes itself."""
    assert not run(code, "assert False").passed and run(code, "assert False").fault is None


@here
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "ended"),
        ("x = [0] * 10**9", "MemoryError"),
        ("open('{folder}/new', 'w')", "PermissionError"),
        ("open('{folder}/kept', 'a')", "PermissionError"),
        ("import os; os.remove('{folder}/kept')", "PermissionError"),
        ("import os; os.rename('{folder}/kept', '{folder}/gone')", "PermissionError"),
        ("import os; os.mkdir('{folder}/new')", "PermissionError"),
        ("import os; os.chmod('{folder}/kept', 0)", "PermissionError"),
        ("import socket; socket.create_connection(('127.0.0.1', {port}), 1)", "PermissionError"),
        ("import socket; socket.socketpair()", "PermissionError"),
        ("import os; os.fork()", "PermissionError"),
        ("import os; os.execv('/bin/true', ['true'])", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
        ("import resource; resource.prlimit({pid}, resource.RLIMIT_NOFILE, (9, 9))", "PermissionError"),
    ],
)  # fmt: skip
def test_code_that_breaks_a_limit_fails_and_nothing_is_changed(
    code: str, reason: str, tmp_path: Path
) -> None:
    """Time, memory, files, network, other processes: one limit after the other."""
    import socket

    (tmp_path / "kept").write_text("as it was")
    with socket.create_server(("127.0.0.1", 0)) as server:
        filled = code.format(folder=tmp_path, port=server.getsockname()[1], pid=os.getpid())
        found = run(filled)
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()
    assert found == Outcome(reason=reason)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"] and (tmp_path / "kept").read_text() == "as it was"


@here
def test_the_environment_of_the_driver_is_not_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert run("import os", "assert 'OPENAI_API_KEY' not in os.environ").passed


def test_a_child_that_never_began_is_a_fault_and_no_failed_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards: a broken sandbox that makes every candidate worth 0."""
    monkeypatch.setattr(sandbox, "CHILD", Path("/nowhere.py"))
    assert run(RIGHT, TESTS) == Outcome(fault="sandbox_failed")


@here
def test_the_clock_alone_decides_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that sleeps costs no CPU; a busy machine sleeps too."""
    monkeypatch.setattr(sandbox, "PATIENCE", 1)
    assert run("import time; time.sleep(30)") == Outcome(fault="timeout")


def test_the_filter_lets_through_only_what_is_listed() -> None:
    """Interprets the filter's rules for every system call, as the kernel does."""
    assert _verdict(41) == confined.DENY and _verdict(59) == confined.DENY  # socket, execve
    assert _verdict(0) == confined.ALLOW and _verdict(0, arch=0x40000003) == confined.KILL
    assert _verdict(257, (0, 0, os.O_RDONLY | os.O_CLOEXEC)) == confined.ALLOW
    assert _verdict(257, (0, 0, os.O_RDWR)) == confined.DENY and _verdict(2, (0, os.O_CREAT)) == confined.DENY
    assert _verdict(56, (17,)) == confined.DENY and _verdict(56, (0x3D0F00,)) == confined.ALLOW
    listed = {n for n in range(600) if _verdict(n) == confined.ALLOW}
    assert listed == {*confined.ALLOWED, 2, 257}  # the two of opening, for reading


def _verdict(number: int, arguments: tuple[int, ...] = (), arch: int = confined.ARCH) -> int:
    data = {0: number, 4: arch} | {16 + 8 * i: a for i, a in enumerate(arguments)}
    at, held = 0, 0
    rules = confined.rules()
    while True:
        code, yes, no, value = rules[at]
        at += 1
        if code == confined.RETURN:
            return value
        if code == confined.LOAD:
            held = data.get(value, 0)
        else:
            at += yes if (held == value if code == confined.SAME else held & value) else no


# the score


def question(*texts: str, tests: object = TESTS) -> Question:
    answers = [Answer(t, "stop", i) for i, t in enumerate(texts)]
    checks = {"tests": tests} if tests is not None else None
    return Question([{"role": "user", "content": "Write f."}], answers, None, checks)


def scorer(passing: Sequence[str], found: dict[str, list[str]] | None = None) -> CodeScorer:
    """Tests that pass for these codes, linters that find what is listed."""
    return CodeScorer(
        lambda code, tests: Outcome(passed=code.strip() in passing, reason="AssertionError"),
        lambda pieces: [(found or {}).get(p.strip(), []) for p in pieces],
    )


def test_findings_take_their_weight_off_what_passed() -> None:
    """A failed test: 0, however tidy. ½·2 info + 1·1 low = 2: 1/(1 + 2). One high: 1/6. None: 1."""
    told = {"a = 1": ["info", "low", "info"], "b = 2": ["high"], "d = 4": []}
    group = scorer(["a = 1", "b = 2", "c = 3"], told).score([question("d = 4", "a = 1", "b = 2", "c = 3")])
    assert [v[0].score for v in group[0]] == [0, pytest.approx(1 / 3), pytest.approx(1 / 6), 1]
    assert group[0][1][0].detail == {"tests": "passed", "info": 2, "low": 1}


@pytest.mark.parametrize(
    "empty", ["", "\n", "# nothing", '"""Only words."""', "pass", "```python\n...\n```", "```\n```"]
)
def test_empty_code_is_worth_nothing_though_its_tests_pass(empty: str) -> None:
    """Guards: lint alone, whose best code is no code."""
    every = CodeScorer(lambda code, tests: Outcome(passed=True), lambda pieces: [[] for _ in pieces])
    assert [v[0].score for v in every.score([question(empty, tests="pass")])[0]] == [0]


def test_a_prompt_without_tests_or_a_linter_that_failed_is_a_fault() -> None:
    assert [v[0].fault for v in scorer([]).score([question("a = 1", tests=None)])[0]] == ["no_checks"]
    broken = CodeScorer(lambda c, t: Outcome(passed=c == "a = 1"), lambda pieces: None)
    ((kept, failed),) = broken.score([question("a = 1", "b = 2")])
    assert (kept[0].fault, failed[0].score) == ("lint_failed", 0)


@given(
    kinds=st.lists(st.lists(st.sampled_from(["pass", "fail", "empty", "fault"]), max_size=4), max_size=4),
    severities=st.lists(st.sampled_from(["info", "low", "medium", "high", "critical"]), max_size=4),
)
@universal
def test_every_code_verdict_stays_with_its_candidate(kinds: list[list[str]], severities: list[str]) -> None:
    """Guards: what failed dropped from one list and not from the other."""
    texts = {"pass": "good = 1", "fail": "bad = 1", "empty": "", "fault": "odd = 1"}
    outcomes = {
        "good = 1": Outcome(passed=True),
        "bad = 1": Outcome(reason="x"),
        "odd = 1": Outcome(fault="timeout"),
    }
    every = CodeScorer(lambda c, t: outcomes[c], lambda pieces: [severities for _ in pieces])
    found = every.score([question(*(texts[k] for k in group)) for group in kinds])
    worth = 1 / (
        1 + sum({"info": 0.5, "low": 1, "medium": 2.5, "high": 5, "critical": 10}[s] for s in severities)
    )
    expected = {"pass": worth, "fail": 0, "empty": 0, "fault": None}
    assert [[v[0].score for v in group] for group in found] == [
        [expected[k] for k in group] for group in kinds
    ]


def test_code_is_what_stands_in_fences_or_all_that_can_be_parsed() -> None:
    answer = f"Here it is:\n```python\n{RIGHT}\n```\nand\n```\ng = f\n```\nIn a shell:\n```sh\nrm x\n```"
    assert code_of(answer) == f"{RIGHT}\n\ng = f\n"
    assert code_of(RIGHT) == RIGHT and code_of("I cannot write code.") == ""
    assert not is_empty(RIGHT) and not is_empty("x = (") and codes.tests_of({"tests": ["a", "b"]}) == "a\nb"
    assert codes.tests_of({"tests": " "}) is None and codes.tests_of({}) is None


# the linters


def test_what_a_linter_writes_is_read_by_severity() -> None:
    told = "************* Module c0\nc0.py:convention:\nc1.py:error:\nc1.py:fatal:\nYour code\n"
    assert lint.read("pylint", told) == [(0, "info"), (1, "high"), (1, "critical")]
    told = "./c0.py:E302:\n./c0.py:F401:\n./c2.py:F821:\n./c2.py:E999:\n./c2.py:W291:\n./c2.py:C901:\n"
    assert lint.read("flake8", told) == [
        (0, "info"), (0, "medium"), (2, "high"), (2, "critical"), (2, "info"), (2, "low")
    ]  # fmt: skip
    told = 'c3.py:1: error: Name "x" is not defined  [name-defined]\nc3.py:2: note: See\nFound 1 error\n'
    assert lint.read("mypy", told) == [(3, "medium"), (3, "info")]


@pytest.mark.parametrize("tool", ["pylint", "flake8", "mypy"])
def test_each_linter_finds_the_fault_in_its_piece_and_none_in_the_sound_one(tool: str) -> None:
    if lint.missing([tool]):
        pytest.skip(f"{tool} is not installed: `pip install 'selfreward[code]'`")
    sound = '"""A sum."""\n\n\ndef add(first: int, second: int) -> int:\n'
    sound += '    """The sum."""\n    return first + second'
    faulty = sound.replace("return first", "return frist")
    found = lint.findings([sound, faulty, sound], [tool])
    assert found is not None and found[0] == found[2] == []
    assert found[1] and set(found[1]) <= {"medium", "high", "low"}


def test_a_missing_linter_is_said_to_be() -> None:
    assert lint.missing(["json", "no_such_linter"]) == ["no_such_linter"]


def test_a_seed_of_the_hash_is_the_same_in_every_run() -> None:
    """Guards: sets that come in another order each time, so that a resumed run scores otherwise."""
    if not confined.available():
        pytest.skip("code is run on Linux on x86-64 alone")
    told = [run("s = hash('a')", f"assert s % 7 == {k}").passed for k in range(7)]
    again = [run("s = hash('a')", f"assert s % 7 == {k}").passed for k in range(7)]
    assert told == again and sum(told) == 1
