"""Code that passes its prompt's tests, and then code that linters find little in.

What it measures: the tests, in the first place; tidiness, in the second. How it fails: linters alone shorten
code, so that the tests come first; tests that check little let anything pass.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from selfreward.protocols import Question, Verdict
from selfreward.scorers.sandbox import Outcome

WEIGHTS = {"info": 0.5, "low": 1.0, "medium": 2.5, "high": 5.0, "critical": 10.0}
_FENCED = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class CodeScorer:
    """Verdicts in 0..1: 0 for code that fails a test or says nothing, else 1 / (1 + weighted findings).

    `run` is (code, tests) → outcome; `lint` gives severities by piece, None where a tool failed, and is asked
    once a block, of what passed.
    """

    run: Callable[[str, str], Outcome]
    lint: Callable[[Sequence[str]], list[list[str]] | None]
    name: str = "code"
    needs: frozenset[str] = frozenset({"checks", "sandbox", "tools"})

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """One verdict a candidate; a prompt without tests gives faults."""
        codes = [code_of(a.text) for q in questions for a in q.answers]
        tests = [tests_of(q.checks) for q in questions for _ in q.answers]
        gates = [self._gate(c, t) for c, t in zip(codes, tests, strict=True)]
        passed = [c for c, g in zip(codes, gates, strict=True) if g is None]
        told = self.lint(passed)
        found: Iterator[list[str] | None] = iter(told if told is not None else [None] * len(passed))
        verdicts = iter([g if g is not None else _tidy(next(found)) for g in gates])
        return [[[next(verdicts)] for _ in q.answers] for q in questions]

    def _gate(self, code: str, tests: str | None) -> Verdict | None:
        """The verdict of code that goes no further; None for one that passed."""
        if tests is None:
            return Verdict(None, "no_checks")
        if is_empty(code):
            return Verdict(0.0, detail={"tests": "no code"})
        outcome = self.run(code, tests)
        if outcome.fault:
            return Verdict(None, outcome.fault)
        return None if outcome.passed else Verdict(0.0, detail={"tests": outcome.reason})


def _tidy(found: list[str] | None) -> Verdict:
    if found is None:
        return Verdict(None, "lint_failed")
    counts: dict[str, object] = {s: found.count(s) for s in WEIGHTS if s in found}
    weighed = sum(WEIGHTS[s] for s in found)
    return Verdict(1.0 / (1.0 + weighed), detail={"tests": "passed", **counts})


def tests_of(checks: Mapping[str, object] | None) -> str | None:
    """The tests of a prompt: Python that raises where the code is wrong."""
    tests = (checks or {}).get("tests")
    if isinstance(tests, list):
        tests = "\n".join(map(str, tests))
    return tests if isinstance(tests, str) and tests.strip() else None


def code_of(text: str) -> str:
    """The Python of an answer: its fenced blocks, one after the other, else all of it if it can be parsed."""
    blocks = [body for kind, body in _FENCED.findall(text) if kind.lower() in ("", "python", "py", "python3")]
    if blocks:
        return "\n".join(blocks)
    return text if _parsed(text) is not None else ""


def is_empty(code: str) -> bool:
    """Whether nothing in it does anything: no statement but texts, `pass` and `...`."""
    tree = _parsed(code)
    if tree is None:
        return not code.strip()
    idle = (ast.Pass, ast.Constant)
    return all(isinstance(s.value if isinstance(s, ast.Expr) else s, idle) for s in tree.body)


def _parsed(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
