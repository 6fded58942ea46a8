"""What a driver and its training tell each other through the folder: signs of life, and the wish to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfreward.engines.pulse import PULSE
from selfreward.training.job import STOP


def driven_callback(folder: Path) -> Any:
    """A trainer callback that beats at every pass, and saves and ends where the driver wants it to."""
    from transformers import TrainerCallback

    class Driven(TrainerCallback):  # type: ignore[misc]
        """Beats; looks for the wish to stop after every step."""

        def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            PULSE.beat()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            PULSE.beat()
            if _agreed((folder / STOP).exists(), args):
                control.should_save = control.should_training_stop = True

    return Driven()


def _agreed(asked: bool, args: Any) -> bool:
    """True on all processes as soon as one has seen the wish: they must stop after the same step."""
    if args.world_size == 1:
        return asked
    import torch

    flag = torch.tensor([float(asked)], device=args.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
