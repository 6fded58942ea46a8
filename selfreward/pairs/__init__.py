"""Pair mining: from the judgements of one prompt's candidates to pairs, or to the reason why there are none.

Pure: rows in, rows out. `mining` is what every rule shares, with the paper's own rule; `rules` the others,
with the filters; `lengths` the search for what a token of length should cost.
"""

from selfreward.pairs.mining import EQUAL, Contender, Mined, Terms, best_vs_worst, usable
from selfreward.pairs.rules import RULES, Rule, mine

__all__ = ["EQUAL", "RULES", "Contender", "Mined", "Rule", "Terms", "best_vs_worst", "mine", "usable"]
