"""The guard of the pages: hosts, origins, sizes and tokens, on plain ASGI without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from selfreward.ui.guard import HEADERS, Guard, host_of

TOKEN = "a-secret-of-some-length"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """Stands for the pages: answers 200 to whatever gets through, with a header the guard must replace."""
    loose = [(b"content-security-policy", b"default-src *")]
    await send({"type": "http.response.start", "status": 200, "headers": loose})
    await send({"type": "http.response.body", "body": b"in"})


def ask(
    guard: Guard, method: str = "GET", path: str = "/", query: str = "", **headers: str
) -> tuple[int, Any]:
    """Status and headers of the answer; `host` is loopback unless given, '' leaves it out."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    given = {"host": "127.0.0.1:8000"} | {k.replace("_", "-"): v for k, v in headers.items()}
    raw = [(k.encode(), v.encode()) for k, v in given.items() if v]
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw,
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    names = [k for k, _ in sent[0]["headers"]]
    assert len(names) == len(set(names))  # of two policies a browser would obey both, of two others one
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}


def post(guard: Guard, **headers: str) -> int:
    """Status of a POST that is as it should be but for what is given."""
    good = {"origin": "http://127.0.0.1:8000", "content_length": "10"}
    return ask(guard, "POST", **(good | headers))[0]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("LocalHost:9999", 200), ("[::1]:8000", 200),
        ("127.0.0.2:1", 200), ("evil.example", 421), ("evil.example:8000", 421),
        ("localhost.evil.example", 421), ("10.0.0.5:8000", 421), ("box:8000", 421), ("", 421),
        ("127.0.0.1.evil.example", 421), ("[evil", 421),
    ],
)  # fmt: skip
def test_only_loopback_names_are_answered_without_a_token(host: str, status: int) -> None:
    assert ask(Guard(inner), host=host)[0] == status


def test_two_hosts_are_no_host() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    asyncio.run(Guard(inner)(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"origin": ""}, 403), ({"origin": "null"}, 403), ({"origin": "http://evil.example"}, 403),
        ({"origin": "https://127.0.0.1:8000"}, 403), ({"origin": "http://127.0.0.1:8001"}, 403),
        ({"origin": "http://127.0.0.1"}, 403), ({"origin": "http://localhost:8000"}, 403),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
        ({"content_length": ""}, 413), ({"content_length": "65537"}, 413), ({"content_length": "-1"}, 413),
    ],
)  # fmt: skip
def test_a_post_comes_from_our_own_pages_and_is_small(headers: dict[str, str], status: int) -> None:
    assert post(Guard(inner), **headers) == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_no_other_method_reaches_a_page(method: str) -> None:
    assert ask(Guard(inner), method)[0] == 405


def test_every_answer_has_the_headers_that_leave_a_page_nothing_to_run() -> None:
    for guard, headers in (
        (Guard(inner), {}),
        (Guard(inner), {"host": "evil.example"}),
        (Guard(inner, (), TOKEN), {}),
    ):
        found = ask(guard, **headers)[1]
        assert {k: found.get(k) for k in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert (
        "default-src 'none'" in policy
        and "unsafe" not in policy
        and "http" not in policy
        and "*" not in policy
    )


def test_with_a_token_nothing_is_shown_without_it() -> None:
    guard = Guard(inner, ("box",), TOKEN)
    assert ask(guard)[0] == 401
    assert ask(guard, query="token=wrong")[0] == 401
    assert ask(guard, query=f"token={TOKEN}&token=x")[0] == 401
    assert ask(guard, cookie="selfreward=wrong")[0] == 401
    assert ask(guard, cookie=f"other={TOKEN}")[0] == 401
    assert ask(guard, cookie=f"other=1; selfreward={TOKEN}")[0] == 200
    assert post(guard) == 401
    assert post(guard, cookie=f"selfreward={TOKEN}") == 200


def test_the_token_of_an_address_becomes_a_cookie_and_leaves_the_address() -> None:
    guard = Guard(inner, (), TOKEN)
    status, headers = ask(guard, path="/pairs", query=f"of=M1&token={TOKEN}&sort=-margin")
    assert (status, headers["location"]) == (303, "/pairs?of=M1&sort=-margin")
    assert headers["set-cookie"] == f"selfreward={TOKEN}; HttpOnly; SameSite=Lax; Path=/"
    for path in ("//evil.example", "/\\evil.example", "/%2f%2fevil.example"):
        to = ask(guard, path=path, query=f"token={TOKEN}")[1]["location"]
        assert to.startswith("/") and to[1:2] not in ("/", "\\")


def test_with_a_token_numbers_and_given_names_are_ours_and_other_names_are_not() -> None:
    guard, cookie = Guard(inner, ("Box",), TOKEN), f"selfreward={TOKEN}"
    found = [
        ask(guard, host=h, cookie=cookie)[0]
        for h in ("10.0.0.5:80", "[fe80::1]:80", "box:80", "evil.example")
    ]
    assert found == [200, 200, 200, 421]


def test_the_name_in_a_host_header_is_read_without_port_and_brackets() -> None:
    assert [host_of(h) for h in ("A:1", "[::1]:2", "[::1]", "a")] == ["a", "::1", "::1", "a"]
