"""Measures over policies in a terminal: nothing broken, nothing left out, whatever the width."""

from __future__ import annotations

import io
from typing import Any

import pytest

from selfreward.show import console as consoles
from selfreward.show.measures import measures, number

POLICIES: list[dict[str, Any]] = [
    {
        "name": f"M{i}",
        "metrics": {
            "kl_m0": {"value": 0.04329, "low": 0.0361, "high": 0.0507, "n": 48},
            "kl_m0_k1": {"value": 7.77, "low": None, "high": None, "n": 48},
            "two_turn/score": {"value": 5.49 + i, "low": 5.3 + i, "high": 5.7 + i, "n": 16},
            "gradient": {"value": None, "low": None, "high": None, "n": 3},
            "noise": {"value": 8.88, "low": None, "high": None, "n": 1},
        },
    }
    for i in range(6)
]


def drawn(monkeypatch: pytest.MonkeyPatch, width: int) -> list[str]:
    monkeypatch.setattr(consoles.console, "width", width)
    out = io.StringIO()
    for table in measures(POLICIES):
        console = consoles.Console(file=out, width=width)
        console.print(table)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 60, 80, 100, 240])
def test_every_policy_is_there_whole_in_any_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = drawn(monkeypatch, width)
    assert max(map(len, lines)) <= width
    said = "\n".join(lines)
    for i in range(6):
        assert f"{number(5.49 + i, 3)} n=16" in said and f"M{i}" in said
    assert said.count("[0.036, 0.051]") == 6 and said.count("not finite n=3") == 6
    assert "7.77" not in said and "8.88" not in said


def test_policies_stand_side_by_side_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {w: [x for x in drawn(monkeypatch, w) if x.startswith("measure")] for w in (30, 240)}
    assert (len(heads[30]), len(heads[240])) == (6, 1)


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(0.0425, 3, "0.0425"), (0.00051, 2, "5.1e-4"), (-0.00275, 2, "-0.0027"), (128.4, 2, "128"), (0, 2, "0"),
     (1234.5, 3, "1234"), (41.9, 2, "42"), (0.9, 2, "0.9")],
)  # fmt: skip
def test_a_number_keeps_its_first_digits(value: float, digits: int, said: str) -> None:
    assert number(value, digits) == said
