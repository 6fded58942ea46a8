"""Scorers besides the judge: each worked by hand, and what holds for it on any candidates."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.errors import BadInput, RecipeError
from selfreward.protocols import Answer, Message, Question, Scored, TokenStat, Verdict
from selfreward.recipe import Recipe
from selfreward.recipe_file import parse
from selfreward.scorers.implicit import ImplicitScorer, consistency
from selfreward.scorers.majority import MajorityScorer
from selfreward.scorers.reading import right_answer, stated
from selfreward.scorers.reward_model import RewardModelScorer
from selfreward.scorers.rlif import RlifScorer
from selfreward.scorers.rlpr import RlprScorer, reasoning
from selfreward.scorers.rule import RuleScorer
from tests.test_scorers import ScriptedEngine

universal = settings(deadline=None, derandomize=True, max_examples=200)
ASKED: list[Message] = [{"role": "user", "content": "What is 3 + 4? I say 8."}]


def question(*texts: str, reference: str | None = "7", finish: str = "stop") -> Question:
    answers = [Answer(t, finish, i, tuple(map(ord, t))) for i, t in enumerate(texts)]
    return Question(ASKED, answers, reference)


def scores(verdicts: list[list[list[Verdict]]]) -> list[float | None]:
    """The one verdict of each candidate of one question."""
    (group,) = verdicts
    assert all(len(v) == 1 for v in group)
    return [v[0].score for v in group]


def faults(verdicts: list[list[list[Verdict]]]) -> list[str | None]:
    return [v[0].fault for v in verdicts[0]]


# the rule

SUMS = ("3 + 4 = 7", "The answer is **7**.", "It is 8.", "7 or 8", "I do not know.", "")


def test_a_right_answer_is_worth_1_a_wrong_one_a_tenth_and_none_nothing() -> None:
    """ReFT. "7 or 8" states an answer that is not one: wrong, not none."""
    assert scores(RuleScorer("reft").score([question(*SUMS)])) == [1, 1, 0.1, 0.1, 0, 0]
    assert scores(RuleScorer("accuracy").score([question(*SUMS)])) == [1, 1, 0, 0, 0, 0]


def test_an_answer_that_was_cut_off_states_none() -> None:
    assert scores(RuleScorer("reft").score([question("3 + 4 = 7", finish="length")])) == [0]


@pytest.mark.parametrize("reference", [None, "", "no number"])
def test_without_a_reference_there_is_a_fault_and_no_score(reference: str | None) -> None:
    """Guards: an unknown truth that makes every candidate wrong."""
    found = RuleScorer("reft").score([question("7", "8", reference=reference)])
    assert scores(found) == [None, None] and set(faults(found)) == {"no_reference"}


texts = st.text(alphabet="0123456789 .-/abis=*<>\n", max_size=30)


@given(candidates=st.lists(texts, min_size=1, max_size=5), reference=st.integers(-99, 99), order=st.randoms())
@universal
def test_a_rules_verdict_belongs_to_the_candidate_and_is_1_for_the_right_answer_alone(
    candidates: list[str], reference: int, order: random.Random
) -> None:
    rule = RuleScorer("reft")
    found = scores(rule.score([question(*candidates, reference=str(reference))]))
    right = [stated("number", c).value == Fraction(reference) for c in candidates]
    assert [s == 1 for s in found] == right and set(found) <= {0, 0.1, 1}
    mixed = sorted(range(len(candidates)), key=lambda _: order.random())
    again = scores(rule.score([question(*(candidates[i] for i in mixed), reference=str(reference))]))
    assert again == [found[i] for i in mixed]


def test_words_are_compared_where_the_answer_is_text() -> None:
    texts = ("Paris", "The answer is **Paris.**", "London", "I think\nthe answer is: paris!")
    assert scores(RuleScorer("accuracy", "text").score([question(*texts, reference="paris")])) == [1, 1, 0, 1]
    assert right_answer("text", "Paris.") == "paris"


def test_what_stands_in_the_answer_tag_is_the_answer() -> None:
    two = ("<think>3 + 5 = 8</think><answer>7</answer> of 9", "<answer></answer> 7")
    assert scores(RuleScorer("accuracy").score([question(*two)])) == [1, 1]


GOOD = "<think>\nthree and four\n</think>\n<answer>\n7\n</answer>"


def test_the_form_is_all_or_nothing_and_the_tags_a_quarter_each() -> None:
    """Tags once each: 4/4; answer tags alone 2/4; </answer> twice leaves 3/4."""
    forms = (GOOD, "<answer>7</answer>", GOOD + "</answer>", "7", "first " + GOOD)
    assert scores(RuleScorer("format").score([question(*forms)])) == [1, 0, 0, 0, 0]
    assert scores(RuleScorer("tag_count").score([question(*forms)])) == [1, 0.5, 0.75, 0, 1]


def test_three_marks_of_a_step_are_a_whole_reasoning() -> None:
    """Two numbered lines and "Finally," are 3 of 3; one "First," 1/3; "Step 2" inside a line is none."""
    three = "1. add\n2) carry\nFinally, 7."
    four = three + "\n- done"
    group = question(three, four, "First, 7", "in Step 2", "")
    assert scores(RuleScorer("reasoning_steps").score([group])) == [1, 1, pytest.approx(1 / 3), 0, 0]


def test_the_shorter_right_answer_gains_and_a_wrong_one_never_does() -> None:
    """1, 3 and 5 tokens: ½, 0, −½. Wrong ones get at most 0: the short wrong one 0, the long one −½."""
    assert scores(RuleScorer("length").score([question("7", "= 7", "so, 7")])) == [0.5, 0, -0.5]
    assert scores(RuleScorer("length").score([question("8", "= 7", "so, 9")])) == [0, 0, -0.5]
    assert scores(RuleScorer("length").score([question("7", "8")])) == [0, 0]


# the majority


def test_the_plurality_is_taken_for_right() -> None:
    found = MajorityScorer().score([question("7", "is 7", "7.0", "8", "no idea", reference=None)])
    assert scores(found) == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("group", [("7", "7", "8", "8"), ("7", "8", "9"), ("no", "none", "never"), ("7",)])
def test_a_group_without_a_majority_has_no_scores(group: tuple[str, ...]) -> None:
    """Guards: ties that go to the first, and a consensus of one."""
    found = MajorityScorer().score([question(*group)])
    assert set(scores(found)) == {None} and set(faults(found)) == {"no_majority"}


@given(votes=st.lists(st.sampled_from(["7", "8", "9", "?"]), min_size=1, max_size=7), order=st.randoms())
@universal
def test_the_majority_does_not_depend_on_the_order(votes: list[str], order: random.Random) -> None:
    found = scores(MajorityScorer().score([question(*votes)]))
    mixed = sorted(range(len(votes)), key=lambda _: order.random())
    assert scores(MajorityScorer().score([question(*(votes[i] for i in mixed))])) == [found[i] for i in mixed]
    most = max(votes.count(v) for v in ("7", "8", "9"))
    assert None in found or sum(s or 0 for s in found) == most


# the log-ratio


@dataclass
class Telling(ScriptedEngine):
    """An engine that tells what each token is worth to each adapter."""

    worth: Callable[[Scored, int], float] = lambda scored, token: -1.0
    scored: list[Scored] = field(default_factory=list)

    def token_logprobs(self, block: Sequence[Scored]) -> list[list[float]]:
        """Log p of each token, by `worth`."""
        self.scored += block
        return [[self.worth(s, t) for t in s.completion_ids] for s in block]


def telling(worth: Callable[[Scored, int], float]) -> Telling:
    return Telling(lambda chat: {"": 1.0}, worth=worth)


def test_the_implicit_reward_is_the_log_ratio_of_the_whole_answer() -> None:
    """Two tokens: M2 −1 and −1, M0 −2 and −4, M1 −2 and −3: M2/M0 = 4, M1/M0 = 1."""
    table = {"M2": {97: -1.0, 98: -1.0}, None: {97: -2.0, 98: -4.0}, "M1": {97: -2.0, 98: -3.0}}
    engine = telling(lambda s, t: table[s.adapter][t])
    ((group,),) = (ImplicitScorer(engine, "M2", "M1").score([question("ab", "a")]),)
    assert [v[0].score for v in group] == [4, 1]
    assert [v[0].detail for v in group] == [{"previous": 1}, {"previous": 0}]
    assert all(s.prompt_ids == [ord(c) for c in ASKED[0]["content"]] for s in engine.scored)


@given(worths=st.lists(st.floats(-9, 0), min_size=2, max_size=2), candidates=st.lists(texts, max_size=4))
@universal
def test_a_policy_that_is_the_base_prefers_nothing(worths: list[float], candidates: list[str]) -> None:
    engine = telling(lambda s, t: worths[t % 2])
    assert scores(ImplicitScorer(engine, None).score([question(*candidates)])) == [0] * len(candidates)


def test_a_log_probability_that_is_no_number_is_a_fault() -> None:
    engine = telling(lambda s, t: -math.inf if s.adapter else -1.0)
    assert faults(ImplicitScorer(engine, "M1").score([question("a")])) == ["not_finite"]


def test_consistency_is_the_share_of_agreement_between_two_rankings() -> None:
    """Alike: τ 1, C 1. Reversed: C 0. One neighbour swapped of four: τ = (5 − 1)/6, C = 5/6; mean 11/18."""
    alike, swapped = (
        [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)],
        [(1.0, 2.0), (2.0, 1.0), (3.0, 3.0), (4.0, 4.0)],
    )
    reverse = [(a, -b) for a, b in alike]
    for groups, expected in (([alike], 1.0), ([reverse], 0.0), ([alike, swapped, reverse], 11 / 18)):
        found = consistency(groups)
        assert found is not None and found.value == pytest.approx(expected) and found.n == len(groups)
    assert consistency([[(1.0, 5.0), (2.0, 5.0)], [(1.0, 1.0)], []]) is None


# being sure


def test_sureness_is_a_mean_over_the_answers_tokens() -> None:
    """Certainties 1 and 3: 2. Entropies 0.5 and 1.5: −1. Log-probabilities −1 and −2: −1.5."""
    told = [TokenStat(-1.0, 0.5, 1.0), TokenStat(-2.0, 1.5, 3.0)]
    for measure, expected in (("self_certainty", 2), ("token_entropy", -1), ("trajectory_entropy", -1.5)):
        scorer = RlifScorer(
            ScriptedEngine(lambda c: {}).chat_ids, lambda block: [told for _ in block], None, measure
        )
        assert scores(scorer.score([question("ab", "cd")])) == [expected, expected]


def test_an_answer_without_tokens_is_a_fault() -> None:
    scorer = RlifScorer(
        ScriptedEngine(lambda c: {}).chat_ids, lambda block: [[] for _ in block], None, "self_certainty"
    )
    assert faults(scorer.score([question("")])) == ["no_tokens"]


def test_a_distributions_entropy_and_distance_from_uniform_are_those_of_the_formula() -> None:
    """With p = ⅝, ⅛, ⅛, ⅛: H = ⅝·ln 8/5 + ⅜·ln 8; KL(U ‖ p) = −ln 4 + ¼·(ln 8/5 + 3·ln 8) = ¼·ln 16/5.

    KL(p ‖ U), which it is not, would be ln 4 − H = 0.313.
    """
    import torch

    from selfreward.engines.transformers_engine import _of_distributions

    (found,) = _of_distributions(torch.tensor([[0.625, 0.125, 0.125, 0.125]]).log(), torch.tensor([1]))
    assert found.logprob == pytest.approx(-math.log(8))
    assert found.entropy == pytest.approx(0.625 * math.log(1.6) + 0.375 * math.log(8), rel=1e-5)
    assert found.certainty == pytest.approx(0.25 * math.log(3.2), rel=1e-5)


def test_the_engine_tells_of_each_token_what_it_would_score_it(tiny_policy: Path) -> None:
    from selfreward.engines.transformers_engine import TransformersEngine

    engine = TransformersEngine(str(tiny_policy), dtype="float32", threads=1)
    block = [Scored([1, 40, 41], [50, 51, 52, 2]), Scored([1, 60], [61])]
    told, plain = engine.token_stats(block), engine.token_logprobs(block)
    assert [[t.logprob for t in row] for row in told] == plain
    most = math.log(engine.model.config.vocab_size)
    assert all(0 < t.entropy <= most and t.certainty >= 0 for row in told for t in row)


# the reference's probability


def test_a_reasoning_is_worth_what_it_adds_to_the_references_probability() -> None:
    """The reference 7 after reasoning: p 0.8 and 0.6, mean 0.7; without: 0.3 and 0.1, mean 0.2; 0.5 more."""

    def worth(scored: Scored, token: int) -> float:
        helped = "4" in "".join(map(chr, scored.prompt_ids[len(ASKED[0]["content"]) :]))
        return math.log({(True, 32): 0.8, (True, 55): 0.6, (False, 32): 0.3, (False, 55): 0.1}[helped, token])

    texts = ("3 + 4\nAnswer: 8", "Answer: 8", "4 it is")
    found = RlprScorer(telling(worth), "M1", "Answer:").score([question(*texts)])
    assert scores(found) == [pytest.approx(0.5), 0, pytest.approx(0.5)]
    assert found[0][0][0].detail == {"with": pytest.approx(0.7), "without": pytest.approx(0.2)}


def test_the_candidates_own_answer_is_not_what_is_read() -> None:
    """What follows the opening is taken away: a candidate that states the reference gains nothing by it."""
    assert reasoning("3 + 4\nAnswer: 7 sure", "Answer:") == "3 + 4\nAnswer:"
    assert reasoning("so 7 ", "Answer:") == "so 7\nAnswer:"


@given(table=st.lists(st.floats(0.01, 1), min_size=3, max_size=3), candidates=st.lists(texts, max_size=4))
@universal
def test_the_references_reward_lies_between_0_and_1(table: list[float], candidates: list[str]) -> None:
    engine = telling(lambda s, t: math.log(table[len(s.prompt_ids) % 3]))
    found = scores(RlprScorer(engine, None, "A:").score([question(*candidates)]))
    assert all(s is not None and 0 <= s <= 1 for s in found)
    same = telling(lambda s, t: -1.0)
    assert scores(RlprScorer(same, None, "A:").score([question(*candidates)])) == [0] * len(candidates)


def test_a_probability_that_is_no_number_is_a_fault() -> None:
    engine = telling(lambda s, t: math.nan)
    assert faults(RlprScorer(engine, None, "A:").score([question("a", "b")])) == ["not_finite"] * 2


def test_where_one_prompt_has_no_reference_the_others_keep_their_verdicts() -> None:
    """Guards: skipped rows dropped from one list and not from the other."""
    engine = telling(lambda s, t: -1.0 if len(s.prompt_ids) < 40 else -0.5)
    two = RlprScorer(engine, None, "A:").score([question("a", "b", reference=None), question("x" * 30, "y")])
    assert [v[0].fault for v in two[0]] == ["no_reference"] * 2
    assert [round(v[0].score or 0, 3) for v in two[1]] == [round(math.exp(-0.5) - math.exp(-1), 3), 0]


# the reward model


def make_classifier(folder: Path, policy: Path, labels: int = 1) -> Path:
    """The tiny policy's body with a head of one number."""
    import shutil

    import torch
    from transformers import AutoConfig, LlamaForSequenceClassification

    shutil.copytree(policy, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(policy, num_labels=labels)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def chat(answer: str) -> list[Message]:
    return [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": answer}]


def test_a_reward_model_gives_each_chat_its_own_number(tiny_policy: Path, tmp_path: Path) -> None:
    """Alone or beside longer ones; control tokens in a text are text."""
    from selfreward.engines.reward_model import RewardModel, is_classifier

    folder = make_classifier(tmp_path / "rm", tiny_policy)
    assert is_classifier(folder) and not is_classifier(tiny_policy)
    model = RewardModel(str(folder), dtype="float32", batch=2, threads=1)
    chats = [chat("a"), chat("a much longer answer than that"), chat("b"), chat("x" * 5000)]
    found = model.rewards(chats)
    assert found[3] is None and len({round(f, 4) for f in found[:3] if f is not None}) == 3
    alone = [model.rewards([c])[0] for c in chats[:3]]
    assert alone == pytest.approx(found[:3], abs=1e-5)
    turn = model._ids(chat("</s><|im_end|>\n<|im_start|>user\nbe kind"))
    assert turn.count(2) == 2  # one end for each of the two turns, none for what stands in a text
    with pytest.raises(BadInput, match="3 numbers"):
        RewardModel(str(make_classifier(tmp_path / "three", tiny_policy, 3)), threads=1)


def test_a_reward_model_without_a_template_reads_request_and_answer_as_two_texts(
    tiny_policy: Path, tmp_path: Path
) -> None:
    """An encoder, which sees in both directions: what fills a row up must not be seen."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from selfreward.engines.reward_model import RewardModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(2)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(tokenizer), num_labels=1, initializer_range=0.5, pad_token_id=2, **shape
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    model = RewardModel(str(tmp_path), dtype="float32", batch=3, threads=1)
    chats = [chat("a"), chat("a much longer answer than that"), chat("b")]
    alone = [model.rewards([c])[0] for c in chats]
    assert model.rewards(chats) == pytest.approx(alone, abs=1e-5) and len({*alone}) == 3
    assert model._ids(chat("a")) == tokenizer("Hello", "a")["input_ids"]


def test_a_chat_the_reward_model_cannot_read_is_a_fault_beside_its_neighbours() -> None:
    told: list[float | None] = [1.5, None, math.nan]
    scorer = RewardModelScorer(lambda chats: told[: len(chats)])
    found = scorer.score([question("a", "b", "c")])
    assert scores(found) == [1.5, None, None] and faults(found) == [None, "too_long", "not_finite"]


# the recipe


def recipe(*rewards: dict[str, Any], **others: Any) -> Recipe:
    return parse({"model": "m", "rewards": list(rewards), **others}, "r.yaml")


@pytest.mark.parametrize(
    ("rewards", "told"),
    [
        ([{"type": "rlif"}], "rlif as the only reward"),
        ([{"type": "rlif"}, {"type": "judge", "role": "diagnostic"}], "rlif as the only reward"),
        ([{"type": "rule"}, {"type": "rule", "check": "format"}], "two rewards are called rule"),
        ([{"type": "judge", "role": "gate"}, {"type": "rule"}], "judge cannot be a gate"),
        ([{"type": "rule", "check": "length", "role": "gate"}, {"type": "judge"}], "rule cannot be a gate"),
        ([{"type": "rule", "role": "gate"}], "no reward has the role score"),
        ([{"type": "external", "url": "ftp://x", "model": "m"}], "no http address"),
        ([{"type": "external", "url": "https://x/v1", "model": "m", "api_key_env": "sk-1"}], "in capitals"),
        ([{"type": "judge", "weight": 0}], "weight"),
    ],
)  # fmt: skip
def test_rewards_that_cannot_be_meant_are_refused(rewards: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        recipe(*rewards)


def test_being_sure_may_break_ties_or_be_chosen_knowingly() -> None:
    assert recipe({"type": "rlif", "i_know": True})
    assert recipe({"type": "judge"}, {"type": "rlif", "role": "tie_break"})


def test_settings_as_they_always_were_change_no_older_run() -> None:
    """Guards: every run made before refuses to go on, because a new key is in what it was made from."""
    (length,) = recipe({"type": "length"}).rewards
    assert list(length.decided.items()) == [("type", "length"), ("low", 8), ("best", 16), ("high", 25)]
    (judge,) = recipe({"type": "judge"}).rewards
    assert judge.decided == {"type": "judge"} and judge.called == "judge"
    (own,) = recipe({"type": "judge", "name": "mine", "weight": 2}).rewards
    assert own.decided == {"type": "judge", "name": "mine", "weight": 2} and own.called == "mine"
