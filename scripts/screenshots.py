"""Pictures of every page and of the terminal views, from the store of a finished run, into docs/screenshots.

    python scripts/screenshots.py iterations/demo/selfreward.db

The store is copied first and never touched. Needs `selfreward[ui]`, playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "docs" / "screenshots"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def main() -> None:
    """Makes all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "/usr/bin/chromium")
    parser.add_argument("--out", type=Path, default=OUT)
    wanted = parser.parse_args()
    wanted.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        _copy(wanted.store, home)
        with _served(home) as address:
            _pages(wanted.chromium, address, wanted.out)
        _terminal(home, wanted.chromium, wanted.out)
        _report(home, wanted.chromium, wanted.out)


def _copy(store: Path, home: Path) -> None:
    """The store as `iterations/NAME/selfreward.db` of a folder of its own."""
    name = store.resolve().parent.name
    (home / "iterations" / name).mkdir(parents=True)
    (home / "iterations" / f"{name}.yaml").write_text("model: copied\n")
    source = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    with (
        contextlib.closing(source),
        contextlib.closing(sqlite3.connect(home / "iterations" / name / "selfreward.db")) as target,
    ):
        source.backup(target)


@contextlib.contextmanager
def _served(home: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "selfreward.cli", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=home)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address).close()
                break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def _pages(chromium: str, address: str, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for scheme, size, ending in (
            ("light", WIDE, "light"), ("dark", WIDE, "dark"), ("light", PHONE, "phone"),
        ):  # fmt: skip
            page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(address)
            policies = page.locator(".card h3 a").all_text_contents()
            page.screenshot(path=out / f"run-{ending}.png", clip=_top(page))
            page.goto(f"{address}/policy/{policies[-1]}")
            page.screenshot(path=out / f"policy-{ending}.png", clip=_top(page))
            page.goto(f"{address}/pairs?sort=-margin")
            page.screenshot(path=out / f"pairs-{ending}.png", clip=_top(page, 760))
            page.locator("a.row").nth(3).click()
            if ending == "light":
                page.fill("textarea", "Both are poor; the chosen one at least answers what was asked.")
                page.get_by_role("button", name="Keep").click()
            page.locator("details").first.click()
            page.screenshot(path=out / f"pair-{ending}.png", clip=_top(page))
            page.goto(f"{address}/prompts")
            page.screenshot(path=out / f"prompts-{ending}.png", clip=_top(page, 760))
            page.close()
        browser.close()


def _top(page: Any, height: int = 1300) -> Any:
    """The upper part of a page: a picture that a reader takes in."""
    width = page.viewport_size["width"]
    page.set_viewport_size({"width": width, "height": 1500})
    whole = page.evaluate("document.body.scrollHeight")
    return {"x": 0, "y": 0, "width": width, "height": min(whole, height if width > 500 else 1500)}


def _report(home: Path, chromium: str, out: Path) -> None:
    """The report as a file that somebody was sent."""
    from playwright.sync_api import sync_playwright

    _said(home, "report", "--html", "report.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=WIDE, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto((home / "report.html").as_uri())
            page.screenshot(path=out / f"report-{scheme}.png", clip=_top(page, 1500))
            page.close()
        browser.close()


PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 18px 22px; display: inline-block; background: #141816; color: #e6eae7; }}
pre {{ margin: 0; font: 14px/1.45 "DejaVu Sans Mono", monospace; }}
</style><pre><b>$ {command}</b>
{code}</pre>"""


def _terminal(home: Path, chromium: str, out: Path) -> None:
    """What the commands print on a terminal of 120 columns, its escape codes turned into a page."""
    from playwright.sync_api import sync_playwright

    listed = _said(home, "pairs", "list", "--json", "--sort", "-margin", "--limit", "4")
    pair = str(json.loads(listed)[-1]["id"])
    views = {
        "status": ("status",),
        "tree": ("status", "--tree"),
        "signals": ("status", "--signals"),
        "list": ("pairs", "list", "--sort", "-margin", "--limit", "12"),
        "show": ("pairs", "show", pair),
        "stats": ("pairs", "stats"),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1100, "height": 300})
        for name, arguments in views.items():
            page.set_content(_as_page(arguments, _said(home, *arguments)))
            page.locator("body").screenshot(path=out / f"terminal-{name}.png")
        browser.close()


def _said(home: Path, *arguments: str) -> str:
    """What a command writes to a terminal of its own."""
    master, slave = pty.openpty()
    env = os.environ | {"COLUMNS": "120", "LINES": "60", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "selfreward.cli", *arguments]
    process = subprocess.Popen(command, cwd=home, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
        while chunk := os.read(master, 65536):
            said += chunk
    os.close(master)
    process.wait()
    return said.decode().replace("\r\n", "\n")


def _as_page(arguments: tuple[str, ...], said: str) -> str:
    import io

    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    console = Console(record=True, width=120, file=io.StringIO())
    console.print(Text.from_ansi(said))
    code = console.export_html(theme=MONOKAI, inline_styles=True, code_format="{code}")
    return PAGE.format(command=" ".join(("selfreward", *arguments)), code=code)


if __name__ == "__main__":
    main()
