"""The store: the only package that speaks SQL.

`Store` is the driver's, `Views` the doors', `Lock` keeps one writer.
"""

from selfreward.store.lock import Lock
from selfreward.store.store import Store
from selfreward.store.views import Views

__all__ = ["Lock", "Store", "Views"]
