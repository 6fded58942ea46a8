"""Numbers with their n and their 95 % interval.

Pure, numpy only. Means cluster by prompt; shares use Wilson, which does not collapse near 0 and 1;
differences are paired by prompt. Every resampling is seeded by its arguments, so a number is the same
whenever it is computed.
"""

from selfreward.stats.comparing import (
    bounded,
    clustered_difference,
    detectable,
    holm,
    prompts_needed,
    sign_flip,
)
from selfreward.stats.correlation import kendall, pearson, spearman
from selfreward.stats.intervals import (
    RESAMPLES,
    Z95,
    Interval,
    draws,
    jackknife,
    mean,
    paired_difference,
    ratio,
    share,
    spread,
    student,
    wilson,
)
from selfreward.stats.parts import (
    Estimate,
    difference,
    estimate,
    interval_of,
    linearised,
    pseudo,
    quotient,
    share_of,
)
from selfreward.stats.samples import attempts, majority, pass_at_k

__all__ = [
    "RESAMPLES", "Z95", "Estimate", "Interval", "attempts", "bounded", "clustered_difference",
    "detectable", "difference", "draws", "estimate", "holm", "interval_of", "jackknife", "kendall",
    "linearised", "majority", "mean", "paired_difference", "pass_at_k", "pearson", "prompts_needed",
    "pseudo", "quotient", "ratio", "share", "share_of", "sign_flip", "spearman", "spread", "student",
    "wilson",
]  # fmt: skip
