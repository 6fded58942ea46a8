"""Batched decoding where each row draws from its own generator, and finished rows leave the batch.

It knows token ids, a model's forward pass and a key-value cache; no chats, no adapters. What a row draws
depends on its own seed and on the logits, never on its neighbours' draws or on a global generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from selfreward.engines.pulse import PULSE
from selfreward.protocols import Sampling

NUCLEUS_WIDTH = 512  # most nuclei fit in this many tokens; a row whose nucleus does not is sorted whole
SHARED_PREFIX = 16  # below this a shared opening is not worth a forward pass of its own
COMPACT_AT = 0.75  # rows are dropped from the cache when no more than this share is still alive


@dataclass(slots=True)
class Row:
    """One completion being drawn; `ids` and `logprobs` grow by one a step."""

    prompt_ids: list[int]
    sampling: Sampling
    draws: torch.Tensor  # one uniform number a step, from the row's own seed
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False

    @classmethod
    def of(cls, prompt_ids: list[int], sampling: Sampling, seed: int) -> Row:
        """A fresh row; the seed may be any integer."""
        generator = torch.Generator().manual_seed(seed % 2**63)
        return cls(
            prompt_ids,
            sampling,
            torch.rand(sampling.max_new_tokens, generator=generator, dtype=torch.float64),
        )

    @property
    def done(self) -> bool:
        """Whether it stopped or reached its limit."""
        return self.stopped or len(self.ids) >= self.sampling.max_new_tokens


class _Slab:
    """A layer's keys or values in a buffer with room for the whole answer: steps write, nothing is copied."""

    def __init__(self, like: torch.Tensor, room: int) -> None:
        self.data = like.new_empty((*like.shape[:2], like.shape[2] + room, like.shape[3]))
        self.length = 0

    def append(self, states: torch.Tensor) -> torch.Tensor:
        end = self.length + states.shape[2]
        self.data[:, :, self.length : end] = states
        self.length = end
        return self.data[:, :, :end]


def _roomy_cache(config: Any, room: int) -> Any:
    """A DynamicCache whose full-attention layers have `room` more positions than their first write."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class SlabLayer(DynamicLayer):  # type: ignore[misc]
        is_initialized: bool

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self.dtype, self.device = key_states.dtype, key_states.device
                self.is_initialized = True
                self._slabs = _Slab(key_states, room), _Slab(value_states, room)
            self.keys, self.values = self._slabs[0].append(key_states), self._slabs[1].append(value_states)
            return self.keys, self.values

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            for slab in self._slabs:
                kept = slab.data[indices, :, : slab.length]
                slab.data = kept.new_empty((len(indices), *slab.data.shape[1:]))
                slab.data[:, :, : slab.length] = kept
            self.keys, self.values = (s.data[:, :, : s.length] for s in self._slabs)

    cache = DynamicCache(config=config)
    cache.layers = [SlabLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if not cache.layers:
        cache.layer_class_to_replicate = SlabLayer
    return cache


def attends_to_all(config: Any) -> bool:
    """Whether every layer keeps every position: rows and openings can then be shared or dropped.

    Sliding windows count padding as positions, and recurrent layers hold no positions at all.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


@dataclass(slots=True)
class Prefilled:
    """The state after the prompts.

    `logits` are those of the last `keep` positions, `(n, keep, vocabulary)`, `position` the next ones,
    `(n, 1)`.
    """

    logits: torch.Tensor
    cache: Any
    mask: torch.Tensor
    position: torch.Tensor


def common_prefix(prompts: Sequence[Sequence[int]], leave: int = 1) -> int:
    """Length of the opening that all prompts share, leaving each at least `leave` tokens of its own."""
    first, last = min(map(list, prompts)), max(map(list, prompts))
    shorter = min(len(first), len(last))
    n = next((i for i in range(shorter) if first[i] != last[i]), shorter)
    return max(0, min(n, min(len(p) for p in prompts) - leave))


def prefill(
    model: Any, prompts: Sequence[Sequence[int]], pad_id: int, *, room: int = 0, keep: int = 1
) -> Prefilled:
    """Feeds the prompts, a shared opening only once: the rubric of a judge, the few-shot text of a round."""
    device = model.device
    shared = common_prefix(prompts, leave=keep)
    if len(prompts) == 1 or shared < SHARED_PREFIX or not attends_to_all(model.config):
        shared = 0
    width = max(len(p) for p in prompts) - shared
    cache = _roomy_cache(model.config, width + room)
    if shared:
        head = torch.tensor([list(prompts[0][:shared])], device=device)
        model(input_ids=head, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_select_indices(torch.zeros(len(prompts), dtype=torch.long, device=device))
    tails = [list(p[shared:]) for p in prompts]
    ids = torch.tensor([[pad_id] * (width - len(t)) + t for t in tails], device=device)
    own = torch.tensor([[0] * (width - len(t)) + [1] * len(t) for t in tails], device=device)
    mask = torch.cat([torch.ones((len(prompts), shared), dtype=own.dtype, device=device), own], dim=1)
    position = (shared + own.cumsum(1) - 1).clamp(min=0)
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    return Prefilled(out.logits.float(), cache, mask, position[:, -1:] + 1)


def decode(model: Any, rows: Sequence[Row], stop_ids: frozenset[int], pad_id: int) -> None:
    """Draws every row to its end, in place. Equal prompts are fed once, finished rows leave the batch."""
    room = max(r.sampling.max_new_tokens for r in rows)
    alive, free = list(rows), attends_to_all(model.config)
    if free:
        unique = sorted({tuple(r.prompt_ids) for r in rows})
        where = {p: i for i, p in enumerate(unique)}
        state = prefill(model, unique, pad_id, room=room)
        _keep(state, torch.tensor([where[tuple(r.prompt_ids)] for r in alive], device=model.device))
    else:
        state = prefill(model, [r.prompt_ids for r in rows], pad_id, room=room)
    while True:
        PULSE.beat()
        tokens = _step(alive, state.logits[:, -1], stop_ids)
        left = [i for i, r in enumerate(alive) if not r.done]
        if not left:
            return
        if free and len(left) <= COMPACT_AT * len(alive):
            keep = torch.tensor(left, device=model.device)
            _keep(state, keep)
            tokens, alive = tokens[keep], [alive[i] for i in left]
        state.mask = torch.cat([state.mask, state.mask.new_ones((len(alive), 1))], dim=1)
        out = model(
            input_ids=tokens[:, None],
            attention_mask=state.mask,
            position_ids=state.position,
            past_key_values=state.cache,
            use_cache=True,
        )
        state.logits, state.position = out.logits[:, -1:].float(), state.position + 1


def _keep(state: Prefilled, rows: torch.Tensor) -> None:
    state.cache.batch_select_indices(rows)
    state.logits, state.mask, state.position = state.logits[rows], state.mask[rows], state.position[rows]


def _step(rows: list[Row], logits: torch.Tensor, stop_ids: frozenset[int]) -> torch.Tensor:
    """Draws the next token of every row that is not done; returns one id a row, shape `(n,)`."""
    drawn = torch.tensor([0.0 if r.done else float(r.draws[len(r.ids)]) for r in rows], dtype=torch.float64)
    tokens = draw(logits, [r.sampling for r in rows], drawn.to(logits.device))
    logprobs = (logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)).tolist()
    for row, token, logprob in zip(rows, tokens.tolist(), logprobs, strict=True):
        if not row.done:
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.stopped = token in stop_ids
    return tokens


def draw(logits: torch.Tensor, samplings: Sequence[Sampling], uniform: torch.Tensor) -> torch.Tensor:
    """One token id a row by inversion of the tempered, truncated distribution at `uniform`, shape `(n,)`."""
    tokens = logits.argmax(1)
    for sampling in dict.fromkeys(samplings):
        if sampling.temperature == 0:
            continue
        rows = torch.tensor([i for i, s in enumerate(samplings) if s == sampling], device=logits.device)
        tokens[rows] = _draw_alike(logits[rows] / sampling.temperature, sampling, uniform[rows])
    return tokens


def _draw_alike(logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor) -> torch.Tensor:
    probabilities = logits.softmax(1)
    vocabulary = logits.shape[1]
    if sampling.top_p >= 1 and not 0 < sampling.top_k < vocabulary:
        return _invert(probabilities, uniform)
    width = min(NUCLEUS_WIDTH if sampling.top_k == 0 else sampling.top_k, vocabulary)
    top, ids = probabilities.topk(width, dim=1)
    if sampling.top_k:
        top = top / top.sum(1, keepdim=True)  # top-p is a share of what top-k left
    picked = ids.gather(1, _invert_nucleus(top, sampling.top_p, uniform)[:, None])[:, 0]
    if sampling.top_k == 0 and width < vocabulary:
        wide = (top.sum(1) < sampling.top_p).nonzero()[:, 0]
        if len(wide):
            top, ids = probabilities[wide].sort(dim=1, descending=True)
            picked[wide] = ids.gather(1, _invert_nucleus(top, sampling.top_p, uniform[wide])[:, None])[:, 0]
    return picked


def _invert_nucleus(sorted_probabilities: torch.Tensor, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    """Keeps the fewest largest probabilities that reach `top_p` of the mass kept so far, then inverts."""
    before = sorted_probabilities.cumsum(1) - sorted_probabilities
    return _invert(sorted_probabilities.masked_fill(before >= top_p, 0.0), uniform)


def _invert(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Index of the first cumulative probability above `uniform` of the total; never one of probability 0."""
    cumulative = probabilities.double().cumsum(1)
    target = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=probabilities.shape[1] - 1)
