"""Evaluation: how answers are checked. The suites of the loop's `evaluate` stage are small and offline."""
