"""The pages in a real browser: every page walked, a pair reviewed by keys, and nothing run or fetched."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from playwright import sync_api

from selfreward.store import Store
from tests.gallery import DROPPED, FAULTY, HOSTILE, LONG, PAIRS, PLAIN, TIE, build, reviews
from tests.test_store import prompt

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium: apt-get install chromium"),
]
PAGES = (
    "/", "/policy/M1", "/policy/M2", "/pairs", "/prompts", *(f"/pairs/{PAIRS[s]}" for s in (HOSTILE, LONG)),
    *(f"/prompts/{prompt(s).id}" for s in (HOSTILE, TIE)),
)  # fmt: skip


class Served(NamedTuple):
    """Where the pages are, and the store behind them."""

    address: str
    store: Path
    server: subprocess.Popen[str]


PATIENT = """
from selfreward import cli
from selfreward.store import finding
from selfreward.ui import pages
finding.WINDOW, pages.SEARCHING = 2, 0.0
cli.main()
"""


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """`selfreward ui`, as a user starts it; or one that reads two pairs of a search at a time."""
    (tmp_path / "iterations/gallery").mkdir(parents=True)
    (tmp_path / "iterations/gallery.yaml").write_text("model: base\n")
    store = build(tmp_path / "iterations/gallery/selfreward.db")
    start = ["-c", request.param] if hasattr(request, "param") else ["-m", "selfreward.cli"]
    command = [sys.executable, *start, "ui"]
    root = str(Path(__file__).resolve().parent.parent)
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
    ) as server:
        assert server.stdout
        found = re.match(r"(http://127\.0\.0\.1:\d+)/ ", server.stdout.readline())
        assert found
        yield Served(found[1], store, server)
        server.terminate()


@pytest.fixture
def page(served: Served) -> Iterator[Any]:
    """A page that writes down what it asked for and what went wrong; it has to stay clean."""
    asked: list[str] = []
    wrong: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.on("request", lambda r: asked.append(r.url))
        opened.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        opened.on("pageerror", lambda e: wrong.append(str(e)))
        opened.on("dialog", lambda d: (wrong.append(d.message), d.dismiss()))
        yield opened
        browser.close()
    assert wrong == []
    assert [u for u in asked if not u.startswith(f"{served.address}/")] == []


def test_ctrl_c_is_the_normal_end(served: Served) -> None:
    with urllib.request.urlopen(served.address) as answer:  # at once: the address answers when it is printed
        assert answer.status == 200
    served.server.send_signal(signal.SIGINT)
    assert served.server.wait(20) == 0


def test_every_page_opens_with_its_own_headline_and_nothing_runs(page: Any, served: Served) -> None:
    for address in PAGES:
        answer = page.goto(served.address + address)
        assert answer.status == 200 and page.locator("h1").count() == 1
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{address} is wider than the window"


def test_no_page_is_wider_than_a_phone(page: Any, served: Served) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for address in PAGES:
        page.goto(served.address + address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address


def test_a_pair_reviewed_by_keys_is_still_reviewed_after_a_reload(page: Any, served: Served) -> None:
    page.goto(f"{served.address}/pairs?sort=-margin&review=auto")
    for key in ("j", "j", "k", "Enter"):  # first, second, first again, open it
        page.keyboard.press(key)
    page.wait_for_url(f"**/pairs/{PAIRS[PLAIN]}?*")
    page.keyboard.press("n")
    page.keyboard.type("jadk are letters here")
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.get_by_text("Saved.").wait_for()
    page.reload()
    assert page.get_by_text("This pair is dropped by a person.").count() == 1
    assert page.locator("textarea").input_value() == "jadk are letters here"
    assert reviews(served.store)[PAIRS[PLAIN]] == ("drop", "jadk are letters here")
    trains = [r.id for r in Store(served.store, write=False).pairs_to_train(1, "M1")]
    assert set(trains) == set(PAIRS.values()) - {PAIRS[PLAIN], PAIRS[DROPPED]}
    page.keyboard.press("j")
    page.wait_for_url(f"**/pairs/{PAIRS[FAULTY]}?*")
    page.get_by_label("then go to the next pair").check()
    page.keyboard.press("a")
    page.get_by_text("is kept.").wait_for()
    page.wait_for_url(f"**/pairs/{PAIRS[HOSTILE]}?*")
    page.goto(f"{served.address}/pairs?review=drop")
    assert page.locator("a.row").all_text_contents() == [str(PAIRS[PLAIN]), str(PAIRS[DROPPED])]


@pytest.mark.parametrize("served", [PATIENT], indirect=True)
@pytest.mark.parametrize(("word", "rows"), [("unreadable", [PAIRS[FAULTY]]), ("nowhere", [])])
def test_a_search_that_stopped_early_goes_on_by_itself(
    page: Any, served: Served, word: str, rows: list[int]
) -> None:
    """The server reads two pairs at a time; what is looked for stands in the last of six, or in none."""
    page.goto(f"{served.address}/pairs?search={word}")
    page.locator("#found:not([data-on])").wait_for()
    assert page.locator("a.row").all_text_contents() == [str(r) for r in rows]
    assert page.locator("input[type=search]").input_value() == word
    page.reload()  # the address is that of what is shown
    assert page.locator("a.row").all_text_contents() == [str(r) for r in rows]


def test_keys_with_a_modifier_are_the_browsers_own(page: Any, served: Served) -> None:
    page.goto(f"{served.address}/pairs/{PAIRS[PLAIN]}")
    page.keyboard.press("Control+d")
    page.wait_for_timeout(200)
    assert PAIRS[PLAIN] not in reviews(served.store)


def test_pages_work_without_script(served: Served) -> None:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        plain = browser.new_context(java_script_enabled=False).new_page()
        plain.goto(f"{served.address}/pairs?sort=-margin")
        plain.locator("a.row").first.click()
        plain.get_by_role("button", name="Keep").click()
        plain.get_by_role("link", name="Next", exact=True).click()
        assert plain.locator("h1").inner_text().startswith(f"Pair {PAIRS[FAULTY]}")
        browser.close()
    assert reviews(served.store)[PAIRS[PLAIN]] == ("keep", None)


def test_the_run_page_follows_a_run_that_writes(page: Any, served: Served) -> None:
    from selfreward.store import Lock, Store

    with Lock(served.store.parent):
        page.goto(served.address)
        assert page.locator("#live").get_attribute("data-live") == "5"
        driver = Store(served.store, write=True)
        stage = driver.stages(1)["M1", "judge"]
        driver.commit_block(stage, [], 3)
        driver.close()
        page.get_by_text("9 of 12").first.wait_for(timeout=15_000)


@pytest.mark.skipif(not importlib.util.find_spec("axe_playwright_python"), reason="no axe-core here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page: Any, served: Served, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    for address in PAGES:
        page.goto(served.address + address)
        found = Axe().run(page).response["violations"]
        serious = [
            (v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], address
