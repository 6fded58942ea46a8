"""A judge held against people: items they rated, what the judge said of them, and the numbers of both.

Pure. `items` reads rows in the shapes such data comes in, `attacks` writes texts that ask for a good score,
`measures` turns verdicts into numbers with their intervals.
"""

from selfreward.calibration.attacks import ATTACKS, Attack, attacked, plan
from selfreward.calibration.items import Item, items_of
from selfreward.calibration.measures import Said, Scale, as_data, histogram, is_coin, measures

__all__ = [
    "ATTACKS",
    "Attack",
    "Item",
    "Said",
    "Scale",
    "as_data",
    "attacked",
    "histogram",
    "is_coin",
    "items_of",
    "measures",
    "plan",
]
