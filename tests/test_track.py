"""A run in a tracker: each measure once and under the right axis, here alone, and never in the run's way."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from selfreward import records as r
from selfreward.errors import BadInput
from selfreward.recipe import Recipe
from selfreward.store import Store
from selfreward.store.accounts import Accounts
from selfreward.track import follow
from selfreward.track.points import Told
from tests.gallery import ATTACK, PAIRS, PLAIN, build


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "gallery").mkdir()
    return build(tmp_path / "gallery/selfreward.db")


def told(told: Told, path: Path) -> list[tuple[str, str, int, float]]:
    views = Accounts(path, write=False)
    found = [(p.tag, p.axis, p.x, p.value) for p in told.points(views)]
    views.close()
    return found


def test_measures_go_by_policy_and_trainings_by_step(path: Path) -> None:
    """The gallery: kl_m0 of M1 is 0.25 [0.125, 0.5]; a loss of M2 at steps 1 and 3, at 2 it was no number."""
    found = told(Told(False), path)
    assert ("probe/kl_m0", "policy", 1, 0.25) in found
    assert ("probe/kl_m0/low", "policy", 1, 0.125) in found and (
        "probe/kl_m0/high",
        "policy",
        1,
        0.5,
    ) in found
    assert [p for p in found if p[0] == "M2/train/loss"] == [
        ("M2/train/loss", "step", 1, 0.7), ("M2/train/loss", "step", 3, 0.6)
    ]  # fmt: skip
    assert ("probe/gate/loops", "policy", 1, 0.5) in found
    assert ("prompts/cost/seconds", "policy", 1, 7.0) in found and (
        "prompts/cost/tokens",
        "policy",
        1,
        70,
    ) in found
    assert not [p for p in found if p[0].startswith("judge/cost")]  # it runs still


def test_a_second_look_tells_what_is_new_or_has_changed(path: Path) -> None:
    known = Told(False)
    assert told(known, path) and told(known, path) == []
    store = Store(path, write=True)
    of = {"run_id": 1, "policy": "M1", "stage": "probe", "n": 6}
    store.put_metrics([r.Metric(**of, name="kl_m0", value=0.375), r.Metric(**of, name="new", value=1.0)])
    store.close()
    assert told(known, path) == [("probe/kl_m0", "policy", 1, 0.375), ("probe/new", "policy", 1, 1.0)]


def test_texts_are_told_only_when_they_are_asked_for_and_are_no_markup(path: Path) -> None:
    views = Accounts(path, write=False)
    assert list(Told(False).texts(views)) == []
    asked = Told(True)
    texts = {tag: text for tag, _, text in asked.texts(views)}
    assert f"M1/pair {PAIRS[PLAIN]}" in texts and len(texts) == 3 and list(asked.texts(views)) == []
    assert all(line.startswith("    ") for text in texts.values() for line in text.splitlines())
    assert not any("\x1b" in text or "\u202e" in text for text in texts.values())
    views.close()


def test_nothing_is_tracked_unless_the_recipe_says_so(path: Path) -> None:
    recipe = Recipe.model_validate({"model": "m"})
    assert (recipe.track, recipe.track_texts) == ("none", False)
    with follow.followed(path, recipe.track, recipe.track_texts, pytest.fail):
        pass
    assert not (path.parent / "tracking").exists()


def kept(path: Path) -> bytes:
    """All that the tracker left."""
    return b"".join(p.read_bytes() for p in (path.parent / "tracking").rglob("*") if p.is_file())


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("kind", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_has_the_numbers_and_the_texts_only_when_asked(path: Path, kind: str, texts: bool) -> None:
    pytest.importorskip(kind, reason=f"{kind} is not installed")
    said: list[str] = []
    for _ in range(2):  # the second command writes the folder anew
        with follow.followed(path, kind, texts, said.append):
            pass
    assert said == []
    found = kept(path)
    assert b"probe/kl_m0" in found and b"M2/train/loss" in found
    assert (b"The cat sat" in found) is texts
    assert ATTACK.encode() not in found


def test_tensorboard_reads_back_what_was_measured(path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with follow.followed(path, "tensorboard", False, pytest.fail):
        pass
    read = EventAccumulator(str(path.parent / "tracking/tensorboard"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("probe/kl_m0")] == [(1, 0.25)]
    assert [e.step for e in read.Scalars("M2/train/loss")] == [1, 3]


def test_trackio_is_not_sent_where_a_shell_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a space named in the environment trackio would send the run there."""
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/elses")
    said: list[str] = []
    with follow.followed(path, "trackio", False, said.append):
        pass
    assert said == []
    database = sqlite3.connect(path.parent / "tracking/trackio/gallery.db")
    steps = {
        s
        for (s,) in database.execute(
            "SELECT step FROM metrics WHERE CAST(metrics AS TEXT) LIKE '%probe/kl_m0\"%'"
        )
    }
    assert steps == {1}
    database.close()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A package named wandb with this source, where the tracker's process finds it first."""

    def make(source: str) -> None:
        (tmp_path / "fake").mkdir()
        (tmp_path / "fake/wandb.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "fake")
        rest = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'fake'}{os.pathsep}{rest}")

    return make


@pytest.mark.parametrize("source", ["raise OSError('out of order')", "import time; time.sleep(600)"])
def test_a_tracker_that_fails_or_hangs_is_a_line(
    path: Path, fake: Callable[[str], None], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(source)
    monkeypatch.setattr(follow, "PATIENCE", 3.0 if "sleep" in source else 60.0)
    said: list[str] = []
    with follow.followed(path, "wandb", False, said.append):
        pass
    assert len(said) == 1 and said[0].startswith("wandb did not follow to the end")
    assert "out of order" in said[0] or "sleep" in source


def test_a_tracker_that_is_not_there_is_one_line_before_anything_starts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "find_spec", lambda name: None)
    with (
        pytest.raises(BadInput, match="pip install trackio"),
        follow.followed(path, "trackio", False, print),
    ):
        pytest.fail("the run began")
