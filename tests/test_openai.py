"""How a server is asked: every way it can fail, and what is left of the request, the key and the run."""

from __future__ import annotations

import email.utils
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from selfreward.engines import server as asking
from selfreward.engines.client import EngineClient
from selfreward.engines.meter import Meter
from selfreward.engines.server import is_here
from selfreward.engines.text_engine import TextEngine
from selfreward.errors import BadInput, Interrupted, SelfRewardError, WorkFailed
from selfreward.protocols import Choice, Completion, Request, Sampling
from tests.misbehaving import Behave, Reply, Server, echo, refusal, said, serving

KEY = "sk-never-to-be-seen-0123456789"
CHAT = "/chat/completions"


def ask(n: int) -> list[Request]:
    return [
        Request([{"role": "user", "content": f"q{i}"}], 100 + i, Sampling(0.7, 0.9, 0, 5)) for i in range(n)
    ]


def number(body: dict[str, Any]) -> int:
    """Which of `ask` it is; -1 for the spare request that tells a sick server from a sick request."""
    text = body["messages"][-1]["content"]
    return int(text[1:]) if text[0] == "q" else -1


@contextmanager
def judging(behave: Behave, **settings: Any) -> Iterator[tuple[TextEngine, Server]]:
    with serving(behave) as server:
        options: dict[str, Any] = {"served_model": "m", "concurrency": 4, "timeout": 10.0, "patience": 0.01}
        engine = TextEngine(url=server.url, **options | settings)
        try:
            yield engine, server
        finally:
            engine.close()


def echoed(n: int) -> list[Completion]:
    return [Completion(f"echo q{i}", finish="stop") for i in range(n)]


def test_results_stand_in_the_order_of_the_requests_however_they_arrive() -> None:
    """Later requests are answered sooner; the stream shows that they were."""

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        return Reply(echo(body).body, wait=0.05 * (4 - number(body) % 4))

    with judging(behave) as (engine, _):
        assert engine.generate(ask(12)) == echoed(12)
        came = [i for i, _ in engine.stream(ask(4))]
        assert sorted(came) == [0, 1, 2, 3] and came != [0, 1, 2, 3]


def test_no_more_requests_are_on_their_way_than_the_recipe_allows() -> None:
    with judging(lambda p, body, n: Reply(echo(body).body, wait=0.03), concurrency=3) as (engine, server):
        assert engine.generate(ask(20)) == echoed(20)
        assert server.most == 3


def test_a_request_states_its_seed_and_all_its_sampling_and_tells_nothing_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    with judging(lambda p, body, n: echo(body)) as (engine, server):
        engine.generate([Request(ask(1)[0].messages, 42, Sampling(0.3, 0.8, 5, 17))])
        (asked,) = server.asked
    stated = {"temperature": 0.3, "top_p": 0.8, "top_k": 5, "max_tokens": 17, "seed": 42, "model": "m"}
    assert {k: asked.body[k] for k in stated} == stated
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(asked.body)
    assert not [h for h in asked.headers if "stainless" in h or "organization" in h]


@pytest.mark.parametrize("trouble", [refusal(429), refusal(503), refusal(500), refusal(408)])
def test_a_storm_of_refusals_is_waited_out_and_every_request_answered_once(trouble: Reply) -> None:
    with judging(lambda p, body, n: trouble if n <= 3 else echo(body)) as (engine, server):
        assert engine.generate(ask(8)) == echoed(8)
        assert set(server.seen.values()) == {4}
        assert engine.take_spent() == (32, 8 * 7)  # every try is a request; 7 tokens a reply
        assert engine.take_spent() == (0, 0)


def test_waits_grow_and_are_not_all_alike() -> None:
    """Waits of half to all of 0.1, 0.2, 0.4 and 0.8 s: eight times nearly all of it has no chance."""
    with judging(lambda p, body, n: refusal(429) if n <= 4 else echo(body), patience=0.1, concurrency=8) as (
        engine,
        server,
    ):
        engine.generate(ask(8))
    times: dict[int, list[float]] = {}
    for asked in server.asked:
        times.setdefault(number(asked.body), []).append(asked.at)
    waits = [[b - a for a, b in itertools.pairwise(at)] for at in times.values()]
    assert all(w[0] < w[-1] and w[-1] >= 0.4 for w in waits)
    assert min(w[-1] for w in waits) < 0.78


def test_retry_after_holds_every_request_back() -> None:
    """The first request is told to wait a second: nothing more is sent before."""

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        return refusal(429, retry_after="1") if number(body) == 0 and n == 1 else echo(body)

    with judging(behave, concurrency=1) as (engine, server):
        assert engine.generate(ask(2)) == echoed(2)
        first, second, third = [a.at for a in server.asked]
    assert second - first >= 1.0 and third >= second


def test_retry_after_is_read_as_seconds_milliseconds_or_a_date() -> None:
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert asking._retry_after({"retry-after": "2.5"}) == 2.5
    assert asking._retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert asking._retry_after({"retry-after": soon}) == pytest.approx(30, abs=2)
    assert asking._retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0
    assert asking._retry_after({"retry-after": "later"}) is None and asking._retry_after({}) is None


def test_a_server_that_asks_for_an_hour_is_left_at_once() -> None:
    with judging(lambda p, b, n: refusal(429, "quota", retry_after="3600")) as (engine, server):
        with pytest.raises(WorkFailed, match=r"^127.0.0.1:\d+ refuses with 429: quota; it asks for 3600 s"):
            engine.generate(ask(1))
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "broken", [Reply(b'{"choices": [', 200), Reply({"choices": []}), said(None), said("x", "?")]
)
def test_a_reply_that_makes_no_sense_is_asked_for_again_and_then_a_fault(broken: Reply) -> None:
    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        ill = (number(body) == 1) or (number(body) == 2 and n < 3)
        return broken if ill else echo(body)

    with judging(behave) as (engine, server):
        found = engine.generate(ask(4))
        assert found[1] == Completion(None, fault="malformed_reply")
        assert [c for i, c in enumerate(found) if i != 1] == [c for i, c in enumerate(echoed(4)) if i != 1]
        assert sum(number(b) == 1 for b in server.bodies(CHAT)) == 3


@pytest.mark.parametrize(
    ("trouble", "fault"),
    [(refusal(500), "server_error"), (Reply(said("x").body, cut=True), "cut_off")],
)
def test_a_request_that_always_fails_is_a_fault_where_the_server_answers_others(
    trouble: Reply, fault: str
) -> None:
    """Left alone on a resume it would stop the run for ever: a spare request tells whose fault it is."""
    with judging(lambda p, b, n: trouble if number(b) == 0 else echo(b), patience=0.001) as (engine, server):
        assert engine.generate(ask(1)) == [Completion(None, fault=fault)]
        assert [number(b) for b in server.bodies(CHAT)] == [0] * 8 + [-1]


@pytest.mark.parametrize(
    "trouble", [refusal(500, "out of memory"), refusal(429), Reply(b"<html>", 200), Reply({}, cut=True)]
)
def test_a_server_that_answers_nobody_stops_the_run_in_one_line_and_faults_nothing(trouble: Reply) -> None:
    with judging(lambda p, b, n: trouble, patience=0.001) as (engine, _):
        with pytest.raises(WorkFailed, match=r"^127\.0\.0\.1:\d+ .*, \d times: .*goes on$") as stopped:
            engine.generate(ask(2))
        assert "\n" not in str(stopped.value)


def test_a_server_that_is_busy_makes_no_faults_even_where_it_answers_others() -> None:
    """What is refused for want of room is as good a request as any: the run stops, and asks it again."""
    busy = judging(lambda p, b, n: refusal(429) if number(b) == 0 else echo(b), patience=0.001)
    with busy as (engine, _), pytest.raises(WorkFailed, match=r"refuses with 429: no, 8 times"):
        engine.generate(ask(1))


def test_cut_connections_are_tried_again() -> None:
    with judging(lambda p, b, n: Reply(echo(b).body, cut=n < 3)) as (engine, _):
        assert engine.generate(ask(6)) == echoed(6)


@pytest.mark.parametrize("slow", [{"wait": 3.0}, {"drip": 0.5}])
def test_a_reply_has_its_time_as_a_whole_and_is_then_tried_again(slow: dict[str, float]) -> None:
    """Bytes that drip in keep a read time-out quiet for ever: the whole reply has one."""
    with judging(lambda p, b, n: Reply(echo(b).body, **slow if n < 2 else {}), timeout=1.5) as (
        engine,
        server,
    ):
        assert engine.generate(ask(2)) == echoed(2)
        assert set(server.seen.values()) == {2}


def test_a_server_that_is_too_slow_is_said_to_be() -> None:
    told = r"does not answer within 0.1 s, 3 times: raise engine.timeout"
    slow = judging(lambda p, b, n: Reply({}, wait=0.5), timeout=0.1)
    with slow as (engine, _), pytest.raises(WorkFailed, match=told):
        engine.generate(ask(1))


def test_nobody_listening_is_one_line() -> None:
    with serving(lambda p, b, n: echo(b)) as server:
        url = server.url
    engine = TextEngine(url=url, served_model="m", patience=0.001)
    with pytest.raises(WorkFailed, match=r"cannot be reached .*, 3 times"):
        engine.generate(ask(1))
    engine.close()


def test_lone_surrogates_are_replaced_both_ways() -> None:
    with judging(lambda p, body, n: said("a\udc00b\ud83d")) as (engine, server):
        request = Request([{"role": "user", "content": "x\ud800y"}], 1)
        assert engine.generate([request]) == [Completion("a\ufffdb\ufffd", finish="stop")]
        assert server.asked[0].body["messages"][0]["content"] == "x\ufffdy"


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (said("cut", "length"), Completion("cut", finish="length")),
        (said("", "content_filter"), Completion(None, fault="refused")),
        (refusal(400, "policy", "content_filter"), Completion(None, fault="refused")),
        (refusal(400, "8193 tokens", "context_length_exceeded"), Completion(None, fault="too_long")),
    ],
)
def test_an_answer_ends_as_the_server_says(reply: Reply, found: Completion) -> None:
    with judging(lambda p, b, n: reply) as (engine, server):
        assert engine.generate(ask(1)) == [found]
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        (
            refusal(401, f"wrong key {KEY}"),
            BadInput,
            r"401: wrong key \[key\]: put a key .* as OPENAI_API_KEY$",
        ),
        (refusal(403, "not for you"), BadInput, "403: not for you: put a key"),
        (refusal(404, "no model `m`"), BadInput, "404: no model `m`: check engine.url .*engine.served_model"),
        (refusal(400, "temperature\nis odd"), WorkFailed, "400: temperature is odd: "),
        (refusal(429, "pay", "insufficient_quota"), BadInput, "429: pay: nothing is left"),
        (Reply({}, 307, {"location": "http://192.0.2.1/v1"}), BadInput, "redirects to http://192.0.2.1/v1: "),
    ],
)
def test_other_refusals_stop_at_once_in_one_line(
    monkeypatch: pytest.MonkeyPatch, reply: Reply, kind: type[SelfRewardError], told: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with judging(lambda p, b, n: reply) as (engine, server):
        with pytest.raises(kind, match=rf"^127.0.0.1:\d+ .*{told}") as stopped:
            engine.generate(ask(40))
        assert len(server.asked) <= 4  # of the four at once none was asked again
        assert "\n" not in str(stopped.value) and KEY not in str(stopped.value)
        assert stopped.value.__cause__ is None and stopped.value.__suppress_context__


def test_a_redirect_takes_no_text_to_another_host() -> None:
    with serving(lambda p, b, n: echo(b)) as other:
        away = Reply({}, 307, {"location": f"{other.url}{CHAT}"})
        with judging(lambda p, b, n: away) as (engine, _), pytest.raises(BadInput):
            engine.generate(ask(1))
        assert not other.asked


def test_no_proxy_stands_before_this_very_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda p, b, n: echo(b)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        with judging(lambda p, b, n: echo(b)) as (engine, _):
            assert engine.generate(ask(1)) == echoed(1)
        assert not proxy.asked


def test_what_is_on_its_way_when_an_error_ends_it_all_still_comes_in() -> None:
    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        return refusal(400) if number(body) == 1 else Reply(echo(body).body, wait=0.2)

    came = []
    with judging(behave) as (engine, server):
        with pytest.raises(WorkFailed):
            for place, found in engine.stream(ask(30)):
                came.append((place, found.text))
        assert sorted(came) == [(i, f"echo q{i}") for i in (0, 2, 3)]
        assert len(server.asked) == 4


def test_a_missing_client_library_is_said_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(BadInput, match=r"pip install 'selfreward\[openai\]'"):
        TextEngine(url="http://127.0.0.1:1/v1", served_model="m")


def test_an_error_ends_the_waiting_of_others_and_they_ask_no_more() -> None:
    """The first is told to wait ten minutes when the second is refused: all ends now, with four requests."""

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        wait = refusal(429, retry_after="600")
        return Reply(refusal(400).body, 400, wait=0.3) if number(body) == 1 else wait

    with judging(behave, patience=0.001) as (engine, server):
        begun = time.monotonic()
        with pytest.raises(WorkFailed, match="refuses with 400"):
            engine.generate(ask(9))
        assert time.monotonic() - begun < 60 and len(server.asked) == 4


@pytest.mark.parametrize("key", ["sk-two words", "sk-\u00e9"])
def test_a_key_no_header_can_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(BadInput, match=r"^MY_KEY holds") as refused:
        TextEngine(url="http://127.0.0.1:1/v1", served_model="m", api_key_env="MY_KEY")
    assert key not in str(refused.value)


def test_the_key_is_in_no_log_even_where_the_client_is_told_to_say_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's log has its traceback and, with OPENAI_LOG, every request the client makes."""
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    with serving(lambda p, b, n: refusal(401, f"no: {KEY}") if number(b) else echo(b)) as server:
        settings = {"url": server.url, "served_model": "m", "api_key_env": "MY_KEY"}
        client = EngineClient("openai-text", settings, tmp_path / "engine.log")
        assert client.generate(ask(1)) == echoed(1)
        with pytest.raises(BadInput, match=r"as MY_KEY$") as refused:
            client.generate(ask(2))
        client.close()
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    log = (tmp_path / "engine.log").read_text()
    assert "Traceback" in log and "POST" in log  # there is something to hide it from
    assert KEY not in log + str(refused.value)


def test_a_model_of_texts_alone_gives_no_numbers() -> None:
    with judging(lambda p, b, n: echo(b)) as (engine, server):
        calls: list[Callable[[], Any]] = [
            lambda: engine.choice_logprobs([Choice(ask(1)[0].messages, "Score:", (" 1",))]),
            lambda: engine.token_logprobs([]),
            lambda: engine.chat_ids([]),
            lambda: engine.generate([Request(ask(1)[0].messages, 1, opening="Score:")]),
        ]
        for call in calls:
            with pytest.raises(BadInput):
                call()
        assert not server.asked


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True), ("http://127.8.8.8/v1", True), ("http://[::1]:8000/v1", True),
        ("http://localhost:1/v1", True), ("https://api.example.org/v1", False), ("http://10.0.0.7/v1", False),
        ("http://127.0.0.1.example.org/v1", False), ("http://localhost.example.org/v1", False),
    ],
)  # fmt: skip
def test_only_a_loopback_address_is_this_machine(url: str, here: bool) -> None:
    assert is_here(url) is here


def test_a_limit_stops_before_the_next_block_and_says_what_was_spent() -> None:
    """10 requests allowed: the second block of 6 begins at 6 and is finished, the third does not begin."""
    meter = Meter(requests=10)
    assert meter.limited and not Meter().limited
    for _ in range(2):
        meter.check()
        meter.add(6, 100)
    with pytest.raises(
        Interrupted, match=r"^engine\.limits\.requests = 10 is reached after 12 .* 200 tokens: "
    ):
        meter.check()
    hours = iter([0.0, 3599.0, 3600.0])
    late = Meter(hours=1, clock=lambda: next(hours))
    late.check()
    with pytest.raises(Interrupted, match="hours"):
        late.check()
