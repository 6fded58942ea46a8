"""The collapse detector: signals, the limits they are held against, and the gates' findings."""

from selfreward.collapse.gates import FLOOR, MOVED, Iteration, after_pairs, after_probe, of_data
from selfreward.collapse.limits import LIMITS, Finding, Limit
from selfreward.collapse.probing import Probed, of_policy

__all__ = [
    "FLOOR",
    "LIMITS",
    "MOVED",
    "Finding",
    "Iteration",
    "Limit",
    "Probed",
    "after_pairs",
    "after_probe",
    "of_data",
    "of_policy",
]
