"""The collapse detector: signals, the limits they are held against, and the gates' findings."""

from selfreward.collapse.gates import FLOOR, MOVED, Iteration, after_pairs, after_probe, of_data
from selfreward.collapse.limits import LIMITS, Finding, Limit

__all__ = [
    "FLOOR",
    "LIMITS",
    "MOVED",
    "Finding",
    "Iteration",
    "Limit",
    "after_pairs",
    "after_probe",
    "of_data",
]
