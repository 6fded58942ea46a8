"""The tables of the store as classes: the one type each datum has.

The DDL that guards them is `migrations/schema_v1.sql`; a test holds both against each other. Nothing here
opens a file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import REAL, Integer, LargeBinary, Text
from sqlmodel import Field, SQLModel


def _text(**kw: Any) -> Any:
    return Field(sa_type=Text, **kw)


def _int(**kw: Any) -> Any:
    return Field(sa_type=Integer, **kw)


def _real(**kw: Any) -> Any:
    return Field(sa_type=REAL, **kw)


class Run(SQLModel, table=True):
    """A recipe's run, or a branch of one."""

    id: int = _int(primary_key=True)
    name: str = _text()
    parent_id: int | None = _int(default=None)
    parent_policy: str | None = _text(default=None)
    made_by: str = _text(default="user")
    recipe: str = _text()
    fingerprint: str = _text()
    seed: int = _int()
    created_at: str = _text()


class Policy(SQLModel, table=True):
    """The model being improved, as M0, M1, …; `adapter` is relative to the store's folder."""

    run_id: int = _int(primary_key=True)
    name: str = _text(primary_key=True)
    idx: int = _int()
    parent: str | None = _text(default=None)
    model: str = _text()
    adapter: str | None = _text(default=None)
    sha256: str | None = _text(default=None)
    made_in: int = _int()
    status: str = _text()
    decision: str | None = _text(default=None)
    created_at: str = _text()


class Stage(SQLModel, table=True):
    """One piece of work on a policy; `made_from` is what decides its rows."""

    run_id: int = _int(primary_key=True)
    policy: str = _text(primary_key=True)
    name: str = _text(primary_key=True)
    made_in: int = _int()
    status: str = _text()
    made_from: str | None = _text(default=None)
    fingerprint: str | None = _text(default=None)
    n_done: int = _int(default=0)
    n_total: int | None = _int(default=None)
    n_tokens: int = _int(default=0)
    seconds: float = _real(default=0.0)
    attempt: int = _int(default=0)
    error: str | None = _text(default=None)
    started_at: str | None = _text(default=None)
    finished_at: str | None = _text(default=None)


class Prompt(SQLModel, table=True):
    """One chat to answer; rejected ones stay, with the reason."""

    id: int = _int(primary_key=True)
    run_id: int = _int()
    policy: str = _text()
    slot: int = _int()
    round: int = _int(default=0)
    text: str = _text()
    messages: str = _text()
    reference: str | None = _text(default=None)
    checks: str | None = _text(default=None)
    source: str = _text()
    parents: str = _text(default="[]")
    seed: int | None = _int(default=None)
    status: str = _text()
    reason: str | None = _text(default=None)


class Candidate(SQLModel, table=True):
    """One sampled answer; `token_ids` is the truth and `text` its decoding."""

    id: int = _int(primary_key=True)
    run_id: int = _int()
    prompt_id: int = _int()
    policy: str = _text()
    sample: int = _int()
    text: str | None = _text(default=None)
    token_ids: bytes | None = Field(sa_type=LargeBinary, default=None)
    n_tokens: int | None = _int(default=None)
    finish: str | None = _text(default=None)
    mean_logprob: float | None = _real(default=None)
    seed: int = _int()
    fault: str | None = _text(default=None)


class RubricRow(SQLModel, table=True):
    """The text a judge read, by its hash."""

    __tablename__ = "rubric"
    sha256: str = _text(primary_key=True)
    name: str = _text()
    kind: str = _text()
    low: float = _real()
    high: float = _real()
    text: str = _text()


class ScorerRow(SQLModel, table=True):
    """Who scored an iteration's candidates, and with what settings."""

    __tablename__ = "scorer"
    run_id: int = _int(primary_key=True)
    policy: str = _text(primary_key=True)
    name: str = _text(primary_key=True)
    type: str = _text()
    mode: str | None = _text(default=None)
    rubric_sha256: str | None = _text(default=None)
    judge: str | None = _text(default=None)
    judge_sha256: str | None = _text(default=None)
    settings: str = _text()


class Judgement(SQLModel, table=True):
    """A stored verdict: a score, or NULL with a fault."""

    id: int | None = _int(default=None, primary_key=True)
    run_id: int = _int()
    candidate_id: int = _int()
    other_id: int = _int(default=0)
    position: int = _int(default=1)
    scorer: str = _text()
    sample: int = _int()
    score: float | None = _real(default=None)
    fault: str | None = _text(default=None)
    raw: str | None = _text(default=None)
    detail: str | None = _text(default=None)
    seed: int | None = _int(default=None)
    reasked: int = _int(default=0)


class Mining(SQLModel, table=True):
    """What became of a prompt: a pair, or the reason why not."""

    run_id: int = _int(primary_key=True)
    prompt_id: int = _int(primary_key=True)
    outcome: str = _text()
    margin: float | None = _real(default=None)
    n_pairs: int = _int(default=0)
    detail: str | None = _text(default=None)


class Pair(SQLModel, table=True):
    """Two candidates of one prompt; `margin` is the store's own subtraction."""

    id: int = _int(primary_key=True)
    run_id: int = _int()
    prompt_id: int = _int()
    chosen_id: int = _int()
    rejected_id: int = _int()
    chosen_score: float = _real()
    rejected_score: float = _real()
    weight: float = _real(default=1.0)
    rule: str = _text()


class Stood(NamedTuple):
    """A candidate as it stands for mining; `policy` is who answered, which may be an anchor."""

    id: int
    prompt_id: int
    slot: int
    sample: int
    policy: str
    text: str | None
    finish: str | None
    n_tokens: int


class MiningRow(NamedTuple):
    """A row of `Mining` as mining writes it by the hundred thousand: an ORM object takes 50 times as long."""

    run_id: int
    prompt_id: int
    outcome: str
    margin: float | None = None
    n_pairs: int = 0
    detail: str | None = None


class PairRow(NamedTuple):
    """A row of `Pair` as mining writes it."""

    id: int
    run_id: int
    prompt_id: int
    chosen_id: int
    rejected_id: int
    chosen_score: float
    rejected_score: float
    weight: float
    rule: str


class Review(SQLModel, table=True):
    """A person's verdict on a pair."""

    run_id: int = _int(primary_key=True)
    chosen_id: int = _int(primary_key=True)
    rejected_id: int = _int(primary_key=True)
    review: str = _text()
    note: str | None = _text(default=None)
    at: str = _text()


class TrainedOn(SQLModel, table=True):
    """A row a training read, in order."""

    __tablename__ = "trained_on"
    run_id: int = _int(primary_key=True)
    policy: str = _text(primary_key=True)
    position: int = _int(primary_key=True)
    kind: str = _text()
    pair_id: int | None = _int(default=None)
    source: str | None = _text(default=None)
    weight: float = _real(default=1.0)
    split: str = _text(default="train")


class AnswerRow(SQLModel, table=True):
    """A probe or evaluation text; `item` is the prompt, and it is never trained on."""

    __tablename__ = "answer"
    id: int | None = _int(default=None, primary_key=True)
    run_id: int = _int()
    policy: str = _text()
    suite: str = _text()
    item: str = _text()
    sample: int = _int(default=0)
    turn: int = _int(default=1)
    text: str | None = _text(default=None)
    token_ids: bytes | None = Field(sa_type=LargeBinary, default=None)
    n_tokens: int | None = _int(default=None)
    finish: str | None = _text(default=None)
    seed: int | None = _int(default=None)
    fault: str | None = _text(default=None)


class Evaluation(SQLModel, table=True):
    """A grader's verdict on an answer."""

    id: int | None = _int(default=None, primary_key=True)
    run_id: int = _int()
    policy: str = _text()
    suite: str = _text()
    answer_id: int = _int()
    against_id: int = _int(default=0)
    position: int = _int(default=1)
    grader: str = _text()
    sample: int = _int(default=0)
    score: float | None = _real(default=None)
    fault: str | None = _text(default=None)
    raw: str | None = _text(default=None)


class Metric(SQLModel, table=True):
    """A number with its n and its 95 % interval."""

    run_id: int = _int(primary_key=True)
    policy: str = _text(primary_key=True)
    stage: str = _text(primary_key=True)
    name: str = _text(primary_key=True)
    step: int = _int(default=0, primary_key=True)
    value: float | None = _real(default=None)
    n: int = _int()
    low: float | None = _real(default=None)
    high: float | None = _real(default=None)


class Alarm(SQLModel, table=True):
    """A gate's finding on one signal."""

    run_id: int = _int(primary_key=True)
    policy: str = _text(primary_key=True)
    stage: str = _text(primary_key=True)
    signal: str = _text(primary_key=True)
    level: str = _text()
    value: float | None = _real(default=None)
    low: float | None = _real(default=None)
    high: float | None = _real(default=None)
    threshold: float | None = _real(default=None)
    message: str = _text()


class Event(SQLModel, table=True):
    """Something that happened, in order."""

    id: int | None = _int(default=None, primary_key=True)
    run_id: int = _int()
    at: str = _text()
    kind: str = _text()
    detail: str = _text(default="{}")
