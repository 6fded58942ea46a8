"""`status --signals`: each signal over the policies, as bars and as data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfreward import cli
from selfreward import records as r
from selfreward.outlook import signals
from selfreward.show.signals import curve
from selfreward.store import Store, Views
from tests.test_store import policy


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three policies whose distinct_2 falls; the gate warned of it at M2 and halted M1's pairs for ties."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iterations/mine").mkdir(parents=True)
    (tmp_path / "iterations/mine.yaml").write_text("model: base\n")
    path = tmp_path / "iterations/mine/selfreward.db"
    store = Store(path, write=True)
    store.save(r.Run(id=1, name="mine", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    store.save(policy(0), policy(1), policy(2))
    for name, value in (("M0", 0.9), ("M1", 0.8), ("M2", 0.5)):
        of = {"run_id": 1, "policy": name, "stage": "probe", "name": "distinct_2"}
        store.put_metrics([r.Metric(**of, value=value, n=64, low=value - 0.1, high=value + 0.1)])
    gate = {"run_id": 1, "message": "m"}
    store.put_findings(
        r.Alarm(**gate, policy="M2", stage="probe", signal="distinct_2", level="warn", threshold=0.6),
        r.Alarm(**gate, policy="M1", stage="pairs", signal="ties", level="halt", value=0.9, threshold=0.7),
    )
    store.close()
    return path


def test_values_stand_in_the_order_of_policies_with_their_levels(database: Path) -> None:
    found = signals(Views(database, write=False).status())
    assert [(p["policy"], p["value"], p["level"]) for p in found["probe/distinct_2"]] == [
        ("M0", 0.9, None), ("M1", 0.8, None), ("M2", 0.5, "warn"),
    ]  # fmt: skip
    assert [(p["policy"], p["threshold"], p["level"]) for p in found["pairs/ties"]] == [("M1", 0.7, "halt")]


def test_the_command_draws_them(database: Path) -> None:
    shown = CliRunner().invoke(cli.app, ["status", "--signals"])
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines.index(["after", "pairs"]) < lines.index(["after", "probe"])
    assert ["distinct_2", "M0-M2", "█▆▁", "0.5", "0.9", "0.5", "0.6", "warn"] in lines
    data = json.loads(CliRunner().invoke(cli.app, ["status", "--signals", "--json"]).stdout)
    assert data["pairs/ties"][0]["value"] == 0.9


def test_a_curve_runs_from_the_least_to_the_greatest_and_leaves_gaps() -> None:
    """Of 0, 7 and 3.5: first bar, last bar, round(3.5) = 4 of 0..7; equal values stay in the middle."""
    assert curve([0.0, 7.0, None, 3.5]) == "▁█ ▅"
    assert curve([2.0, 2.0]) == "▄▄"
