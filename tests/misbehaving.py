"""A server on a loopback port that speaks OpenAI's protocol as badly as a test wants.

Its `behave` decides each reply from the path, the body and how often that body has come; `asked` keeps what
came and when, `most` how many requests were there at once.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behave = Callable[[str, dict[str, Any], int], "Reply"]


@dataclass
class Reply:
    """What to send: after `wait` seconds, a byte every `drip` seconds, cut off in the middle with `cut`."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0
    cut: bool = False


@dataclass
class Asked:
    """One request as it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


class Server(ThreadingHTTPServer):
    """Counts what comes and lets `behave` answer."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave: Behave) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.asked, self.most, self.here = behave, list[Asked](), 0, 0
        self.seen: Counter[str] = Counter()
        self.mutex = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no news."""

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was posted there."""
        return [a.body for a in self.asked if a.path == path]


class Handler(BaseHTTPRequestHandler):
    """Reads a request, asks `behave`, and sends what it says."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Same as a POST without a body."""
        self.do_POST()

    def do_POST(self) -> None:
        """Writes down what came, and answers."""
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, body = self.path.removeprefix("/v1"), json.loads(raw or b"{}")
        with self.server.mutex:
            key = f"{path} {json.dumps(body, sort_keys=True)}"
            self.server.seen[key] += 1
            n = self.server.seen[key]
            headers = {k.lower(): v for k, v in self.headers.items()}
            self.server.asked.append(Asked(path, body, headers, time.monotonic()))
            self.server.here += 1
            self.server.most = max(self.server.most, self.server.here)
        try:
            self.answer(self.server.behave(path, body, n))
        finally:
            with self.server.mutex:
                self.server.here -= 1

    def answer(self, reply: Reply) -> None:
        """Sends it, as slowly and as far as it says."""
        time.sleep(reply.wait)
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("content-length", str(len(data)))
        for name, value in ({"content-type": "application/json"} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if reply.cut:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif reply.drip:
            for k in range(len(data)):
                self.wfile.write(data[k : k + 1])
                time.sleep(reply.drip)
        else:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def serving(behave: Behave) -> Iterator[Server]:
    """The server in a thread of its own, gone afterwards."""
    server = Server(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said(text: str | None, finish: str = "stop") -> Reply:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Reply({"model": "m", "choices": [choice], "usage": {"total_tokens": 7}})


def echo(body: dict[str, Any]) -> Reply:
    """A chat completion that repeats the last message."""
    return said(f"echo {body['messages'][-1]['content']}")


def refusal(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI's protocol writes it."""
    told = {"message": message, "type": "error", "code": code}
    return Reply({"error": told}, status, {k.replace("_", "-"): v for k, v in headers.items()})


def models(*cards: dict[str, Any]) -> Reply:
    """A list of served models."""
    return Reply({"object": "list", "data": list(cards)})


def policy(root: str, stop: int, *, context: int | None = 4096) -> Behave:
    """A sound server of token ids, without a model: what it draws depends on prompt and seed alone."""

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        if path == "/models":
            return models({"id": "served", "root": root, "max_model_len": context})
        if path == "/load_lora_adapter":
            return Reply(b"Success: loaded.", headers={"content-type": "text/plain"})
        return Reply(drawn(body, stop))

    return behave


def drawn(body: dict[str, Any], stop: int) -> dict[str, Any]:
    """The reply of a sound server to a completion request; it draws small letters of the tiny policy."""
    dice = random.Random(json.dumps([body["prompt"], body.get("seed")]))
    ids = [dice.randrange(67, 93) for _ in range(min(6, body["max_tokens"]))]
    if len(ids) < body["max_tokens"]:
        ids.append(stop)
    top = {f"token_id:{t}": -dice.uniform(2, 5) for t in body.get("logprob_token_ids", [])}
    choice: dict[str, Any] = {
        "index": 0,
        "text": "",
        "finish_reason": "stop" if ids[-1] == stop else "length",
        "token_ids": ids,
        "prompt_token_ids": body["prompt"],
        "logprobs": {"token_logprobs": [-1.5] * len(ids), "top_logprobs": [top] * len(ids)},
    }
    if "prompt_logprobs" in body:
        choice["prompt_logprobs"] = [None, *({str(t): {"logprob": -1.0}} for t in body["prompt"][1:])]
    total = len(body["prompt"]) + len(ids)
    return {"model": body["model"], "choices": [choice], "usage": {"total_tokens": total}}
