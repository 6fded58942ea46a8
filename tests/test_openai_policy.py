"""Policies behind a server: token ids or nothing, the recipe's model or nothing; limits lose no work."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from selfreward.engines.openai_engine import OpenaiEngine
from selfreward.errors import BadInput
from selfreward.protocols import Choice, Completion, Request, Sampling, Scored
from selfreward.recipe_file import parse
from selfreward.stages.work import Work
from tests.misbehaving import Behave, Reply, Server, drawn, models, policy, refusal, serving
from tests.runner import command, iterate, query, write_recipe

STOP = 2  # <|im_end|> of the tiny policy
CHAT = [{"role": "user", "content": "Name a fruit."}]
POST = "/completions"


@contextmanager
def engine_on(behave: Behave, model: Path, **settings: Any) -> Iterator[tuple[OpenaiEngine, Server]]:
    with serving(behave) as server:
        engine = OpenaiEngine(str(model), url=server.url, **{"patience": 0.001, "timeout": 10.0} | settings)
        try:
            yield engine, server
        finally:
            engine.close()


def changed(model: Path, **choice: Any) -> Behave:
    """A sound server whose choices have some fields changed."""
    sound = policy(str(model), STOP)

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        reply = sound(path, body, n)
        if path == POST:
            reply.body["choices"][0] |= choice
        return reply

    return behave


def draw(n: int, **more: Any) -> list[Request]:
    return [Request(CHAT, seed, Sampling(0.7, 0.9, 0, 12), **more) for seed in range(n)]


def test_token_ids_go_out_and_come_back_and_all_sampling_is_stated(tiny_policy: Path) -> None:
    with engine_on(policy(str(tiny_policy), STOP), tiny_policy) as (engine, server):
        found = engine.generate(draw(5))
        bodies = {b["seed"]: b for b in server.bodies(POST)}
        (prompt,) = engine.chat_ids([CHAT])
    for seed, completion in enumerate(found):
        body = bodies[seed]
        assert body["prompt"] == prompt
        assert list(completion.token_ids) == drawn(body, STOP)["choices"][0]["token_ids"]
        assert completion.text == engine.chat.decode(completion.token_ids)
        assert (completion.finish, completion.mean_logprob) == ("stop", -1.5)
        stated = ("temperature", "top_p", "top_k", "max_tokens", "min_p", "repetition_penalty")
        assert [body[k] for k in stated] == [0.7, 0.9, 0, 12, 0.0, 1.0]
        assert (body["presence_penalty"], body["frequency_penalty"], body["watermarking"]) == (
            0.0,
            0.0,
            False,
        )
        assert set(body["stop_token_ids"]) == engine.chat.stop_ids and body["ignore_eos"]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"token_ids": None}, "gives no token ids: a policy needs a server that does"),
        ({"prompt_token_ids": [0, 1, 2]}, "answers another prompt"),
        ({"token_ids": [100, 110], "finish_reason": "stop"}, "stops at token 110, which ends no answer"),
    ],
)
def test_a_server_that_does_not_keep_to_the_token_ids_is_refused(
    tiny_policy: Path, choice: dict[str, Any], told: str
) -> None:
    changes = engine_on(changed(tiny_policy, **choice), tiny_policy)
    with changes as (engine, _), pytest.raises(BadInput, match=rf"^127.0.0.1:\d+ {told}"):
        engine.generate(draw(1))


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"token_ids": [100] * 5, "finish_reason": "length"}, "too_long"),  # of 12 that were asked for
        ({"logprobs": {"token_logprobs": [math.inf] * 7}}, "not_finite"),
        ({"logprobs": {"token_logprobs": [-1.0]}}, "malformed_reply"),
        ({"token_ids": []}, "malformed_reply"),
        ({"finish_reason": "abort"}, "malformed_reply"),
    ],
)
def test_an_answer_that_is_not_whole_is_a_fault(
    tiny_policy: Path, choice: dict[str, Any], found: str
) -> None:
    with engine_on(changed(tiny_policy, **choice), tiny_policy) as (engine, _):
        assert engine.generate(draw(1)) == [Completion(None, fault=found)]


def test_an_answer_cut_at_the_length_that_was_asked_for_is_cut_and_no_fault(tiny_policy: Path) -> None:
    with engine_on(policy(str(tiny_policy), STOP), tiny_policy) as (engine, _):
        (found,) = engine.generate([Request(CHAT, 1, Sampling(max_new_tokens=4))])
        assert (found.finish, len(found.token_ids)) == ("length", 4)


def test_what_exceeds_the_server_s_context_is_never_sent(tiny_policy: Path) -> None:
    with engine_on(policy(str(tiny_policy), STOP, context=80), tiny_policy) as (engine, server):
        (prompt,) = engine.chat_ids([CHAT])
        room = 80 - len(prompt)
        fits = Request(CHAT, 1, Sampling(max_new_tokens=room))
        found = engine.generate([fits, Request(CHAT, 1, Sampling(max_new_tokens=room + 1))])
        assert found[0].fault is None and found[1] == Completion(None, fault="too_long")
        assert len(server.bodies(POST)) == 1
        with pytest.raises(BadInput, match="do not fit a context of 80"):
            engine.token_logprobs([Scored([1] * 60, [2] * 20)])


def test_a_choice_the_server_does_not_cover_is_refused_and_never_guessed(tiny_policy: Path) -> None:
    some = {"token_logprobs": [-1.0], "top_logprobs": [{"token_id:259": -0.1}]}
    question = Choice(CHAT, "Score:", (" 1", " 2", " 3"))
    partly = engine_on(changed(tiny_policy, logprobs=some), tiny_policy)
    with partly as (engine, _), pytest.raises(BadInput, match="does not give the log-probability of token"):
        engine.choice_logprobs([question])
    with engine_on(policy(str(tiny_policy), STOP), tiny_policy) as (engine, server):
        (row,) = engine.choice_logprobs([question])
        (body,) = server.bodies(POST)
        assert row is not None and len(row) == 3 and len(body["logprob_token_ids"]) == 3


def test_a_server_that_cannot_score_given_tokens_is_refused(tiny_policy: Path) -> None:
    mute = engine_on(changed(tiny_policy, prompt_logprobs=None), tiny_policy)
    with mute as (engine, _), pytest.raises(BadInput, match="does not score given tokens"):
        engine.token_logprobs([Scored([1, 2], [3])])


@pytest.mark.parametrize(
    ("card", "settings", "fits"),
    [
        ({"id": "any", "root": "HERE"}, {}, True),
        ({"id": "any", "root": "/elsewhere/NAME"}, {}, True),
        ({"id": "NAME"}, {}, True),
        ({"id": "org/base"}, {"known_as": ["org/base", "base"]}, True),
        ({"id": "any", "root": "/hub/models--org--base/snapshots/abc"}, {"known_as": ["org/base"]}, True),
        ({"id": "any", "root": "/models/llama"}, {}, False),
        ({"id": "any"}, {}, False),
        ({"id": "any"}, {"served_model": "any"}, True),  # it says nothing of itself, and the user does
        ({"id": "any", "root": "HERE"}, {"served_model": "any"}, True),
        ({"id": "any", "root": "/models/llama"}, {"served_model": "any"}, False),  # an alias of another base
        ({"id": "any", "root": "HERE"}, {"served_model": "other"}, False),
        ({"id": "lora", "root": "HERE", "parent": "any"}, {}, False),
    ],
)
def test_only_a_server_of_the_recipe_s_base_is_asked(
    tiny_policy: Path, card: dict[str, Any], settings: dict[str, Any], fits: bool
) -> None:
    names = {
        "HERE": str(tiny_policy),
        "/elsewhere/NAME": f"/elsewhere/{tiny_policy.name}",
        "NAME": tiny_policy.name,
    }
    card = {k: names.get(v, v) for k, v in card.items()}
    sound = policy("", STOP)

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        return models(card) if path == "/models" else sound(path, body, n)

    with engine_on(behave, tiny_policy, **settings) as (engine, server):
        if fits:
            assert engine.generate(draw(1))[0].fault is None
            assert server.bodies(POST)[0]["model"] == card["id"]
            return
        with pytest.raises(BadInput, match=r"^127.0.0.1:\d+ serves .*, not .*, the recipe's model: start it"):
            engine.generate(draw(1))
        assert not server.bodies(POST)


def lora(folder: Path, r: int = 4) -> str:
    """What the engine reads of an adapter: its weights' hash and its rank."""
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps({"r": r}))
    return str(folder)


def test_an_adapter_is_loaded_once_under_a_name_never_used_before(tiny_policy: Path, tmp_path: Path) -> None:
    """Two engines load equal weights: a server that lives on would take the second for the first."""
    worn = lora(tmp_path / "a")
    sound, names = policy(str(tiny_policy), STOP), []
    for _ in range(2):
        with engine_on(sound, tiny_policy) as (engine, server):
            engine.generate([*draw(2), *draw(3, adapter=worn)])
            engine.generate(draw(1, adapter=worn))
            (load,) = server.bodies("/load_lora_adapter")
            asked = [b["model"] for b in server.bodies(POST)]
            assert load["lora_path"] == worn
            assert asked == ["served"] * 2 + [load["lora_name"]] * 4  # never two adapters at a time
            names.append(load["lora_name"])
    assert names[0] != names[1]


@pytest.mark.parametrize("status", [404, 400, 500])
def test_an_adapter_the_server_does_not_take_is_one_line_with_the_next_move(
    tiny_policy: Path, tmp_path: Path, status: int
) -> None:
    sound = policy(str(tiny_policy), STOP)

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        return refusal(status, "no such thing") if path == "/load_lora_adapter" else sound(path, body, n)

    with engine_on(behave, tiny_policy) as (engine, server):
        with pytest.raises(Exception, match=r"no such thing: start it with VLLM_ALLOW.*--max-lora-rank 32,"):
            engine.generate(draw(1, adapter=lora(tmp_path / "a", 32)))
        assert len(server.bodies("/load_lora_adapter")) == 1


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({}, "nothing leaves this machine"),
        ({"url": "https://api.example.org/v1"}, "nothing leaves this machine"),  # another engine's
        ({"type": "openai", "url": "http://[::1]:8000/v1"}, "nothing leaves this machine (the engine is a"),
        (
            {"type": "openai", "url": "http://10.1.2.3:8000/v1"},
            "judge texts (as token ids) and adapters' paths go to 10.1.2.3:8000",
        ),
        (
            {"type": "openai", "url": "https://api.example.org/v1", "api_key_env": "MY_KEY"},
            "go to api.example.org with the key in MY_KEY, nothing else",
        ),
    ],
)
def test_the_first_line_says_which_texts_go_to_which_host(
    engine: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    nothing: Any = None
    recipe = parse({"model": "base", "engine": engine}, "mine.yaml")
    said = Work(nothing, nothing, recipe, *[nothing] * 5).destination
    assert told in said and "sk-secret" not in said
    assert ("nothing leaves this machine" in said) == (told.startswith("nothing"))


def served_run(folder: Path, model: Path, url: str, **engine: Any) -> None:
    """A recipe that goes from M0 to the pairs of M1 on a server alone: M1 is the base."""
    (folder / "iterations").mkdir(parents=True)
    words = ["apples", "rivers", "seven stones", "old bridges", "quiet towns", "bread", "winter", "two cats"]
    lines = [f"Tell me something that few people know about {w}." for w in words]
    (folder / "iterations" / "mine.txt").write_text("\n".join(lines))
    write_recipe(
        folder, model,
        engine={"type": "openai", "url": url, "batch": 16, "block": 2, "concurrency": 3} | engine,
        start={"sft": None}, prompts={"from": "mine.txt", "count": 8}, evaluate=None,
    )  # fmt: skip


ROWS = "SELECT id, text, token_ids, n_tokens, finish, mean_logprob, seed, fault FROM candidate ORDER BY id"
VERDICTS = "SELECT candidate_id, sample, score, fault FROM judgement ORDER BY 1, 2"


def test_limits_stop_a_run_at_a_block_s_end_and_it_goes_on_with_what_is_missing(
    tiny_policy: Path, tmp_path: Path
) -> None:
    """15 requests a start: many starts, and still each candidate is asked for once, as without a limit.

    A block is two prompts of three candidates: no start asks for more than three blocks, 18 of the 24.
    """
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with serving(policy(str(tiny_policy), STOP)) as server:
        served_run(whole, tiny_policy, server.url)
        done = iterate(whole, "--from", "M0", "--to", "M2", "--pause-before", "train")
        assert done.returncode == 0, done.stderr
        told = f"nothing leaves this machine (the engine is a server on it, {server.url[7:-3]})"
        assert told in done.stderr + done.stdout
        once = {json.dumps(b, sort_keys=True) for b in server.bodies(POST) if b["max_tokens"] == 32}
        served_run(parts, tiny_policy, server.url, limits={"requests": 15})
        codes: list[int] = []
        asked: list[str] = []
        while not codes or codes[-1] == 130:
            server.asked.clear()
            found = iterate(parts, "--from", "M0", "--to", "M2", "--pause-before", "train")
            now = [json.dumps(b, sort_keys=True) for b in server.bodies(POST) if b["max_tokens"] == 32]
            assert len(now) <= 18
            asked += now
            codes.append(found.returncode)
            assert len(codes) < 20, found.stderr
            if found.returncode == 130:
                assert "engine.limits.requests = 15 is reached after" in found.stderr
        assert codes[-1] == 0, found.stderr
        assert codes.count(130) >= 3
    assert sorted(asked) == sorted(once) and len(once) == 24
    assert query(parts, ROWS) == query(whole, ROWS)
    assert query(parts, VERDICTS) == query(whole, VERDICTS) and len(query(parts, VERDICTS)) == 24


def test_what_came_before_a_server_fell_silent_is_stored(tiny_policy: Path, tmp_path: Path) -> None:
    """It refuses after 20 requests for candidates: prompts that are whole are not answered again.

    A block of 16 prompts is more than there are, so nothing was due to be stored before the end.
    """
    sound, asked = policy(str(tiny_policy), STOP), []

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        if body.get("max_tokens") == 32:
            asked.append(body["seed"])
            if 20 < len(asked) <= 26:
                return refusal(400, "out of money")
        return sound(path, body, n)

    with serving(behave) as server:
        served_run(tmp_path, tiny_policy, server.url, block=16)
        found = iterate(tmp_path, "--to", "M2", "--pause-before", "judge")
        assert found.returncode == 4 and "refuses with 400: out of money" in found.stderr
        assert len(found.stderr.strip().splitlines()[-1].split("\n")) == 1
        kept = {row[0] for row in query(tmp_path, "SELECT seed FROM candidate")}
        assert len(kept) >= 12  # of 20 that came, whole prompts of three each
        asked[:] = [0] * 26
        again = iterate(tmp_path, "--to", "M2", "--pause-before", "judge")
        assert again.returncode == 0, again.stderr
        assert not kept & set(asked[26:])
        assert len(kept | set(asked[26:])) == 24
        assert command(tmp_path, "status", "--json").returncode == 0
