"""Which engine a name stands for; its library is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfreward.protocols import Engine

if TYPE_CHECKING:
    from selfreward.engines.reward_model import RewardModel


def open_engine(kind: str, settings: dict[str, Any]) -> Engine | RewardModel:
    """The engine of that name."""
    match kind:
        case "transformers":
            from selfreward.engines.transformers_engine import TransformersEngine

            return TransformersEngine(**settings)
        case "vllm":
            from selfreward.engines.vllm_engine import VllmEngine

            return VllmEngine(**settings)
        case "openai":
            from selfreward.engines.openai_engine import OpenaiEngine

            return OpenaiEngine(**settings)
        case "openai-text":
            from selfreward.engines.text_engine import TextEngine

            return TextEngine(**settings)
        case "reward-model":
            from selfreward.engines.reward_model import RewardModel

            return RewardModel(**settings)
        case _:
            raise ValueError(f"no engine is called {kind!r}")
