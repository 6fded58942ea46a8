"""One suite over every engine, each in its child: same ids, same log-probabilities, sound draws.

The policy's folder carries a poisonous generation_config.json: whoever reads sampling from it fails here. The
`openai` engine asks a real `vllm serve`, started with that folder's sampling defaults in force.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from selfreward.engines.client import EngineClient
from selfreward.errors import BadInput, SelfRewardError
from selfreward.protocols import Choice, Completion, Request, Sampling, Scored
from tests.conftest import make_tiny_policy
from tests.test_engine import _adapter
from tests.vllm_server import vllm_serve

ENGINES = ("transformers", "vllm", "openai")
CHATS = [
    [{"role": "user", "content": f"{word} the {thing}, please."}]
    for word in ("Name", "Draw", "Count")
    for thing in ("sky", "sea, all of it and what lives there", "one")
]
POISON = {"temperature": 0.01, "top_k": 1, "top_p": 0.1, "repetition_penalty": 5.0, "do_sample": True}
NEAR = 1e-3  # nats; float32 in both engines


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_policy(tmp_path_factory.mktemp("parity"), head_dim=32)
    config = folder / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | POISON))
    return folder


@pytest.fixture(scope="module")
def adapters(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    return [_adapter(folder / str(seed), policy, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def engines(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EngineClient]]:
    """The engines that are installed here, each a child process."""
    logs = tmp_path_factory.mktemp("logs")
    there = [e for e in ENGINES if e == "transformers" or importlib.util.find_spec("vllm")]
    own = {"dtype": "float32", "batch": 32, "threads": 2}
    settings: dict[str, dict[str, Any]] = {
        "transformers": own,
        "vllm": own | {"lora_rank": 4, "kv_cache_gib": 0.25, "context": 512},
    }
    with ExitStack() as open_here:
        if "openai" in there:
            settings["openai"] = {"url": open_here.enter_context(vllm_serve(policy, logs / "server.log"))}
        found = {e: EngineClient(e, {"model": str(policy)} | settings[e], logs / f"{e}.log") for e in there}
        yield found
        for engine in found.values():
            engine.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, engines: dict[str, EngineClient]) -> EngineClient:
    if request.param not in engines:
        pytest.skip("vllm is not installed: `make install` brings it")
    return engines[request.param]


@pytest.fixture
def reference(engines: dict[str, EngineClient]) -> EngineClient:
    return engines["transformers"]


def ask(n: int, adapter: str | None = None, **sampling: float) -> list[Request]:
    options = Sampling(max_new_tokens=12, **sampling)
    return [Request(CHATS[i % len(CHATS)], 100 + i, options, adapter) for i in range(n)]


def gap(left: list[list[float]], right: list[list[float]]) -> float:
    return max(abs(a - b) for xs, ys in zip(left, right, strict=True) for a, b in zip(xs, ys, strict=True))


def scored(engine: EngineClient, found: list[Completion], adapter: str | None) -> list[Scored]:
    prompts = engine.chat_ids([CHATS[i % len(CHATS)] for i in range(len(found))])
    return [Scored(p, c.token_ids, adapter) for p, c in zip(prompts, found, strict=True)]


def test_a_chat_is_the_same_token_ids_in_every_engine(engine: EngineClient, reference: EngineClient) -> None:
    assert engine.chat_ids(CHATS) == reference.chat_ids(CHATS)
    assert engine.answer_ids(["Yes.", "No"]) == reference.answer_ids(["Yes.", "No"])


@pytest.mark.parametrize("which", [None, 0, 1])
def test_given_tokens_get_the_same_log_probabilities(
    engine: EngineClient, reference: EngineClient, adapters: list[str], which: int | None
) -> None:
    adapter = None if which is None else adapters[which]
    rows = scored(reference, reference.generate(ask(9)), adapter)
    found = engine.token_logprobs(rows)
    assert [len(r) for r in found] == [len(r.completion_ids) for r in rows]
    assert gap(found, reference.token_logprobs(rows)) < NEAR


def test_an_adapter_takes_effect_and_no_other(engine: EngineClient, adapters: list[str]) -> None:
    """All four policies in one block: each request wears its own."""
    base = scored(engine, engine.generate(ask(9)), None)
    worn = [None, *adapters]
    mixed = [Scored(s.prompt_ids, s.completion_ids, a) for s in base for a in worn]
    together = engine.token_logprobs(mixed)
    for k, adapter in enumerate(worn):
        alone = engine.token_logprobs([Scored(s.prompt_ids, s.completion_ids, adapter) for s in base])
        assert gap(together[k :: len(worn)], alone) < NEAR
        assert adapter is None or gap(alone, together[:: len(worn)]) > 0.1


def test_choices_get_exact_log_probabilities_whatever_their_length(
    engine: EngineClient, reference: EngineClient, adapters: list[str]
) -> None:
    """Here " 1" is one token, " 10" that token and another, " zebra" six: all from the same distribution."""
    choices = (" 1", " 2", " 10", " zebra", " 1st")
    block = [Choice(chat, "Score:", choices, a) for chat in CHATS for a in (None, adapters[0])]
    found, wanted = engine.choice_logprobs(block), reference.choice_logprobs(block)
    assert all(
        f is not None and w is not None and gap([f], [w]) < NEAR for f, w in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("worn", [False, True])
def test_greedy_answers_agree_up_to_the_first_near_tie(
    engine: EngineClient, reference: EngineClient, adapters: list[str], worn: bool
) -> None:
    """90 requests in batches of 32: some rows begin while others go on."""
    adapter = adapters[0] if worn else None
    requests = ask(90, adapter, temperature=0.0)
    prompts = reference.chat_ids([r.messages for r in requests])
    for prompt, a, b in zip(prompts, engine.generate(requests), reference.generate(requests), strict=True):
        same = next(
            (k for k, (x, y) in enumerate(zip(a.token_ids, b.token_ids, strict=False)) if x != y), None
        )
        if same is None:
            assert a.token_ids == b.token_ids
            continue
        ends = [Scored(prompt, c.token_ids[: same + 1], adapter) for c in (a, b)]
        (x, y) = (row[-1] for row in reference.token_logprobs(ends))
        assert abs(x - y) < NEAR, "the engines part where one token is clearly likelier"


def test_a_seed_draws_the_same_again_and_another_seed_another(engine: EngineClient) -> None:
    first, again = engine.generate(ask(18)), engine.generate(ask(18))
    assert [c.token_ids for c in first] == [c.token_ids for c in again]
    assert first[0].token_ids != first[9].token_ids  # the same chat with another seed


def test_draws_follow_the_stated_distribution_and_nothing_of_the_model_folder(engine: EngineClient) -> None:
    """600 first tokens of one chat at T = 1 against their exact probabilities, with top_k = 3 and without.

    Of the three likeliest tokens each count lies within five standard deviations of its mean; the folder's
    top_k = 1 would draw one token only, and vLLM's default of it would too.
    """
    n = 600
    one = Sampling(max_new_tokens=1)
    drawn = engine.generate([Request(CHATS[0], seed, one) for seed in range(n)])
    counts = Counter(c.token_ids[0] for c in drawn)
    (prompt,) = engine.chat_ids([CHATS[0]])
    likely = [t for t, _ in counts.most_common(3)]
    exact = engine.token_logprobs([Scored(prompt, (t,)) for t in likely])
    for token, (logprob,) in zip(likely, exact, strict=True):
        p = math.exp(logprob)
        assert abs(counts[token] - n * p) < 5 * math.sqrt(n * p * (1 - p))
    three = Sampling(max_new_tokens=1, top_k=3)
    few = engine.generate([Request(CHATS[0], seed, three) for seed in range(60)])
    assert len({c.token_ids[0] for c in few}) == 3


def test_every_stop_id_ends_an_answer_and_belongs_to_it(engine: EngineClient, policy: Path) -> None:
    """The folder names 27 stop ids; an answer ends at the first of them, or is cut at 12 tokens."""
    stops = set(json.loads((policy / "generation_config.json").read_text())["eos_token_id"])
    found = engine.generate(ask(60))
    for c in found:
        assert not stops & set(c.token_ids[:-1])
        assert (c.finish == "stop") == (c.token_ids[-1] in stops)
        assert c.finish == "stop" or len(c.token_ids) == 12
    assert len({c.token_ids[-1] for c in found if c.finish == "stop"}) > 1


@pytest.mark.parametrize("worn", [False, True])
def test_the_mean_log_probability_is_of_the_untempered_distribution(
    engine: EngineClient, adapters: list[str], worn: bool
) -> None:
    adapter = adapters[1] if worn else None
    found = engine.generate(ask(90, adapter, temperature=0.5, top_p=0.8))
    rows = engine.token_logprobs(scored(engine, found, adapter))
    for completion, row in zip(found, rows, strict=True):
        assert completion.mean_logprob == pytest.approx(sum(row) / len(row), abs=NEAR)


def test_a_chat_without_room_for_its_answer_is_a_fault_and_the_rest_goes_on(engine: EngineClient) -> None:
    long = [{"role": "user", "content": "word " * 1200}]
    sampling = Sampling(max_new_tokens=8)
    found = engine.generate([Request(CHATS[0], 1, sampling), Request(long, 2, sampling)])
    assert (found[0].fault, found[1].text, found[1].fault) == (None, None, "too_long")
    few, none = engine.choice_logprobs([Choice(c, "Score:", (" 1", " 2")) for c in (CHATS[0], long)])
    assert few is not None and none is None


def test_a_server_refuses_what_it_cannot_serve_in_one_line(
    engines: dict[str, EngineClient], policy: Path, tmp_path: Path
) -> None:
    """Another base under another name, and an adapter of rank 16 where the server takes 8."""
    if "openai" not in engines:
        pytest.skip("vllm is not installed: `make install` brings it")
    url = engines["openai"]._settings["url"]
    other = EngineClient(
        "openai", {"model": str(make_tiny_policy(tmp_path / "other")), "url": url}, tmp_path / "log"
    )
    wide = EngineClient("openai", {"model": str(policy), "url": url}, tmp_path / "log")
    worn = _adapter(tmp_path / "wide", policy, 1, rank=16)
    with pytest.raises(BadInput, match=r"serves .*, not .*other, the recipe's model"):
        other.generate(ask(1))
    with pytest.raises(SelfRewardError, match=r"--max-lora-rank 16, where it can read"):
        wide.generate(ask(1, worn))
    assert wide.generate(ask(1))[0].fault is None  # the server is well still
    other.close()
    wide.close()


@pytest.mark.parametrize("name", ["vllm", "openai"])
def test_a_stream_is_what_generate_returns_in_any_order(engines: dict[str, EngineClient], name: str) -> None:
    if name not in engines:
        pytest.skip("vllm is not installed: `make install` brings it")
    requests = ask(18)
    found = list(engines[name].stream(requests))
    assert sorted(i for i, _ in found) == list(range(18))
    whole = engines[name].generate(requests)
    assert all(whole[i].token_ids == c.token_ids for i, c in found)
