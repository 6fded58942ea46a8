"""`selfreward ui`: takes a port, says where the pages are, and serves them until Ctrl-C."""

from __future__ import annotations

import getpass
import re
import socket
from contextlib import suppress
from pathlib import Path

from selfreward.engines.server import is_loopback
from selfreward.errors import BadInput

TOKEN = r"[A-Za-z0-9_-]{16,128}"


def serve(path: Path, host: str, port: int, token: str | None) -> None:
    """Serves the run whose store lies at `path`. A host that others can reach needs a token."""
    if token is not None and not re.fullmatch(TOKEN, token):
        raise BadInput("--token takes 16 to 128 letters, digits, - and _")
    if token is None and not is_loopback(host):
        raise BadInput(
            f"--host {host} shows the run to everybody who can reach this machine: add --token SECRET, "
            "or leave --host out and use the ssh line that is printed"
        )
    try:
        import uvicorn

        from selfreward.ui.app import make_app

        app = make_app(path, (host, socket.gethostname(), socket.getfqdn()) if token else (), token)
    except ModuleNotFoundError as error:
        raise BadInput(f"the pages need {error.name}: `pip install 'selfreward[ui]'` brings it") from None
    with _listening(host, port) as listening:
        for line in told(listening.getsockname()[1], host, token):
            print(line, flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none"
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def told(port: int, host: str, token: str | None) -> list[str]:
    """The lines that say how to get there, on this machine and through ssh."""
    anywhere = host in ("", "0.0.0.0", "::")
    shown = socket.gethostname() if anywhere else f"[{host}]" if ":" in host else host
    end = f"/?token={token}" if token else "/"
    lines = [f"http://{shown}:{port}{end}   (Ctrl-C ends it)"]
    if is_loopback(host):
        inner = f"[{host}]" if ":" in host else host
        lines += [
            "From another machine, there:  "
            f"ssh -N -L {port}:{inner}:{port} {_user()}@{socket.gethostname()}   "
            f"and then open http://localhost:{port}{end}"
        ]
    return lines


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "USER"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(128)  # whoever opens the printed address at once waits, and is not refused
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise BadInput(
            f"{host}:{port} cannot be listened on: {error}; without --port a free one is taken"
        ) from None
    return listening
