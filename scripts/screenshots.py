"""Pictures of every page and of the terminal views, from the store of a finished run, into docs/screenshots.

    python scripts/screenshots.py iterations/demo/selfreward.db

The store is copied first and never touched. Needs `selfreward[ui]`, playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
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
            page.screenshot(path=out / f"pairs-{ending}.png")
            page.locator("a.row").nth(3).click()
            if ending == "light":
                page.fill("textarea", "The rejected answer is cut short and repeats the question.")
                page.get_by_role("button", name="Keep").click()
            page.locator("details").first.click()
            page.screenshot(path=out / f"pair-{ending}.png", clip=_top(page))
            page.goto(f"{address}/prompts")
            page.screenshot(path=out / f"prompts-{ending}.png")
            page.close()
        browser.close()


def _top(page: Any) -> Any:
    """The upper part of a page: a picture that a reader takes in."""
    size = page.viewport_size
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": min(height, 1500)})
    return {
        "x": 0,
        "y": 0,
        "width": size["width"],
        "height": min(height, 1300 if size["width"] > 500 else 1500),
    }


def _terminal(home: Path, chromium: str, out: Path) -> None:
    """What the commands print on a terminal of 110 columns, as rich draws it, through the same browser."""


if __name__ == "__main__":
    main()
