"""The `transformers` engine: one model on one device, adapters by folder, requests alone decide a block.

It drains between blocks and keeps nothing across them, so the same block gives the same tokens again on the
same machine type, versions, dtype and threads. It knows chats and token ids, no rubrics and no store.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from selfreward.engines.attention import group_heads
from selfreward.engines.chat import Chat
from selfreward.engines.choices import longest, spell, without_longer
from selfreward.engines.pulse import PULSE
from selfreward.points import reach
from selfreward.protocols import Choice, Completion, Message, Request, Scored, TokenStat

T = TypeVar("T")
R = TypeVar("R")
SCORE_TOKENS = (
    4096  # tokens of one scoring forward pass, padding included: bounds the logits to about 1 GB at 49k
)


class TransformersEngine:
    """An `Engine` on transformers and peft. Weights are loaded at the first request that needs them.

    `dtype` is "auto" (bfloat16 on a GPU that has it, float32 elsewhere), "float32", "bfloat16" or "float16";
    `batch` is the largest number of rows decoded at once.
    """

    invariant = True

    def __init__(
        self,
        model: str,
        *,
        chat_template: str | None = None,
        system: str | None = None,
        dtype: str = "auto",
        batch: int = 64,
        threads: int | None = None,
        halvings: int = 0,
    ) -> None:
        """`halvings`: how often the tokens of a scoring pass are halved, after memory ran out."""
        self.chat = Chat(model, chat_template, system)
        self._folder, self._dtype, self._batch, self._threads = model, dtype, batch, threads
        self._score_tokens = SCORE_TOKENS >> halvings
        self._model: Any = None
        self._adapters: dict[str, str] = {}

    def generate(self, block: Sequence[Request]) -> list[Completion]:
        """Draws one completion a request; a chat that leaves no room for the answer is a `too_long` fault."""
        return self._by_adapter(block, [r.adapter for r in block], self._generate)

    def choice_logprobs(self, block: Sequence[Choice]) -> list[list[float] | None]:
        """Exact log-probabilities of the choices, whatever number of tokens each takes; `(n, n_choices)`."""
        return self._by_adapter(block, [c.adapter for c in block], self._choice_logprobs)

    def token_logprobs(self, block: Sequence[Scored]) -> list[list[float]]:
        """Scores given tokens by teacher forcing; `(n, len(completion_ids))`."""
        return self._by_adapter(block, [s.adapter for s in block], self._token_logprobs)

    def token_stats(self, block: Sequence[Scored]) -> list[list[TokenStat]]:
        """What the whole distribution says at each given token; `(n, len(completion_ids))`."""
        return self._by_adapter(block, [s.adapter for s in block], self._token_stats)

    def chat_ids(self, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each chat as `generate` feeds them; needs no weights."""
        return [self.chat.ids(chat) for chat in chats]

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of written answers with the end of turn; needs no weights."""
        return [self.chat.answer_ids(text) for text in answers]

    def _generate(self, block: Sequence[Request]) -> list[Completion]:
        from selfreward.engines.decode import Row, decode

        found: dict[int, Completion] = {}
        rows: list[tuple[int, Row]] = []
        for i, request in enumerate(block):
            ids = self.chat.ids(request.messages, request.opening)
            if len(ids) + request.sampling.max_new_tokens > self._context:
                found[i] = Completion(None, fault="too_long")
            else:
                rows.append((i, Row.of(ids, request.sampling, request.seed)))
        rows.sort(key=lambda r: (len(r[1].prompt_ids), r[1].prompt_ids, r[0]))
        for start in range(0, len(rows), self._batch):
            part = [row for _, row in rows[start : start + self._batch]]
            reach("batch", len(part))
            decode(self.model, part, self.chat.stop_ids, self.chat.pad_id)
        for i, row in rows:
            found[i] = self._completion(row)
        return [found[i] for i in range(len(block))]

    def _completion(self, row: Any) -> Completion:
        mean = math.fsum(row.logprobs) / len(row.logprobs)
        if not math.isfinite(mean):
            return Completion(None, fault="not_finite")
        finish: Any = "stop" if row.stopped else "length"
        return Completion(self.chat.decode(row.ids), tuple(row.ids), finish, mean)

    def _choice_logprobs(self, block: Sequence[Choice]) -> list[list[float] | None]:
        """Tokens all choices share are fed once; the rest is read from one distribution where it can be."""
        prompts = [self.chat.ids(c.messages, c.opening) for c in block]
        spelled = [spell(self.chat, c) for c in block]
        fits = [
            i
            for i, (p, s) in enumerate(zip(prompts, spelled, strict=True))
            if len(p) + max(map(len, s)) <= self._context
        ]
        found: list[list[float] | None] = [None] * len(block)
        for start in range(0, len(fits), self._batch):
            part = fits[start : start + self._batch]
            reach("batch", len(part))
            PULSE.beat()
            for i, row in zip(
                part, self._read_choices([prompts[i] for i in part], [spelled[i] for i in part]), strict=True
            ):
                found[i] = row
        return found

    def _read_choices(self, prompts: list[list[int]], spelled: list[list[list[int]]]) -> list[list[float]]:
        """Each choice is a path of tokens; all paths along a longest context are read from one forward pass.

        A path that begins another one counts without it: " 1" is not the "1" of " 10".
        """
        from selfreward.engines.decode import prefill

        contexts = [
            (i, c) for i, choices in enumerate(spelled) for c in longest(tuple(c[:-1]) for c in choices)
        ]
        keep = 1 + max(len(context) for _, context in contexts)
        fed = [[*prompts[i], *context] for i, context in contexts]
        logprobs = prefill(self.model, fed, self.chat.pad_id, keep=keep).logits.log_softmax(2)
        found = [[math.nan] * len(choices) for choices in spelled]
        for row, (i, context) in enumerate(contexts):
            first = keep - 1 - len(context)
            for j, choice in enumerate(spelled[i]):
                if context[: len(choice) - 1] == tuple(choice[:-1]):
                    found[i][j] = math.fsum(float(logprobs[row, first + k, t]) for k, t in enumerate(choice))
        return [without_longer(row, choices) for row, choices in zip(found, spelled, strict=True)]

    def _token_logprobs(self, block: Sequence[Scored]) -> list[list[float]]:
        return self._at_each_token(block, _of_targets)

    def _token_stats(self, block: Sequence[Scored]) -> list[list[TokenStat]]:
        return self._at_each_token(block, _of_distributions)

    def _at_each_token(self, block: Sequence[Scored], read: Callable[[Any, Any], list[R]]) -> list[list[R]]:
        """What `read` makes of a completion's log-probabilities, `(n, vocabulary)`, and its ids."""
        import torch

        found: dict[int, list[R]] = {}
        order = sorted(
            range(len(block)), key=lambda i: len(block[i].prompt_ids) + len(block[i].completion_ids)
        )
        lengths = [len(s.prompt_ids) + len(s.completion_ids) for s in block]
        for part in _within(order, lengths, self._score_tokens):
            PULSE.beat()
            rows = [[*block[i].prompt_ids, *block[i].completion_ids] for i in part]
            width = max(map(len, rows))
            ids = torch.tensor([r + [self.chat.pad_id] * (width - len(r)) for r in rows])
            mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
            device = self.model.device
            # the head is fed no position before any answer
            first = min(len(block[i].prompt_ids) for i in part) - 1
            with torch.inference_mode():
                logits = self.model(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    use_cache=False,
                    logits_to_keep=torch.arange(first, width, device=device),
                ).logits
            for row, i in enumerate(part):
                n, start = len(block[i].completion_ids), len(block[i].prompt_ids) - 1 - first
                if n == 0:
                    found[i] = []
                    continue
                at = logits[row, start : start + n].float().log_softmax(1)
                targets = torch.tensor(list(block[i].completion_ids), device=at.device)
                found[i] = read(at, targets)
        return [found[i] for i in range(len(block))]

    def _by_adapter(
        self, block: Sequence[T], adapters: Sequence[str | None], work: Callable[[Sequence[T]], list[R]]
    ) -> list[R]:
        """Runs the parts of a block that share an adapter, in order of first appearance."""
        found: dict[int, R] = {}
        for adapter in dict.fromkeys(adapters):
            where = [i for i, a in enumerate(adapters) if a == adapter]
            with self._wearing(adapter):
                for i, row in zip(where, work([block[i] for i in where]), strict=True):
                    found[i] = row
        return [found[i] for i in range(len(block))]

    @contextlib.contextmanager
    def _wearing(self, adapter: str | None) -> Iterator[None]:
        """The model with this adapter, or the bare base. A name is never used for two adapters."""
        import torch

        if adapter is not None and adapter not in self._adapters:
            self._load_adapter(adapter)
        with torch.inference_mode():
            if adapter is not None:
                self._model.set_adapter(self._adapters[adapter])
                yield
            elif self._adapters:
                with self._model.disable_adapter():
                    yield
            else:
                yield

    def _load_adapter(self, folder: str) -> None:
        from peft import PeftModel

        name = f"adapter-{len(self._adapters)}"
        if self._adapters:
            self._model.load_adapter(folder, adapter_name=name)
        else:
            self._model = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
        self._model.eval()
        self._adapters[folder] = name

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory: what runs out of it afterwards is a batch."""
        return self._model is not None

    @property
    def model(self) -> Any:
        """The weights, loaded once."""
        if self._model is None:
            base = load_base(self._folder, self._dtype, self._threads)
            self._model = group_heads(base) if base.device.type == "cpu" else base
        return self._model

    @property
    def _context(self) -> int:
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or 2**31)


def _of_targets(logprobs: Any, targets: Any) -> list[float]:
    found: list[float] = logprobs.gather(1, targets[:, None])[:, 0].tolist()
    return found


def _of_distributions(logprobs: Any, targets: Any) -> list[TokenStat]:
    """Entropy −Σ p log p, and KL(U ‖ p) = −log V − mean log p over the vocabulary of V tokens."""
    entropy = -(logprobs.exp() * logprobs).sum(dim=1)
    certainty = -math.log(logprobs.shape[1]) - logprobs.mean(dim=1)
    rows = zip(_of_targets(logprobs, targets), entropy.tolist(), certainty.tolist(), strict=True)
    return [TokenStat(*row) for row in rows]


def load_base(folder: str, dtype: str, threads: int | None) -> Any:
    """The frozen base in the stated precision, on the first GPU if any, with a deterministic thread count."""
    import torch
    from transformers import AutoModelForCausalLM

    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=resolve_dtype(dtype), attn_implementation="sdpa"
    )
    # Frozen in so many words: torch multiplies by weights that may want a gradient in another order, and
    # peft freezes them as soon as an adapter is loaded.
    return model.to(device).eval().requires_grad_(False)


def resolve_dtype(name: str) -> Any:
    """The torch dtype of a name; "auto" is bfloat16 on a GPU that has it and float32 elsewhere."""
    import torch

    if name == "auto":
        return (
            torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
        )
    return getattr(torch, name)


def _within(order: Sequence[int], lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Groups of a length-sorted order of at most `most` tokens with padding, at least one row each."""
    part: list[int] = []
    for i in order:
        if part and (len(part) + 1) * lengths[i] > most:
            yield part
            part = []
        part.append(i)
    if part:
        yield part
