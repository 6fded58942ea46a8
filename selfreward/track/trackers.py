"""The three trackers, each told to stay on this machine."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

from selfreward.track.points import Point

HERE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}  # in the environment of a child


class Tracker(Protocol):
    """Takes points and, where asked for, texts; `close` returns when all of it is on the disk."""

    def point(self, point: Point) -> None:
        """One number."""

    def text(self, tag: str, x: int, text: str) -> None:
        """One text in Markdown, at a policy's index."""

    def flush(self) -> None:
        """What was told can be seen."""

    def close(self) -> None:
        """The run's command ends."""


def open_tracker(kind: str, folder: Path, run: str, recipe: dict[str, Any]) -> Tracker:
    """The tracker of that name, writing to `folder` alone, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    match kind:
        case "tensorboard":
            return _Tensorboard(folder)
        case "trackio":
            return _Trackio(folder, run, recipe)
        case "wandb":
            return _Wandb(folder, run, recipe)
        case _:
            raise ValueError(f"track is {kind!r}")


class _Tensorboard:
    """Event files; `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2
        self._tensor, self._string = tensor_pb2.TensorProto, types_pb2.DT_STRING
        self._writer = EventFileWriter(str(folder))

    def point(self, point: Point) -> None:
        self._add(point.x, self._summary.Summary.Value(tag=point.tag, simple_value=point.value))

    def text(self, tag: str, x: int, text: str) -> None:
        plugin = self._summary.SummaryMetadata.PluginData(plugin_name="text")
        tensor = self._tensor(dtype=self._string, string_val=[text.encode()])
        metadata = self._summary.SummaryMetadata(plugin_data=plugin)
        self._add(x, self._summary.Summary.Value(tag=tag, tensor=tensor, metadata=metadata))

    def _add(self, step: int, value: Any) -> None:
        summary = self._summary.Summary(value=[value])
        self._writer.add_event(self._event(step=step, wall_time=time.time(), summary=summary))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """A SQLite file of trackio's own; `TRACKIO_DIR=FOLDER trackio show` shows it."""

    def __init__(self, folder: Path, run: str, recipe: dict[str, Any]) -> None:
        for name in [n for n in os.environ if n.startswith("TRACKIO_")]:
            del os.environ[name]  # a space or a server that somebody's shell names would get the run
        os.environ["TRACKIO_DIR"] = str(folder)  # read when it is imported
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            project=run, name=run, config=recipe, embed=False, auto_log_gpu=False, auto_log_cpu=False
        )

    def point(self, point: Point) -> None:
        self._trackio.log(
            {point.tag: point.value, "policy": point.policy, "stage": point.stage}, step=point.x
        )

    def text(self, tag: str, x: int, text: str) -> None:
        self._trackio.log({tag: self._trackio.Markdown(text)}, step=x)

    def flush(self) -> None:
        """It writes by itself."""

    def close(self) -> None:
        self._trackio.finish()


class _Wandb:
    """An offline run; `wandb sync FOLDER/wandb/offline-run-*` sends it where its owner wants it."""

    def __init__(self, folder: Path, run: str, recipe: dict[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        settings = wandb.Settings(x_disable_stats=True, disable_git=True, console="off", save_code=False)
        self._run = wandb.init(
            project="selfreward", name=run, config=recipe, dir=str(folder), mode="offline", settings=settings
        )
        self._known: set[str] = set()

    def point(self, point: Point) -> None:
        axis = f"{point.tag.partition('/')[0]}/step" if point.axis == "step" else "policy"
        if point.tag not in self._known:
            self._known.add(point.tag)
            self._run.define_metric(point.tag, step_metric=axis)
        self._run.log({point.tag: point.value, axis: point.x, "policy": point.policy, "stage": point.stage})

    def text(self, tag: str, x: int, text: str) -> None:
        self._run.log({tag: self._wandb.Table(columns=["text"], data=[[text]]), "policy": x})

    def flush(self) -> None:
        """It writes by itself."""

    def close(self) -> None:
        self._run.finish()
