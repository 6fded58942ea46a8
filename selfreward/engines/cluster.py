"""Joining Ray: a cluster that is up, or one of our own on this machine that ends with this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from typing import Any

from selfreward.engines.server import is_here
from selfreward.errors import BadInput

# A Ray of one machine keeps to 127.0.0.1: so it does where it is not made for clusters (ray_constants, 2.60).
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
STORE = 512 * 2**20  # bytes for adapters on their way; Ray puts larger ones on the disk
PATIENCE = 10.0  # seconds a cluster may take to answer


class Cluster:
    """Ray as this process has joined it; `gpus` says whether its workers have GPUs at all."""

    def __init__(self, address: str | None, cpus: int) -> None:
        self._sweeper: subprocess.Popen[bytes] | None = None
        if address is None:
            folder = tempfile.mkdtemp(prefix="selfreward-ray-")
            line = [sys.executable, "-P", "-m", "selfreward.engines.sweeper", folder]
            self._sweeper = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            own = {"object_store_memory": STORE, "include_dashboard": False, "_temp_dir": folder}
            _join(address="local", num_cpus=cpus, **own)
        else:
            _knock(address)
            try:
                _join(address=address)
            except BadInput:
                raise
            except Exception as error:  # Ray raises what it likes where it cannot join
                why = str(error).strip().splitlines()[0]
                raise BadInput(
                    f"compute.ray_address {address} cannot be joined from here ({why}): start the run on a "
                    "machine of the cluster, with the Ray and the token it runs with"
                ) from None
        import ray

        self.gpus = bool(ray.cluster_resources().get("GPU"))

    def check_room(self, room: dict[str, float]) -> None:
        """Raises `BadInput` where no node is large enough for a worker, however idle."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for key, name in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
            most = max((node.get(name, 0) for node in nodes), default=0)
            if most < room.get(key, 0):
                raise BadInput(
                    f"a worker takes {room[key]:g} {name}s and no node of the cluster has more than "
                    f"{most:g}: set engine.tensor_parallel (GPUs) or engine.threads (CPUs) to what it has"
                )

    def leave(self) -> None:
        """Ends what is ours: our workers, and a Ray of our own with its folder."""
        import ray

        ray.shutdown()
        if self._sweeper is not None:
            self._sweeper.communicate(timeout=PATIENCE)


def stay_here(address: str | None) -> None:
    """Before anything imports Ray, as transformers does: where all of it is on this machine, it says so."""
    if address is None or is_here(f"//{address}"):
        os.environ.update(ALONE)


def _join(**options: Any) -> None:
    try:
        import ray
    except ImportError as error:
        raise BadInput(
            f"compute asks for workers and Ray cannot be imported ({error}): `pip install 'selfreward[ray]'`"
        ) from None
    ray.init(configure_logging=False, log_to_driver=True, **options)


def _knock(address: str) -> None:
    """Raises `BadInput` where nobody listens: Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"compute.ray_address {address}: nobody answers there ({error}); "
            "`ray start --head` prints the address, or leave it out for workers on this machine"
        ) from None
