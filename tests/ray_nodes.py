"""A cluster of several Ray nodes on this machine, in a process of its own: `python -m tests.ray_nodes`.

Reads `add CPUS` and `remove N` (the nth node added, from 0) and answers each with a line: the address, then
`ok`. The end of its input is the end of the cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEGABYTES = 80 * 2**20  # the least a node's object store may have


class Nodes:
    """The cluster from the outside."""

    def __init__(self, log: Path) -> None:
        with open(log, "w") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.ray_nodes"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True,
            )  # fmt: skip
        self.address = self._line()

    def tell(self, order: str) -> None:
        """`add CPUS` or `remove N`, done when this returns."""
        assert self._process.stdin is not None
        print(order, file=self._process.stdin, flush=True)
        assert self._line() == "ok"

    def close(self) -> None:
        """Ends all nodes."""
        self._process.communicate(timeout=60)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def nodes(log: Path) -> Iterator[Nodes]:
    """A head without room for workers; nodes come by `add`."""
    found = Nodes(log)
    try:
        yield found
    finally:
        found.close()


def main() -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    from ray.cluster_utils import Cluster

    os.makedirs("/tmp/ray", exist_ok=True)  # where it writes down its address
    room: dict[str, Any] = {"object_store_memory": MEGABYTES, "include_dashboard": False}
    room["node_ip_address"] = "127.0.0.1"
    cluster = Cluster(initialize_head=True, head_node_args=room | {"num_cpus": 0})
    print(cluster.address, file=answers, flush=True)
    added = []
    for line in sys.stdin:
        order, number = line.split()
        if order == "add":
            added.append(cluster.add_node(**room | {"num_cpus": int(number)}))
        else:
            cluster.remove_node(added[int(number)], allow_graceful=False)
        print("ok", file=answers, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
