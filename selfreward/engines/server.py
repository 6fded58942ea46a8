"""Asking an OpenAI-compatible server: how many at once, how long to wait, when to ask again, what to say.

It knows HTTP, and nothing of chats, tokens or adapters. The key comes from an environment variable, goes into
one header and nowhere else: it is taken out of every text a server may echo, and no error is chained to one
that holds the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import importlib.util
import ipaddress
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from selfreward.errors import BadInput, WorkFailed

ATTEMPTS = 8  # waits of 0.5 s doubling to 32 s: a server may be away for about a minute
FEW = 3  # where waiting longer seldom helps: time-outs, unreadable replies, nobody listening
LONGEST_WAIT = 900.0  # seconds; a server that asks for more is left for another day
AGAIN = {408, 409, 425, 429}  # and everything from 500 on
REFUSALS = {  # of one request, by what a server calls them
    "context_length_exceeded": "too_long",
    "content_filter": "refused",
    "content_policy_violation": "refused",
}
NOT_OURS = ("x-stainless-", "openai-organization", "openai-project")  # headers about machine and account
Answer = TypeVar("Answer")


class Unanswered(WorkFailed):
    """This one request cannot be answered, though the server answers others; `fault` names it in a store."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass
class Trouble(Exception):
    """A try that may go better: what happened, what could be done, and how often it is worth it."""

    reason: str
    advice: str = "look after the server; the same command goes on"
    most: int = ATTEMPTS
    wait: float | None = None  # seconds, as the server asked
    fault: str | None = None  # what it is where the server answers others


class Server:
    """One server behind one URL, from the first request to `close`.

    `timeout` is seconds for one whole reply, `patience` seconds before the second try.
    """

    def __init__(
        self, url: str, *, key_env: str, concurrency: int, timeout: float, patience: float = 0.5
    ) -> None:
        if importlib.util.find_spec("openai") is None:
            raise BadInput(
                "engine.type is openai, which is not installed: `pip install 'selfreward[openai]'`"
            )
        self.host = urlsplit(url).netloc
        self._key_env, self._key = key_env, _key(key_env)
        self._concurrency, self._timeout, self._patience = concurrency, timeout, patience
        self._url, self._hold, self._stop = url, 0.0, asyncio.Event()
        self._spent = [0, 0]
        self._loop = asyncio.new_event_loop()
        self._client: Any = None

    def each(self, jobs: Sequence[Callable[[], Awaitable[Answer]]]) -> Iterator[tuple[int, Answer]]:
        """What the jobs return with their places, as they finish; no more than `concurrency` run at once.

        After the first error nothing new is asked; what is on its way comes in, and then the error is raised.
        """
        left = iter(enumerate(jobs))
        running: dict[asyncio.Future[Answer], int] = {}
        error: BaseException | None = None
        try:
            while True:
                while error is None and len(running) < self._concurrency and (job := next(left, None)):
                    running[asyncio.ensure_future(job[1](), loop=self._loop)] = job[0]
                if not running:
                    break
                done, _ = self._loop.run_until_complete(
                    asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                )
                for task in done:
                    place = running.pop(task)
                    if (failed := task.exception()) is None:
                        yield place, task.result()
                    else:
                        error = error or failed
                        self._stop.set()
        finally:
            if running:  # whoever reads the stream has left
                for task in running:
                    task.cancel()
                self._loop.run_until_complete(asyncio.wait(running))
            self._stop.clear()
        if error is not None:
            raise error

    def now(self, job: Awaitable[Answer]) -> Answer:
        """One job, alone."""
        return self._loop.run_until_complete(job)

    async def ask(
        self,
        path: str,
        body: dict[str, Any] | None,
        read: Callable[[str], Answer],
        *,
        spare: dict[str, Any] | None = None,
        advice: str | None = None,
    ) -> Answer:
        """What `read` makes of the reply to a POST, or without a body to a GET; tried again if that helps.

        `read` raises ValueError, KeyError or TypeError for a reply that makes no sense. `spare` is a small
        body for the same path: where a request fails time and again and the spare one is answered, it is the
        request. `advice` is the next move where the server cannot do this at all. Raises `Unanswered` for a
        request that has no answer, else the error that stops the run.
        """
        tries = 0
        while True:
            await self._sleep(self._hold - self._loop.time())
            if self._stop.is_set():  # said by whoever ended it
                raise WorkFailed(self._line("is asked no more", "the same command goes on"))
            try:
                return await self._try(path, body, read, advice)
            except Trouble as trouble:
                tries += 1
                if tries >= trouble.most or self._stop.is_set():
                    await self._give_up(trouble, tries, path, spare)
                await self._wait(trouble, tries)

    def take_spent(self) -> tuple[int, int]:
        """Requests sent, tries included, and tokens the server counted since the last call."""
        requests, tokens = self._spent
        self._spent = [0, 0]
        return requests, tokens

    def count(self, usage: Any) -> None:
        """Adds the tokens of a reply's `usage`."""
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        self._spent[1] += total if isinstance(total, int) else 0

    def refuse(self, reason: str, advice: str) -> BadInput:
        """The error of a server that cannot be used as it is."""
        return BadInput(self._line(reason, advice))

    def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            self._loop.run_until_complete(self._client.close())
            self._client = None
        self._loop.close()

    async def _wait(self, trouble: Trouble, tries: int) -> None:
        """As long as the server says, for all requests; else doubling, and never all at the same moment."""
        if trouble.wait is not None:
            self._hold = max(self._hold, self._loop.time() + trouble.wait)
        await self._sleep(self._patience * 2 ** (tries - 1) * random.uniform(0.5, 1.0))

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but not through another request's end of all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stop.wait()

    async def _give_up(self, trouble: Trouble, tries: int, path: str, spare: dict[str, Any] | None) -> None:
        line = self._line(trouble.reason + (f", {tries} times" if tries > 1 else ""), trouble.advice)
        if trouble.fault and spare is not None and not self._stop.is_set():
            with contextlib.suppress(Trouble):
                await self._try(path, spare, lambda text: json.loads(text)["choices"])
                raise Unanswered(trouble.fault, line) from None
        raise WorkFailed(line) from None

    async def _try(
        self, path: str, body: dict[str, Any] | None, read: Callable[[str], Answer], advice: str | None = None
    ) -> Answer:
        """One request; every error of the client becomes one of ours, without its chain."""
        import openai

        self._spent[0] += body is not None
        client = self._connected()
        try:
            async with asyncio.timeout(self._timeout):
                text = await (
                    client.get(path, cast_to=str)
                    if body is None
                    else client.post(path, cast_to=str, body=body)
                )
        except (TimeoutError, openai.APITimeoutError):
            raise Trouble(
                f"does not answer within {self._timeout:g} s",
                "raise engine.timeout, or lower engine.concurrency",
                most=FEW,
            ) from None
        except openai.APIStatusError as error:
            raise self._of_status(error, advice) from None
        except openai.APIConnectionError as error:
            raise self._of_connection(error) from None
        try:
            return read(text)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Trouble("answers what makes no sense", most=FEW, fault="malformed_reply") from None

    def _of_connection(self, error: Any) -> Trouble:
        cause = type(error.__cause__).__name__
        if cause in ("ConnectError", "ConnectTimeout"):
            return Trouble(f"cannot be reached ({self._plain(error.__cause__)})", most=FEW)
        return Trouble(f"cut the connection ({cause})", fault="cut_off")

    def _of_status(self, error: Any, advice: str | None) -> Exception:
        """What a refusal means: ask again, a fault of the request, or the end."""
        status, told = error.status_code, error.body if isinstance(error.body, dict) else {}
        said, code = self._plain(told.get("message") or error.response.text), f"{error.code} {error.type}"
        reason = f"refuses with {status}: {said}" if said else f"refuses with {status}"
        if status in (401, 403):
            return self.refuse(reason, f"put a key it knows into the environment as {self._key_env}")
        if 300 <= status < 400:
            where = self._plain(error.response.headers.get("location", "elsewhere"))
            return self.refuse(f"redirects to {where}", "name in engine.url the server that is meant")
        if status == 429 and "insufficient_quota" in code:
            return self.refuse(reason, "nothing is left on the account of this key")
        if (status in AGAIN or status >= 500) and not (status == 500 and advice):
            return self._of_hurry(status, reason, _retry_after(error.response.headers))
        for kind, fault in REFUSALS.items():
            if kind in code:
                return Unanswered(fault, self._line(reason, "leave this prompt out"))
        if status == 404:
            return self.refuse(reason, advice or "check engine.url (it ends in /v1) and engine.served_model")
        return WorkFailed(self._line(reason, advice or "what was asked is not what it takes: see its log"))

    def _of_hurry(self, status: int, reason: str, wait: float | None) -> Exception:
        if wait is not None and wait > LONGEST_WAIT:
            return WorkFailed(
                self._line(f"{reason}; it asks for {wait:.0f} s", "the same command goes on then")
            )
        return Trouble(reason, wait=wait, fault="server_error" if status >= 500 else None)

    def _plain(self, value: object) -> str:
        """What a server said, on one line, without the key."""
        text = " ".join(str(value).split())
        if self._key:
            text = text.replace(self._key, "[key]")
        return "".join(c if c.isprintable() else "?" for c in text)[:300]

    def _line(self, reason: str, advice: str) -> str:
        return f"{self.host} {reason}: {advice}"

    def _connected(self) -> Any:
        """The client: no tries of its own, no redirects, and no proxy before this very machine."""
        if self._client is None:
            import openai

            http = openai.DefaultAsyncHttpxClient(
                follow_redirects=False,
                trust_env=not is_here(self._url),
                event_hooks={"request": [_discreet]},
                timeout=openai.Timeout(self._timeout, connect=min(30.0, self._timeout)),
            )
            self._client = openai.AsyncOpenAI(
                base_url=self._url, api_key=self._key or "none", max_retries=0, http_client=http
            )
        return self._client


def is_here(url: str) -> bool:
    """Whether a URL is of this very machine, by its name or number alone."""
    return is_loopback(urlsplit(url).hostname or "")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _discreet(request: Any) -> None:
    """Takes out what the client tells of this machine and its user's accounts."""
    for name in [n for n in request.headers if n.lower().startswith(NOT_OURS)]:
        del request.headers[name]


def _key(name: str) -> str:
    """The key, or nothing for a server that wants none."""
    key = os.environ.get(name, "").strip()
    if not key.isascii() or any(c.isspace() or not c.isprintable() for c in key):
        raise BadInput(f"{name} holds what no key has, a space or a sign outside ASCII: set it anew")
    return key


def _retry_after(headers: Any) -> float | None:
    """Seconds a server asks to wait, given as a number or as a date."""
    told = headers.get("retry-after-ms")
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, float(told) / 1000)
    told = headers.get("retry-after")
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, float(told))
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    return None
