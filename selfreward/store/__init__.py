"""The store: the only package that speaks SQL.

`Store` is the driver's, `Views` and `Reviews` the doors', `Lock` keeps one writer. The driver's side,
with the tables' classes, is loaded when it is asked for: who only looks does not wait for it.
"""

from typing import TYPE_CHECKING, Any

from selfreward.store.finding import PairFilter
from selfreward.store.glances import Glances
from selfreward.store.lock import Lock, is_held
from selfreward.store.reviews import Reviews
from selfreward.store.views import Views

if TYPE_CHECKING:
    from selfreward.store.store import Store

__all__ = ["Glances", "Lock", "PairFilter", "Reviews", "Store", "Views", "is_held"]


def __getattr__(name: str) -> Any:
    if name == "Store":
        from selfreward.store.store import Store

        return Store
    raise AttributeError(name)
