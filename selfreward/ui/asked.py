"""What an address asks for: filters and places in a list, read from its query and written back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from urllib.parse import urlencode

from selfreward.errors import BadInput
from selfreward.store import PairFilter
from selfreward.store.finding import REVIEWS, SORTS, Key
from selfreward.store.glances import PromptFilter

LONGEST_SEARCH = 200


def pair_filter(query: Mapping[str, str]) -> PairFilter:
    """The filter of an address; raises `BadInput` for a value that no filter has."""
    return PairFilter(
        of=_given(query, "of"),
        min_margin=_margin(query.get("min_margin", "")),
        search=_search(query),
        fault=_given(query, "fault"),
        scorer=_given(query, "scorer"),
        review=_one_of(query, "review", REVIEWS),
        sort=_one_of(query, "sort", SORTS) or "id",
    )


def query_of(wanted: PairFilter, **more: str | None) -> str:
    """The query that asks for this filter, with more keys; starts with `?` unless it is empty."""
    plain = PairFilter()
    names = ("of", "search", "fault", "scorer", "review", "sort")
    items = [(n, getattr(wanted, n)) for n in names if getattr(wanted, n) != getattr(plain, n)]
    if wanted.min_margin:
        items.append(("min_margin", repr(wanted.min_margin)))
    return query_string({**dict(items), **more})


def query_string(items: Mapping[str, str | None]) -> str:
    """Keys that have a value, as a query."""
    kept = {k: v for k, v in items.items() if v}
    return f"?{urlencode(kept)}" if kept else ""


def key_of(text: str | None) -> Key | None:
    """A place in a list, as `MARGIN:ID`."""
    if not text:
        return None
    margin, _, number = text.partition(":")
    try:
        found = Key(float(margin), int(number))
    except ValueError:
        raise BadInput(f"{text!r} is no place in the list") from None
    if not math.isfinite(found.margin) or not 0 <= found.id < 2**53:
        raise BadInput(f"{text!r} is no place in the list")
    return found


def place(key: Key) -> str:
    """A key as `key_of` reads it."""
    return f"{key.margin!r}:{key.id}"


def prompt_filter(query: Mapping[str, str]) -> PromptFilter:
    """The filter of the list of prompts."""
    return PromptFilter(
        of=_given(query, "of"),
        status=_one_of(query, "status", ("accepted", "rejected")),
        source=_one_of(query, "source", ("seed", "self-instruct", "user")),
        outcome=_given(query, "outcome"),
        search=_search(query),
    )


def _given(query: Mapping[str, str], name: str) -> str | None:
    return query.get(name, "").strip()[:LONGEST_SEARCH] or None


def _search(query: Mapping[str, str]) -> str | None:
    return query.get("search", "")[:LONGEST_SEARCH] or None


def _one_of(query: Mapping[str, str], name: str, known: tuple[str, ...]) -> str | None:
    value = _given(query, name)
    if value is not None and value not in known:
        raise BadInput(f"{name} is {value!r}; it takes {', '.join(known)}")
    return value


def _margin(text: str) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        raise BadInput(f"min_margin is {text!r}; it takes a number") from None
    if not 0 <= value < 1e300:
        raise BadInput(f"min_margin is {text!r}; it takes a number of at least 0")
    return value
