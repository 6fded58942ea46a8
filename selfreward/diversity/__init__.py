"""How varied texts are, and whether they loop: across prompts, within a prompt, against their prompts."""

from selfreward.diversity.across import distinct_2
from selfreward.diversity.phrases import loops, words

__all__ = ["distinct_2", "loops", "words"]
