"""Scores forced after a fault, the digit's prior removed, a thought closed before a score is forced."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfreward import rubric as rubrics
from selfreward.engines.chat import Chat
from selfreward.protocols import Sampling
from selfreward.recipe_file import parse
from selfreward.scorers.judge import JudgeScorer
from tests.conftest import TEMPLATE, make_tiny_policy
from tests.test_scorers import FIVE, ScriptedEngine, question


def scores(*given: float) -> dict[str, float]:
    """Replies that state the scores 1 to 5 with these probabilities."""
    return {f"Score: {k}": p for k, p in enumerate(given, 1)}


def of(chat: str) -> str:
    return chat.partition("<a>")[2].partition("</a>")[0]


def reasking(replies: dict[str, float], reask: bool = True) -> JudgeScorer:
    engine = ScriptedEngine(lambda chat: replies)
    return JudgeScorer(engine, FIVE, "sampled", 8, Sampling(max_new_tokens=99), None, reask=reask)


def test_a_fault_is_asked_again_for_a_number_and_the_score_is_marked() -> None:
    """Every reply is unreadable, and of the numbers that might follow `Score:` 4 is the likeliest."""
    replies = {"I cannot say.": 1 - 1e-9, "Score: 4": 7e-10, "Score: 2": 3e-10}
    ((forced,),) = reasking(replies).score([question("a")])
    assert [(v.score, v.fault, v.reasked, v.raw) for v in forced] == [(4, None, True, "I cannot say.")] * 8
    assert forced[0].detail is not None and forced[0].detail["fault"] == "no_score"
    ((left,),) = reasking(replies, reask=False).score([question("a")])
    assert {(v.score, v.fault, v.reasked) for v in left} == {(None, "no_score", False)}


def test_a_score_that_was_read_is_never_asked_again() -> None:
    """Guards: the forced number in the place of what the judge wrote."""
    ((found,),) = reasking({"Score: 2": 0.4, "Well.\nScore: 5": 0.2, "Score: 3": 0.4}).score([question("a")])
    assert all(not v.reasked and v.raw is not None for v in found)
    assert {v.score for v in found} <= {2, 3, 5}


def test_what_was_never_written_is_not_asked_again() -> None:
    """A chat that does not fit the context is a fault, whatever number would follow."""
    engine = ScriptedEngine(lambda chat: {"Score: 5": 1.0}, context=40)
    judge = JudgeScorer(engine, FIVE, "sampled", 1, Sampling(max_new_tokens=9), None, reask=True)
    (((found,),),) = judge.score([question("x" * 60)])
    assert (found.score, found.fault, found.reasked) == (None, "too_long", False)


def weighed(calibrate: str, **said: dict[str, float]) -> list[float | None]:
    """Scores of the answers of one question, `empty` being what the judge says of no answer at all."""
    engine = ScriptedEngine(lambda chat: said[of(chat) or "empty"])
    judge = JudgeScorer(engine, FIVE, "expected", 1, Sampling(), None, calibrate=calibrate)
    (found,) = judge.score([question(*(a for a in said if a != "empty"))])
    return [v.score for (v,) in found]


def test_the_prior_of_an_empty_answer_is_divided_out() -> None:
    """Nothing gets 5 with 0.9; so does x: it says no more than nothing, and 1 and 5 are even: 3.

    y: 0.2/0.1 = 2 and 0.8/0.9 = 0.889; 5 has 0.889/2.889 = 0.3077, so that 1 + 4·0.3077 = 2.231.
    """
    empty = scores(0.1, 0, 0, 0, 0.9)
    found = weighed("content_free", x=empty, y=scores(0.2, 0, 0, 0, 0.8), empty=empty)
    assert found == pytest.approx([3, 2.2308], abs=1e-4)


def test_the_mean_of_a_prompts_answers_is_divided_out() -> None:
    """The mean is 0.2 and 0.8. x: 0.5 and 1.125: 1 + 4·0.6923; y: 1.5 and 0.875: 1 + 4·0.3684."""
    found = weighed("within_prompt", x=scores(0.1, 0, 0, 0, 0.9), y=scores(0.3, 0, 0, 0, 0.7))
    assert found == pytest.approx([3.7692, 2.4737], abs=1e-4)


def test_removing_a_prior_keeps_the_mass() -> None:
    """0.1 and 0.3 over equal priors stay as they were: the mass says whether a score was meant at all."""
    assert rubrics.without_prior([0.1, 0.3], [0.2, 0.2]) == pytest.approx([0.1, 0.3])


def test_a_prior_does_not_give_a_score_to_a_judge_that_gave_none() -> None:
    """Guards: little mass made whole by a prior that is as little."""
    tiny = {k: p / 1000 for k, p in scores(0.1, 0, 0, 0, 0.9).items()} | {"Score: none": 0.999}
    assert weighed("content_free", x=tiny, empty=tiny) == [None]


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"mode": "expected", "reask": True}, "judge.reask is for judge.mode sampled"),
        ({"mode": "sampled", "calibrate": "content_free"}, "judge.calibrate is for judge.mode expected"),
        ({"mode": "pairwise", "calibrate": "within_prompt"}, "judge.calibrate is for judge.mode expected"),
    ],
)
def test_what_a_mode_cannot_do_is_refused(judge: dict[str, object], said: str) -> None:
    with pytest.raises(Exception, match=said):
        parse({"model": "m", "judge": judge}, "recipe")


def test_a_thought_that_the_template_opens_is_closed_before_an_opening(tmp_path: Path) -> None:
    """`<think>` closed and a blank line, then the forced words; without an opening the model may think."""
    thinking = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    chat = Chat(str(make_tiny_policy(tmp_path, template=thinking)))
    asked = [{"role": "user", "content": "q"}]
    closed = chat.tokenizer.decode(chat.ids(asked, "Score:"))
    assert closed.endswith("assistant\n<think>\n\n</think>\n\nScore:")
    assert chat.tokenizer.decode(chat.ids(asked)).endswith("assistant\n<think>\n")
