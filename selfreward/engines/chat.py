"""Chats to token ids and back: one template, one opening, one list of stop ids for engine, judge and trainer.

It knows the tokenizer of a model folder and nothing of weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from selfreward.errors import BadInput
from selfreward.protocols import Message

PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token + '\\n' }}"
    "{% else %}{{ message['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For bases without a template: turns in words, answers ended by the tokenizer's EOS, no untrained token."""


class Chat:
    """The tokenizer of a model folder with the chat template in force.

    `chat_template` is None (the model's own), "plain", or the path of a Jinja file.
    """

    def __init__(self, model: str, chat_template: str | None = None, system: str | None = None) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        self.system = system
        self._generation_config = _read_json(Path(model) / "generation_config.json")
        self._config = _read_json(Path(model) / "config.json")
        if chat_template == "plain":
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        elif chat_template:
            self.tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8")
        if not self.tokenizer.chat_template:
            raise BadInput(
                f"{model} has no chat template: set model.chat_template to a Jinja file or to `plain`"
            )

    def ids(self, messages: Sequence[Message], opening: str = "") -> list[int]:
        """Token ids of the chat, an assistant turn opened and `opening` written in it.

        Where the template opens a thought, an opening stands behind the closed one: it begins the answer.
        """
        text = self.tokenizer.apply_chat_template(
            self._safe(messages), tokenize=False, add_generation_prompt=True
        )
        if opening and text.rstrip().endswith("<think>"):
            text = f"{text.rstrip()}\n\n</think>\n\n"
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        if bos is not None and self._adds_bos and ids[:1] != [bos]:
            ids = [bos, *ids]
        return ids + self.encode(self._opening_space + opening) if opening else ids

    def encode(self, text: str) -> list[int]:
        """Plain text to ids; control tokens written in it stay text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return ids

    def answer_ids(self, text: str) -> list[int]:
        """A written answer as the model would have sampled it: its tokens and the one that ends the turn."""
        return [*self.encode(self._opening_space + text), self.turn_end]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids without the stop token; lone surrogates become U+FFFD, which a store holds."""
        kept = list(ids[:-1]) if ids and ids[-1] in self.stop_ids else list(ids)
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return storable(text)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Every id that ends an answer: the model's own list (Llama 3 has three) and the tokenizer's EOS."""
        found: set[int] = set()
        for source in (self._generation_config, self._config):
            eos = source.get("eos_token_id")
            found.update(eos if isinstance(eos, list) else [] if eos is None else [eos])
        if self.tokenizer.eos_token_id is not None:
            found.add(self.tokenizer.eos_token_id)
        if not found:
            raise BadInput(
                "the model names no stop token: neither its generation_config nor its tokenizer has an EOS"
            )
        return frozenset(found)

    @cached_property
    def turn_end(self) -> int:
        """The id the template writes after an assistant turn; the tokenizer's EOS if it writes none."""
        chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "QZQ"}]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False)
        after = self.tokenizer(text[text.rindex("QZQ") + 3 :], add_special_tokens=False)["input_ids"]
        return next(
            (i for i in after if i in self.stop_ids), self.tokenizer.eos_token_id or min(self.stop_ids)
        )

    @property
    def pad_id(self) -> int:
        """An id to fill rows with; masked everywhere, so any will do."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self.turn_end

    @cached_property
    def _adds_bos(self) -> bool:
        """Whether the tokenizer starts each text with BOS; the template may write it too, one is enough."""
        ids = self.tokenizer("a")["input_ids"]
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    @cached_property
    def _opening_space(self) -> str:
        """A space where the template's assistant opening ends in a bare colon (`plain`), else nothing."""
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True
        )
        return " " if text.endswith(":") else ""

    def _safe(self, messages: Sequence[Message]) -> list[Message]:
        """The chat with the system turn, and control tokens inside the texts broken so that none is parsed.

        A zero-width space after the first character keeps the text readable and makes it ordinary text.
        """
        chat = list(messages)
        if self.system and chat[0]["role"] != "system":
            chat = [{"role": "system", "content": self.system}, *chat]
        return [{"role": m["role"], "content": self._defused(self._spoken(m))} for m in chat]

    def _spoken(self, message: Message) -> str:
        """A turn's text; an earlier answer without the space its own opening gave it."""
        own = message["role"] == "assistant" and self._opening_space
        return message["content"].lstrip() if own else message["content"]

    def _defused(self, text: str) -> str:
        for token in self._control_tokens:
            if token in text:
                text = text.replace(token, token[0] + "\u200b" + token[1:])
        return text

    @cached_property
    def _control_tokens(self) -> list[str]:
        added = [str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        return sorted(
            {t for t in [*added, *self.tokenizer.all_special_tokens] if len(t) > 1}, key=len, reverse=True
        )


def storable(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which neither UTF-8 nor a store holds."""
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
