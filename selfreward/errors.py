"""Every error a user can meet, with the exit code it ends in.

    SelfRewardError
    ├── BadInput           3   a recipe, a file, a folder or a model that cannot be used
    │   ├── RecipeError        the recipe itself
    │   └── StoreError         the store: locked, newer than this version
    │       └── RecipeChanged  rows were made from another recipe; `changes` are the keys that differ
    ├── WorkFailed         4   an engine or a training ended without its result
    ├── GateHalted         5   a gate stopped the run, or an iteration changed nothing
    └── Interrupted      130   a signal, or a limit of the recipe; the same command goes on

Usage errors (exit code 2) are the command line's own. Each message is one line: the thing, the reason, the
next move.
"""

from collections.abc import Sequence
from typing import Any


class SelfRewardError(Exception):
    """The root; `exit_code` is what the process ends with."""

    exit_code = 1


class BadInput(SelfRewardError):
    """Something the user gave cannot be used as it is."""

    exit_code = 3


class RecipeError(BadInput):
    """The recipe has an unknown key, a wrong value, or asks for what cannot be had."""


class StoreError(BadInput):
    """The store cannot be opened, is held by another process, or cannot do what was asked."""


class RecipeChanged(StoreError):
    """Stages were made from another recipe. `changes` are (stage, key, value then, value now), in order."""

    def __init__(self, message: str, changes: Sequence[tuple[str, str, Any, Any]]) -> None:
        super().__init__(message)
        self.changes = list(changes)


class WorkFailed(SelfRewardError):
    """A child process ended without the result it was asked for."""

    exit_code = 4


class GateHalted(SelfRewardError):
    """The run was stopped on purpose: what it would do next is not worth doing."""

    exit_code = 5


class Interrupted(SelfRewardError):
    """A signal arrived, or a limit is reached; everything stored is whole."""

    exit_code = 130
