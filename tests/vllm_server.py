"""A real `vllm serve` of a small model on a loopback port, gone with all its processes afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from selfreward.engines.adapter import linear_layers

QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
SMALL = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "GOMP_SPINCOUNT": "10000",
}
SERVE = (
    "vllm.entrypoints.launchers.api_server.entry"  # `vllm serve` does not start where vllm-cpu is installed
)
PATIENCE = 300.0  # seconds to load on a busy machine


@contextlib.contextmanager
def vllm_serve(model: Path, log: Path, *, name: str | None = None, context: int = 512) -> Iterator[str]:
    """Its URL, once it answers. It serves adapters of rank 8 at most, and one at a time, as docs say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-P", "-m", SERVE, "--model", str(model), "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", str(context),
        "--max-num-seqs", "32", "--enable-lora", "--max-loras", "1", "--max-lora-rank", "8",
        "--lora-target-modules", *linear_layers(model), *(["--served-model-name", name] if name else []),
    ]  # fmt: skip
    environment = os.environ | QUIET | SMALL | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _await(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
            if reply.status == 200:
                return
        time.sleep(0.5)
    raise RuntimeError(f"vllm serve did not start: {log.read_text(errors='replace')[-3000:]}")
