"""What the sections of a recipe are made of: bounded numbers, sampling, a server's address.

`recipe` and `rewards` are built from it; nothing here knows which sections there are.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the recipe; unknown keys are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingOptions(Section):
    """Every sampling field is stated; engines add nothing of their own."""

    temperature: Annotated[float, Field(ge=0)] = 0.7  # Self-Rewarding LMs, section 3.1.2
    top_p: Share = 0.9
    top_k: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: Count = 512


class Allowance(Section):
    """What one command may spend on a server; it stops at a block's end, and the same command goes on."""

    hours: Annotated[float, Field(gt=0)] | None = None
    requests: Count | None = None  # every try counts
    tokens: Count | None = None  # in and out, as the server counts them


def check_server(where: str, url: str | None, api_key_env: str) -> None:
    """Raises ValueError where an address or the name of a key's variable cannot be meant.

    Messages name no value: whoever writes the key itself into a recipe must not read it in a log.
    """
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{where}.url is no http address such as http://127.0.0.1:8000/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"{where}.url holds no key or password: {where}.api_key_env names where it is")
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", api_key_env):
        raise ValueError(
            f"{where}.api_key_env is the name of an environment variable, in capitals, and not the key"
        )
