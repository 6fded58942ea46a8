"""How suites are asked: chats, sampling, solutions, and two policies side by side; worked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from selfreward.errors import BadInput
from selfreward.evaluation import head_to_head, suites, tasks
from selfreward.evaluation.head_to_head import Bout
from selfreward.evaluation.suites import KNOWN, Suite
from selfreward.evaluation.tasks import protocol
from selfreward.protocols import Sampling
from selfreward.rubric import parse

MT, OWN = KNOWN["mt-bench"], Suite("mine.jsonl", "own")


def asked(suite: Suite, *rows: dict[str, Any], samples: int = 1) -> list[tasks.Task]:
    return tasks.tasks(list(enumerate(rows, 1)), suite, protocol(suite, samples), "f")


def question(number: int, category: str, **more: Any) -> dict[str, Any]:
    return {"question_id": number, "category": category, "turns": [f"first {number}", "then"]} | more


def test_mt_bench_is_drawn_at_its_categories_temperatures() -> None:
    found = asked(MT, *(question(i, c) for i, c in enumerate(("writing", "math", "stem", "roleplay", "new"))))
    assert [t.sampling for t in found] == [Sampling(h, 1.0, 0, 1024) for h in (0.7, 0.0, 0.1, 0.7, 0.7)]


def test_the_second_turn_stands_behind_the_policys_own_first_answer() -> None:
    (task,) = asked(MT, question(1, "math", reference=["four", "five"]))
    assert [m["content"] for m in tasks.second_chat(task, "mine")] == ["first 1", "mine", "then"]
    assert [m["role"] for m in tasks.second_chat(task, "mine")] == ["user", "assistant", "user"]
    assert tasks.solution(task, 1) == "four"
    assert tasks.solution(task, 2) == "To the first question: four\n\nTo the second question: five"


def test_reference_answers_come_from_fastchats_file_and_empty_ones_are_none() -> None:
    found = asked(MT, question(1, "math"), question(2, "writing", reference=["", ""]))
    rows = [(1, {"question_id": 1, "choices": [{"turns": ["four", "five"]}]})]
    given = tasks.with_references(found, rows, "r")
    assert [t.references for t in given] == [("four", "five"), (None, None)]
    assert tasks.solution(given[1], 2) is None
    with pytest.raises(BadInput, match="r, line 7: 'choices'"):
        tasks.with_references(found, [(7, {"question_id": 1, "choices": []})], "r")


def test_one_answer_is_greedy_and_several_are_sampled_but_aime_always_is() -> None:
    row = {"problem": "Find x.", "answer": 3}
    greedy, drawn = Sampling(0.0, 1.0, 0, 512), Sampling(0.6, 0.95, 0, 512)
    assert [asked(KNOWN["gsm8k"], row, samples=n)[0].sampling for n in (1, 8)] == [greedy, drawn]
    assert asked(KNOWN["aime24"], row)[0].sampling == Sampling(0.6, 0.95, 0, 4096)
    assert protocol(OWN, 4, temperature=0.2, max_new_tokens=7).decides["temperature"] == 0.2


def test_the_question_is_the_name_in_the_store_and_the_instruction_is_not() -> None:
    (task,) = asked(KNOWN["aime24"], {"id": 5, "problem": "Find x.", "answer": 3})
    assert (task.item, task.id, task.kind) == ("Find x.", "5", "checked")
    assert task.chat[0]["content"].startswith("Find x.\n\n") and "\\boxed{}" in task.chat[0]["content"]


def test_a_file_of_ones_own_may_bring_answers_criteria_or_neither_and_is_asked_as_it_stands() -> None:
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi?"}]
    kinds = [
        asked(OWN, {"prompt": "2+2?", "answer": 4})[0],
        asked(OWN, {"messages": chat, "rubric": "Greets back."})[0],
        asked(OWN, {"prompt": "Say."})[0],
    ]
    assert [t.kind for t in kinds] == ["checked", "graded", "compared"]
    assert kinds[0].chat == ({"role": "user", "content": "2+2?"},) and kinds[1].chat == tuple(chat)
    with pytest.raises(BadInput, match="two kinds"):
        asked(OWN, {"prompt": "a", "answer": 1}, {"prompt": "b", "rubric": "c"})


@pytest.mark.parametrize(
    ("rows", "told"),
    [([{"prompt": "a", "answer": 1}, {"prompt": "a", "answer": 2}], "line 2: this question"),
     ([{"id": 1, "prompt": "a", "answer": 1}, {"id": "1", "prompt": "b", "answer": 2}], "its id '1'"),
     ([{"prompt": " "}], "line 1: 'prompt'"),
     ([{"prompt": "a", "rubric": ["x"]}], "line 1: 'rubric' should be text"),
     ([{"messages": [{"role": "assistant", "content": "a"}]}], "the last turn"),
     ([{"turns": ["one"]}], "'turns' should be two texts")],
)  # fmt: skip
def test_a_row_that_cannot_be_asked_is_named_by_its_line(rows: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        asked(OWN, *rows)


def test_what_decides_an_answer_is_in_the_protocol_and_how_many_is_not() -> None:
    """One sample more keeps old answers only where they are drawn alike."""
    assert protocol(OWN, 4).decides == protocol(OWN, 8).decides
    assert tasks.differing(protocol(OWN, 1).decides, protocol(OWN, 4).decides) == [
        "temperature was 0.0, is 0.6", "top_p was 1.0, is 0.95",
    ]  # fmt: skip
    same = asked(OWN, {"prompt": "a", "answer": 1})
    assert tasks.content(same) != tasks.content(asked(OWN, {"prompt": "a", "answer": 2}))


def test_every_known_suite_says_where_it_lies_how_long_it_is_and_how_it_is_read() -> None:
    assert {s.name: s.count for s in KNOWN.values()} == {
        "aime24": 30,
        "aime25": 30,
        "gsm8k": 1319,
        "mt-bench": 80,
    }
    assert all(s.hub and s.hub[0].count("/") == 1 for s in KNOWN.values())
    assert suites.differences(KNOWN["aime25"], 3, "x", "f") == ["f holds 3 questions, aime25 has 30"]


def test_our_judge_prompts_are_rubrics_that_show_what_they_need() -> None:
    folder = Path(__file__).resolve().parent.parent / "prompts" / "mt_bench"
    found = {p.stem: parse(p.read_text(encoding="utf-8"), p.name) for p in folder.glob("*.md")}
    assert sorted(found) == ["answer", "answer_by_criteria", "answer_with_reference"]
    assert {(r.kind, r.low, r.high) for r in found.values()} == {("direct", 1.0, 10.0)}
    assert [n for n in sorted(found) if "{{reference}}" in found[n].text] == sorted(found)[1:]


# head to head


def bout(first: float | None, second: float | None, lengths: tuple[int, int] = (1, 1), **more: Any) -> Bout:
    return Bout(f"{first} {second} {lengths}", more.pop("category", "all"), first, second, lengths, **more)


@pytest.mark.parametrize(
    ("first", "second", "preference", "consistent"),
    [(1, 1, 1, True), (0, 0, 0, True), (1, 0, 0.5, False), (0, 1, 0.5, False), (0.5, 0.5, 0.5, True),
     (1, 0.5, 0.5, False), (None, 1, None, None), (0.9, 0.6, 0.75, True), (0.9, 0.2, 0.55, False)],
)  # fmt: skip
def test_both_orders_decide_and_a_fault_decides_nothing(
    first: float | None, second: float | None, preference: float | None, consistent: bool | None
) -> None:
    """`second` is the left one's share too: 1 and 0 is a judge that always takes the first shown."""
    found = bout(first, second)
    assert (found.preference, found.consistent) == (
        pytest.approx(preference) if preference else preference,
        consistent,
    )


def test_wins_ties_and_losses_are_counted_by_category_and_the_place_is_told() -> None:
    """Win, loss, tie by disagreement (the first shown took both), unread, twins: (1 + 0 + ½ + ½) / 4."""
    bouts = [
        bout(1, 1, category="a"),
        bout(0, 0),
        bout(1, 0),
        bout(None, 1),
        bout(None, None, identical=True),
    ]
    found = head_to_head.summary(bouts)
    assert {k: found[k] for k in ("n", "win", "tie", "lose", "faults", "identical")} == {
        "n": 4, "win": 1, "tie": 2, "lose": 1, "faults": 1, "identical": 1,
    }  # fmt: skip
    assert found["win_rate"]["value"] == 0.5 and found["categories"]["a"]["value"] == 1.0
    assert found["consistency"]["value"] == pytest.approx(2 / 3)
    assert found["first_shown"]["value"] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_a_win_rate_that_is_length_alone_is_even_at_equal_lengths() -> None:
    """The longer answer wins every time, as often left as right; left is longer in 15 of 20: 75 % raw."""
    bouts = [bout(1, 1, (30, 10))] * 15 + [bout(0, 0, (10, 30))] * 5
    found = head_to_head.summary(bouts)
    assert found["win_rate"]["value"] == 0.75
    assert found["length_controlled"]["value"] == pytest.approx(0.5, abs=0.15)
    assert found["length_controlled"]["low"] < 0.5 < found["length_controlled"]["high"]


def test_at_equal_lengths_nothing_is_controlled_away() -> None:
    """Δ = 0 everywhere: a solves 15 of 20 wins and the drawn game: σ(a) = 15.5 / 21."""
    found = head_to_head.summary([bout(1, 1)] * 15 + [bout(0, 0)] * 5)
    assert found["length_controlled"]["value"] == pytest.approx(15.5 / 21, abs=1e-6)
    always = head_to_head.summary([bout(1, 1, (i, 9)) for i in range(12)])["length_controlled"]
    assert 0.5 < always["value"] < 1 and math.isfinite(always["high"])


def test_nothing_read_is_no_number() -> None:
    found = head_to_head.summary([bout(None, None)])
    assert found["win_rate"]["value"] is None and found["length_controlled"]["value"] is None
    assert (found["n"], found["faults"]) == (0, 1)
