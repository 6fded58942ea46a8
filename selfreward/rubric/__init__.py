"""Rubrics: the text a judge reads, and how a verdict is read from what the judge wrote.

Pure: text in, text or verdict out. `form` is the file and the chat made from it, `numbers` how one number is
read, `reading` the verdict of each kind of rubric, `contest` pairwise verdicts as one number a candidate.
"""

from selfreward.rubric.form import KINDS, OPENING, SCALAR, Rubric, parse, render, render_pair, transcript
from selfreward.rubric.reading import LOW_MASS, expectation, read, verdict, without_prior

__all__ = [
    "KINDS",
    "LOW_MASS",
    "OPENING",
    "SCALAR",
    "Rubric",
    "expectation",
    "parse",
    "read",
    "render",
    "render_pair",
    "transcript",
    "verdict",
    "without_prior",
]
