"""Tokens of texts and chats, counted with the model's tokenizer file where it is at hand, else guessed.

Only for estimates, so that a plan needs no tensor library and no child: what an engine feeds a model is
decided by `engines.chat` alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfreward.budget import How
from selfreward.protocols import Message

LETTERS = 4.0  # bytes a token of English, for a model whose tokenizer is not there: a guess
TURN = 8  # tokens a chat template puts around a turn: a guess


class Counter:
    """Counts tokens; `how` says whether it does ("counted") or guesses ("guess").

    `template` is the text of a Jinja file, None for the model's own.
    """

    def __init__(self, folder: Path | None, template: str | None, system: str | None) -> None:
        self._system = [{"role": "system", "content": system}] if system else []
        self._tokenizer = _tokenizer(folder) if folder else None
        self._template = _template(folder, template) if folder or template else None
        self.how: How = "counted" if self._tokenizer and self._template else "guess"

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by itself."""
        if self._tokenizer is None:
            return [round(len(t.encode()) / LETTERS) for t in texts]
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(f.ids) for f in found]

    def chats(self, chats: Sequence[Sequence[Message]], opening: str = "") -> list[int]:
        """Tokens of each chat with its template, an answer's turn begun with `opening`."""
        whole = [[*([] if c and c[0]["role"] == "system" else self._system), *c] for c in chats]
        if self._template is None:
            words = self.texts(["".join(m["content"] for m in c) + opening for c in whole])
            return [n + TURN * (len(c) + 1) for n, c in zip(words, whole, strict=True)]
        return self.texts([self._template(c) + opening for c in whole])


def _tokenizer(folder: Path) -> Any:
    with contextlib.suppress(Exception):  # a kind this library cannot read: the plan guesses, and says so
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    return None


def _template(folder: Path | None, given: str | None) -> Any:
    """The chat template as a function from a chat to its text; None where it cannot be rendered."""
    config = _read(folder / "tokenizer_config.json") if folder else {}
    source = given or (_own(folder, config) if folder else None)
    if not source:
        return None
    tokens = {k: _text(config.get(k)) for k in ("bos_token", "eos_token", "pad_token", "unk_token")}
    with contextlib.suppress(Exception):  # tags of the library's own: the plan guesses, and says so
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals |= {"strftime_now": lambda _: "1 January 2026", "raise_exception": _refuse}
        compiled = environment.from_string(source)

        def render(chat: Sequence[Message]) -> str:
            return str(compiled.render(messages=chat, add_generation_prompt=True, **tokens))

        render([{"role": "user", "content": "a"}])
        return render
    return None


def _own(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = config.get("chat_template")
    return found if isinstance(found, str) else None


def _text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _refuse(message: str) -> None:
    raise ValueError(message)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
