"""How a training of several processes is started: command lines for one machine or for many.

Pure: sizes in, words out. One machine needs nothing but torchrun; on several, the recipe's own launcher
(`srun`, `ssh`) is put before the same command and starts it on each.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

PORT = 29500  # where the machines meet, on the master: torchrun's own


@dataclass(frozen=True, slots=True)
class Launch:
    """`processes` of each of `nodes` machines; `prefix` is put before the command as it stands.

    In `prefix` `{nodes}` and `{master}` are filled in; where `{rank}` stands, one command is started for
    each machine, else one for all.
    """

    processes: int
    nodes: int = 1
    prefix: tuple[str, ...] = ()
    master: str = "127.0.0.1"

    @property
    def world(self) -> int:
        """Processes of all machines together."""
        return self.processes * self.nodes


def lines(launch: Launch, folder: str, python: str) -> list[list[str]]:
    """The commands that start the training of `folder`, a path all machines share."""
    torchrun = ["torch.distributed.run", "--nproc-per-node", str(launch.processes)]
    if launch.nodes == 1:
        torchrun += ["--standalone"]
    else:
        torchrun += ["--nnodes", str(launch.nodes), "--rdzv-backend", "c10d"]
        torchrun += ["--rdzv-id", meeting(folder), "--rdzv-endpoint", f"{launch.master}:{PORT}"]
    own = [python, "-P", "-m", *torchrun, "-m", "selfreward.training", folder]
    each = any("{rank}" in word for word in launch.prefix)
    found = []
    for rank in range(launch.nodes if each else 1):
        words = {"{nodes}": str(launch.nodes), "{rank}": str(rank), "{master}": launch.master}
        found.append([*(_filled(word, words) for word in launch.prefix), *own])
    return found


def meeting(folder: str) -> str:
    """The name by which the machines of one training know each other.

    Two trainings that meet at one master would otherwise join, and average the gradients of both.
    """
    return hashlib.sha256(folder.encode()).hexdigest()[:16]


def shown(launch: Launch, folder: str, python: str) -> str:
    """The commands as a shell takes them, a line each."""
    return "\n".join(shlex.join(line) for line in lines(launch, folder, python))


def _filled(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(name, value)
    return word
