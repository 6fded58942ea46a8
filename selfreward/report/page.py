"""The report as one HTML file: nothing in it runs, nothing in it comes from elsewhere, all of it escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfreward.errors import WorkFailed
from selfreward.report import figures
from selfreward.report.words import interval, meaning, number, summary, trained_rows
from selfreward.ui.markup import environment

LARGEST = 1_000_000  # bytes of the file
TEMPLATES = Path(__file__).resolve().parent / "templates"
NOTES = {
    "signals": "What the probe and the gates watch, by policy. Bars are 95 % intervals; dashed, the level at "
    "which a gate speaks; a value beyond the level that warns is fine while its interval reaches back "
    "over it.",
    "drift": "How far each policy has moved from the base, and what it got for it. A proxy that rises while "
    "what is measured falls is how a judge is cheated.",
    "scores": "Scores the judge gave to each policy's answers, by scorer.",
    "lengths": "Tokens of each policy's answers.",
}


def page(facts: dict[str, Any]) -> str:
    """The whole file, at most `LARGEST` bytes. Raises `BadInput` without matplotlib."""
    from markupsafe import Markup

    drawn = {name: Markup(svg) for name, svg in figures.all_of(facts).items()}
    made = environment(TEMPLATES)
    made.filters |= {"number": number, "interval": interval, "meaning": meaning, "trained_rows": trained_rows}
    text = str(
        made.get_template("report.html").render(
            facts=facts,
            said=summary(facts),
            drawn=drawn,
            notes=NOTES,
            recipe=json.dumps(facts["run"]["recipe"] if facts["run"] else {}, indent=2),
        )
    )
    size = len(text.encode())
    if size > LARGEST:
        raise WorkFailed(
            f"the report has {size:,} bytes, more than the {LARGEST:,} promised: please report it"
        )
    return text
