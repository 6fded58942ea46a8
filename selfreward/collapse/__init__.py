"""The collapse detector: signals, the limits they are held against, and the gates' findings."""

from selfreward.collapse.gates import FLOOR, MOVED, after_pairs, after_probe
from selfreward.collapse.limits import LIMITS, Finding, Limit

__all__ = ["FLOOR", "LIMITS", "MOVED", "Finding", "Limit", "after_pairs", "after_probe"]
