"""The store: the only package that speaks SQL.

`Store` is the driver's, `Views` and `Reviews` the doors', `Lock` keeps one writer.
"""

from selfreward.store.finding import PairFilter
from selfreward.store.glances import Glances
from selfreward.store.lock import Lock, is_held
from selfreward.store.reviews import Reviews
from selfreward.store.store import Store
from selfreward.store.views import Views

__all__ = ["Glances", "Lock", "PairFilter", "Reviews", "Store", "Views", "is_held"]
