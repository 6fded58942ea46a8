"""The suites: what their files hold, how many questions they have, and by which rule answers are read. Pure.

Counts are those of the published sets. A hash is given where the set was at hand when this was written: it
covers the questions and answers alone, in order, whatever the file's other fields and spacing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from selfreward.errors import BadInput
from selfreward.evaluation.reading import HIGHEST, plain_words
from selfreward.evaluation.stated import numbers, plain
from selfreward.files import sha256_of_text

Numbered = Sequence[tuple[int, dict[str, Any]]]  # rows of a JSONL file with their line numbers


@dataclass(frozen=True, slots=True)
class Suite:
    """A known set: its size, the hash of its content if known, the rule of reading, and where it lies.

    `hub` is the dataset's id, its configuration if it has several, and the split.
    """

    name: str
    rule: str
    count: int | None = None
    sha256: str | None = None
    hub: tuple[str, str | None, str] | None = None


KNOWN = {
    suite.name: suite
    for suite in (
        Suite(
            "aime24",
            "integer",
            30,
            "1ed0289ff854c32de904671a7c88b0ce1e17de659c347148a1d1bd97994f5644",
            ("HuggingFaceH4/aime_2024", None, "train"),
        ),
        Suite("aime25", "integer", 30, None, ("math-ai/aime25", None, "test")),
        Suite(
            "gsm8k",
            "number",
            1319,
            "f2e20d7531ea649b0ea7214fa7150d2a1c94a94af18f4e0c0318bd8994e23d54",
            ("openai/gsm8k", "main", "test"),
        ),
        Suite(
            "mt-bench",
            "graded",
            80,
            "17fc3d6c53a3dc154be32944f47d51582e927db2977464549921966769d37f4a",
            ("lighteval/mt-bench", None, "train"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its right answer and the rule by which answers to it are read."""

    id: str
    problem: str
    answer: Fraction | str
    rule: str
    row: dict[str, Any]


def items(rows: Numbered, suite: Suite, path: str) -> list[Item]:
    """The questions of a file. Raises `BadInput` naming file and line."""
    found: dict[str, Item] = {}
    for place, (line, row) in enumerate(rows):
        item = item_of(row, suite, str(place), f"{path}, line {line}")
        if item.id in found:
            raise BadInput(f"{path}, line {line}: the id {item.id!r} stands there a second time")
        found[item.id] = item
    return list(found.values())


def item_of(row: dict[str, Any], suite: Suite, place: str, where: str) -> Item:
    """A row as a question with its right answer; `place` is its id where it brings none."""
    problem = problem_of(row)
    if not problem.strip():
        raise BadInput(f"{where}: 'problem', 'question', 'prompt' or 'messages' is missing or empty")
    given = row.get("answer")
    if given is None and "rubric" in row:
        raise BadInput(
            f"{where}: has a rubric and no answer; saved answers are checked against 'answer' alone"
        )
    if isinstance(given, bool) or not isinstance(given, str | int | float) or not str(given).strip():
        raise BadInput(f"{where}: 'answer' should be a number or text")
    answer = _answer(str(given), suite.rule)
    if answer is None:
        wanted = f"an integer from 0 to {HIGHEST}" if suite.rule == "integer" else "one number"
        raise BadInput(
            f"{where}: 'answer' should be {wanted} in suite {suite.name}, not {str(given)[-40:]!r}"
        )
    rule = suite.rule if suite.rule != "own" else "phrase" if isinstance(answer, str) else "number"
    return Item(identity(row.get("id", place), where), problem, answer, rule, row)


def identity(given: Any, where: str) -> str:
    """An id as text: 7 and "7" are one."""
    if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
        raise BadInput(f"{where}: 'id' should be text or an integer")
    return str(given)


def problem_of(row: dict[str, Any]) -> str:
    """What is asked: the last turn of `messages`, or `problem`, `question` or `prompt`; empty if none."""
    chat = row.get("messages")
    if isinstance(chat, list) and chat and isinstance(chat[-1], dict):
        return str(chat[-1].get("content", ""))
    return next((row[k] for k in ("problem", "question", "prompt") if isinstance(row.get(k), str)), "")


def _answer(given: str, rule: str) -> Fraction | str | None:
    """The right answer in the form it is compared in; None if it is not what the rule reads."""
    final = given.rpartition("####")[2].strip() if rule == "number" else given.strip()
    stated = numbers(plain(final))
    alone = len(stated) == 1 and (stated[0].start, stated[0].end) == (0, len(plain(final).rstrip("%. ")))
    if rule == "own":
        return stated[0].value if alone else plain_words(given) or None
    if not (alone or (rule == "number" and len(stated) == 1)):
        return None
    value = stated[0].value
    return value if rule == "number" or (value.denominator == 1 and 0 <= value <= HIGHEST) else None


def categories(rows: Numbered, path: str) -> dict[str, str]:
    """Category by id of an MT-Bench question file, in its order. Raises `BadInput` naming the line."""
    found: dict[str, str] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        name = identity(row.get("question_id"), where)
        category, turns = row.get("category"), row.get("turns")
        if not isinstance(category, str) or not category:
            raise BadInput(f"{where}: 'category' is missing or empty")
        if not (isinstance(turns, list) and len(turns) == 2 and all(isinstance(t, str) for t in turns)):
            raise BadInput(f"{where}: 'turns' should be two texts")
        if name in found:
            raise BadInput(f"{where}: the question_id {name!r} stands there a second time")
        found[name] = category
    return found


def content_hash(texts: Sequence[Sequence[str]]) -> str:
    """sha256 of the questions as a JSON list of lists of texts."""
    return sha256_of_text(json.dumps(texts, separators=(",", ":")))


def questions_hash(rows: Numbered) -> str:
    """`content_hash` of an MT-Bench file: category and both turns of each question."""
    return content_hash([[str(row["category"]), *map(str, row["turns"])] for _, row in rows])


def items_hash(found: Sequence[Item]) -> str:
    """`content_hash` of problems and answers."""
    return content_hash([[item.problem, str(item.answer)] for item in found])


def differences(suite: Suite, count: int, sha256: str, path: str) -> list[str]:
    """How what was loaded differs from the known set, in sentences; empty where no difference is known."""
    if suite.count is not None and count != suite.count:
        return [f"{path} holds {count} questions, {suite.name} has {suite.count}"]
    if suite.sha256 is not None and sha256 != suite.sha256:
        return [
            f"{path} has the {count} questions of {suite.name} by number, but other text or answers "
            f"(sha256 {sha256[:12]}, known {suite.sha256[:12]})"
        ]
    return []
