"""Who may ask: the right host, origin and token; and headers that leave a page nothing to run.

Plain ASGI, around everything, error pages and static files included. It knows no page.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 64 * 1024  # bytes of a form
COOKIE = "selfreward"
LOCAL = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # `no-referrer` would send our own forms with `Origin: null`
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


def host_of(header: str) -> str:
    """The name in a Host header, without port and brackets, lower case."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


class Guard:
    """Wraps an app. Without `token` it answers on loopback names alone.

    With one it also takes `names` and any address written in numbers (which no foreign name server can
    point elsewhere), and everything needs the token: in the address once, then as a cookie.
    """

    def __init__(self, app: App, names: tuple[str, ...] = (), token: str | None = None) -> None:
        self._app, self._names, self._token = app, {*LOCAL, *(n.lower() for n in names)}, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers itself what is refused; the app sees the rest."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no sockets here
            return
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
        refused = self._refusal(scope["method"], headers)
        if refused:
            await _answer(send, *refused)
        elif self._token and not self._is_known(headers):
            await self._ask(scope, send)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refusal(self, method: str, headers: list[tuple[str, str]]) -> tuple[int, str] | None:
        hosts = [v for k, v in headers if k == "host"]
        if len(hosts) != 1 or not self._is_ours(host_of(hosts[0])):
            return 421, "This page answers under the address that `selfreward ui` printed, and no other."
        if method in ("GET", "HEAD"):
            return None
        if method != "POST":
            return 405, "Only GET and POST are understood here."
        origins = [v for k, v in headers if k == "origin"]
        if [o.lower() for o in origins] != [f"http://{hosts[0].strip().lower()}"]:
            return 403, "A review is taken from these pages only, not from another site."
        sizes = [v for k, v in headers if k == "content-length"]
        if len(sizes) != 1 or not sizes[0].isdecimal() or int(sizes[0]) > MAX_BODY:
            return 413, f"A form has at most {MAX_BODY} bytes."
        return None

    def _is_ours(self, host: str) -> bool:
        if host in self._names:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or self._token is not None

    def _is_known(self, headers: list[tuple[str, str]]) -> bool:
        found: list[str] = []
        for value in (v for k, v in headers if k == "cookie"):
            try:
                found += [m.value for k, m in SimpleCookie(value).items() if k == COOKIE]
            except CookieError:
                continue
        return any(self._is_token(f) for f in found)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    async def _ask(self, scope: Scope, send: Send) -> None:
        """Takes the token from the address into a cookie, so that no link or log carries it on."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [v for k, v in query if k == "token"]
        if scope["method"] == "GET" and len(given) == 1 and self._is_token(given[0]):
            rest = urlencode([(k, v) for k, v in query if k != "token"])
            to = "/" + quote(scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
            cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Lax; Path=/"
            await _answer(send, 303, "", {"location": to, "set-cookie": cookie})
            return
        await _answer(send, 401, "Open the whole address that `selfreward ui` printed: it ends in the token.")


def _with_headers(send: Send) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [(k, v) for k, v in message.get("headers", []) if k.decode("latin-1") not in HEADERS]
            message["headers"] = kept + _raw(HEADERS)
        await send(message)

    return wrapped


async def _answer(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    body = text.encode()
    own = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body))}
    every = _raw(HEADERS | own | (headers or {}))
    await send({"type": "http.response.start", "status": status, "headers": every})
    await send({"type": "http.response.body", "body": body})


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
