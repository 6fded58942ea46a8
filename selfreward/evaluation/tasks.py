"""What a suite asks and how: the chats, the sampling, and what an answer is held against. Pure.

A protocol is what decides an answer besides the policy: two policies are compared under one protocol only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfreward.errors import BadInput
from selfreward.evaluation import suites
from selfreward.evaluation.suites import Item, Numbered, Suite
from selfreward.protocols import Message, Sampling

VERSION = 1  # of chats, instructions and rules of reading: another one makes other answers or marks
MT_BENCH_TEMPERATURES = {  # of the published protocol (Zheng et al. 2023, arXiv 2306.05685)
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0,
    "stem": 0.1, "humanities": 0.1,
}  # fmt: skip
OTHER_CATEGORY = 0.7
SAMPLED = (0.6, 0.95)  # temperature and top-p of reasoning evaluations (DeepSeek-R1, arXiv 2501.12948)
INSTRUCTIONS = {
    "integer": "Work the problem out step by step. The answer is a whole number from 0 to 999: "
    "put it in \\boxed{} at the end.",
    "number": "Work it out step by step. Then write the answer as a number on a last line of its own, "
    "after ####.",
}
NEW_TOKENS = {"integer": 4096, "number": 512, "graded": 1024, "own": 512}


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a suite is asked. `temperature` None goes by category."""

    suite: str
    samples: int
    temperature: float | None
    top_p: float
    max_new_tokens: int
    instruction: str

    @property
    def decides(self) -> dict[str, Any]:
        """What must be equal for answers to belong together; the number of samples need not."""
        return {"protocol": VERSION, **{k: v for k, v in asdict(self).items() if k != "samples"}}


@dataclass(frozen=True, slots=True)
class Task:
    """One question as it is asked: `item` is its name in the store, `follow` a second user turn.

    An answer is checked against `check`, or graded: by `references` (one a turn, None where there is none) or
    by `criteria`. Without any of these it can only be compared with another policy's.
    """

    id: str
    item: str
    chat: tuple[Message, ...]
    category: str
    sampling: Sampling
    follow: str | None = None
    check: Item | None = None
    references: tuple[str | None, ...] = (None, None)
    criteria: str | None = None

    @property
    def kind(self) -> str:
        """`checked` by a rule, `graded` by a judge, or only to be `compared`."""
        if self.check is not None:
            return "checked"
        return "graded" if self.follow is not None or self.criteria is not None else "compared"

    @property
    def turns(self) -> int:
        """How often the policy answers."""
        return 2 if self.follow is not None else 1


def protocol(
    suite: Suite, samples: int, temperature: float | None = None, max_new_tokens: int | None = None
) -> Protocol:
    """A suite's own protocol, but for what is given. One sample is greedy, except for AIME."""
    drawn = suite.rule == "integer" or samples > 1
    own, top_p = SAMPLED if drawn else (0.0, 1.0)
    by_category = suite.rule == "graded" and temperature is None
    return Protocol(
        suite.name if suite.rule != "own" else "own",
        samples,
        None if by_category else own if temperature is None else temperature,
        1.0 if by_category or temperature is not None else top_p,
        max_new_tokens or NEW_TOKENS[suite.rule],
        INSTRUCTIONS.get(suite.rule, ""),
    )


def tasks(rows: Numbered, suite: Suite, asked: Protocol, path: str) -> list[Task]:
    """The questions of a file, in its order. Raises `BadInput` naming file and line."""
    if suite.rule == "graded":
        suites.categories(rows, path)
    found: dict[str, Task] = {}
    for place, (line, row) in enumerate(rows):
        where = f"{path}, line {line}"
        task = _task(row, suite, asked, str(place), where)
        if task.item in found or any(t.id == task.id for t in found.values()):
            raise BadInput(f"{where}: this question, or its id {task.id!r}, stands there a second time")
        found[task.item] = task
    kinds = sorted({task.kind for task in found.values()})
    if len(kinds) > 1:
        raise BadInput(f"{path} holds questions of two kinds ({', '.join(kinds)}): take one kind a file")
    return list(found.values())


def _task(row: dict[str, Any], suite: Suite, asked: Protocol, place: str, where: str) -> Task:
    category = row.get("category") if isinstance(row.get("category"), str) else "all"
    name = suites.identity(row.get("id", row.get("question_id", place)), where)
    temperature = asked.temperature
    if temperature is None:
        temperature = MT_BENCH_TEMPERATURES.get(str(category), OTHER_CATEGORY)
    sampling = Sampling(temperature, asked.top_p, 0, asked.max_new_tokens)
    if suite.rule == "graded" or "turns" in row:
        return _two_turns(row, name, str(category), sampling, where)
    chat = _chat(row, asked.instruction, where)
    item = suites.problem_of(row) if len(chat) == 1 else json.dumps(row["messages"], ensure_ascii=False)
    check, criteria = None, None
    if row.get("answer") is not None or suite.rule != "own":
        check = suites.item_of(row | {"id": name}, suite, place, where)
    elif isinstance(row.get("rubric"), str) and row["rubric"].strip():
        criteria = row["rubric"]
    elif "rubric" in row:
        raise BadInput(f"{where}: 'rubric' should be text: what a good answer does")
    return Task(name, item, chat, str(category), sampling, check=check, criteria=criteria)


def _two_turns(row: dict[str, Any], name: str, category: str, sampling: Sampling, where: str) -> Task:
    turns = row.get("turns")
    if not (isinstance(turns, list) and len(turns) == 2 and all(isinstance(t, str) and t for t in turns)):
        raise BadInput(f"{where}: 'turns' should be two texts")
    chat = ({"role": "user", "content": turns[0]},)
    return Task(name, turns[0], chat, category, sampling, turns[1], references=_solutions(row))


def _solutions(row: dict[str, Any]) -> tuple[str | None, ...]:
    """The reference of each turn, empty ones as None; one text alone is of the first."""
    given = row.get("reference")
    texts = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    found = [t if isinstance(t, str) and t.strip() else None for t in texts[:2]]
    return (*found, *[None] * (2 - len(found)))


def _chat(row: dict[str, Any], instruction: str, where: str) -> tuple[Message, ...]:
    """The row's chat with the suite's instruction under the question."""
    problem = suites.problem_of(row)
    if not problem.strip():
        raise BadInput(f"{where}: 'prompt', 'messages', 'problem' or 'question' is missing or empty")
    before: list[Message] = []
    if isinstance(row.get("messages"), list):
        for turn in row["messages"]:
            if not (isinstance(turn, dict) and isinstance(turn.get("content"), str)):
                raise BadInput(f"{where}: 'messages' should be turns with role and content")
            before.append({"role": str(turn.get("role")), "content": turn["content"]})
        if before.pop()["role"] != "user":
            raise BadInput(f"{where}: the last turn of 'messages' should be the user's")
    asked = f"{problem}\n\n{instruction}" if instruction else problem
    return (*before, {"role": "user", "content": asked})


def with_references(found: Sequence[Task], rows: Numbered, path: str) -> list[Task]:
    """The tasks with solutions from FastChat's `reference_answer` file: `question_id` and one choice."""
    given: dict[str, tuple[str | None, ...]] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        try:
            turns = row["choices"][0]["turns"]
        except (KeyError, IndexError, TypeError):
            raise BadInput(f"{where}: 'choices' should hold one choice with its 'turns'") from None
        given[suites.identity(row.get("question_id"), where)] = _solutions({"reference": turns})
    return [_with(task, given.get(task.id)) for task in found]


def _with(task: Task, references: tuple[str | None, ...] | None) -> Task:
    from dataclasses import replace

    return task if references is None else replace(task, references=references)


def content(found: Sequence[Task]) -> str:
    """sha256 of all that is asked and held against, in order."""
    told = [
        [
            json.dumps(list(t.chat)),
            t.follow or "",
            t.category,
            str(t.check.answer if t.check else t.criteria),
        ]
        for t in found
    ]
    return suites.content_hash(told)


def second_chat(task: Task, answer: str) -> list[Message]:
    """The chat of turn 2 after the policy's own answer to turn 1."""
    return [
        *task.chat,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": task.follow or ""},
    ]


def solution(task: Task, turn: int) -> str | None:
    """What a judge is shown of the right answer to a turn; for turn 2 both turns' solutions."""
    first, second = task.references
    if turn == 1 or second is None:
        return first
    return f"To the first question: {first or 'none given'}\n\nTo the second question: {second}"


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of two protocols that differ, with both values, in words."""
    keys = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    return [f"{k} was {_short(before.get(k))}, is {_short(now.get(k))}" for k in keys]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "…"
