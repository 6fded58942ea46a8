"""The pages over a real store: what they show, whom they let write, and that no text can do a thing."""

from __future__ import annotations

import html
import re
import sqlite3
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("jinja2")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from selfreward.errors import BadInput, StoreError
from selfreward.ids import prompt_id
from selfreward.store import Glances, PairFilter, Reviews, Store
from selfreward.ui import serve
from selfreward.ui.app import make_app
from selfreward.wording import spelled
from tests.gallery import (
    ATTACK,
    DROPPED,
    FAULTY,
    HOSTILE,
    LONG,
    PAIRS,
    PLAIN,
    SHOWN,
    TIE,
    WIDE,
    build,
    reviews,
)

HOST = "http://127.0.0.1:8000"
PAGES = (
    "/", "/policy/M0", "/policy/M1", "/policy/M2", "/pairs", "/pairs?sort=-margin", "/pairs?search=script",
    *(f"/pairs/{i}" for i in PAIRS.values()), "/prompts", "/prompts?outcome=tie", "/prompts?of=M0",
    *(f"/prompts/{prompt_id(1, 1, slot)}" for slot in (HOSTILE, PLAIN, TIE, LONG, 7)),
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build(tmp_path / "selfreward.db")


@pytest.fixture
def client(path: Path) -> Iterator[TestClient]:
    with TestClient(make_app(path), base_url=HOST, follow_redirects=False) as opened:
        yield opened


def shown(client: TestClient, address: str) -> list[int]:
    """Ids of the pairs a list shows, in order."""
    return [int(i) for i in re.findall(r'class="row" href="/pairs/(\d+)', client.get(address).text)]


def token(client: TestClient, pair: int) -> str:
    found = re.search(r'name="token" value="([^"]+)"', client.get(f"/pairs/{pair}").text)
    assert found
    return found[1]


def review(client: TestClient, pair: int, query: str = "", **form: str) -> Any:
    return client.post(f"/pairs/{pair}/review{query}", data=form, headers={"origin": HOST})


class Audit(HTMLParser):
    """What a browser would find in a page: tags, attributes, the text of all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag and its attributes."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        self.said.append(data)


@pytest.mark.parametrize("address", PAGES)
def test_no_text_becomes_markup_script_style_template_or_address(client: TestClient, address: str) -> None:
    answer = client.get(address)
    found = Audit()
    found.feed(answer.text)
    assert answer.status_code == 200
    assert found.tags.count("script") == 1 and not {"img", "iframe", "style", "object"} & set(found.tags)
    assert not [n for n, _ in found.attributes if n.startswith("on") or n == "style"]
    links = [v or "" for n, v in found.attributes if n in ("href", "src", "action")]
    assert [v for v in links if not re.match(r"/[a-z0-9]|/$|#main$|/\?", v)] == []
    raw = [c for c in answer.text if c in "\x00\x07\x1b\u202e\u2066\u200b"]
    assert raw == [] and re.findall(r"(?<!:)\b49\b(?!:)", "".join(found.said)) == []  # 09:49:49 is a time


def test_a_hostile_text_is_shown_as_it_is_with_what_cannot_be_seen(client: TestClient) -> None:
    page = client.get(f"/pairs/{PAIRS[HOSTILE]}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "{{ 7*7 }}" in html.unescape(page)
    assert [s for s in SHOWN if f'<span class="unseen">{s}</span>' not in page] == []


def test_emoji_keep_the_joiners_that_shape_them(client: TestClient) -> None:
    assert "👩‍👩‍👧" in client.get(f"/pairs/{PAIRS[WIDE]}").text


def test_the_words_that_differ_are_marked_and_no_others(client: TestClient) -> None:
    page = client.get(f"/pairs/{PAIRS[PLAIN]}").text
    assert re.findall("<mark>(.*?)</mark>", page) == ["cat", "dog"]
    wide = client.get(f"/pairs/{PAIRS[WIDE]}").text
    assert re.findall("<mark>(.*?)</mark>", wide)[0] == "猫"  # one sign, not the whole sentence


def test_a_text_of_a_megabyte_is_cut_and_can_be_asked_for_whole(client: TestClient) -> None:
    cut, whole = client.get(f"/pairs/{PAIRS[LONG]}").text, client.get(f"/pairs/{PAIRS[LONG]}?full=1").text
    assert len(cut) < 100_000 and "980,000 more characters" in cut and "x" * 1_000_000 in whole
    assert len(client.get("/pairs").text) < 60_000


def test_a_list_reads_excerpts_around_what_was_searched_for(path: Path) -> None:
    views = Glances(path, write=False)
    rows = views.page(PairFilter(), 50).rows
    assert max(len(text) for r in rows for text in (r.prompt, r.chosen, r.rejected)) <= 240
    (found,) = views.page(PairFilter(search="ONMOUSEOVER"), 50).rows
    assert "onmouseover" in found.chosen and not found.chosen.startswith("<script>")
    views.close()


def test_the_run_page_says_where_the_run_is_and_that_it_stopped(client: TestClient) -> None:
    page = html.unescape(re.sub(r"<[^>]+>", "", client.get("/").text))
    assert "M1 is the policy; the run has stopped." in page and "M2 was rejected:" in page
    assert "6 of 12" in page and "6 pairs of 7 prompts" in page


def test_the_run_page_of_a_run_at_rest_says_what_to_do_next(client: TestClient, path: Path) -> None:
    from selfreward.store import Lock

    assert 'href="/pairs?review=auto&amp;sort=-margin"' in client.get("/").text
    assert "selfreward report --run gallery --html gallery.html" in client.get("/").text
    with Lock(path.parent):  # a run that works is not to be reported yet
        assert "selfreward report" not in client.get("/").text


def test_a_policy_page_begins_with_what_a_gate_did_not_like(client: TestClient, path: Path) -> None:
    from selfreward import records as r
    from selfreward.store import Lock, Store

    with Lock(path.parent):
        driver = Store(path, write=True)
        of = {"run_id": 1, "policy": "M1", "stage": "probe"}
        driver.add([r.Alarm(**of, signal="aaa", level="ok", value=0.1, message="fine")])
        driver.close()
    page = client.get("/policy/M1").text
    assert page.index(">loops<") < page.index(">aaa<")


@pytest.mark.parametrize(
    ("outcome", "n", "said"),
    [("pair", 1, "1 pair"), ("pair", 1200, "1,200 pairs"), ("tie", 2, "2 ties"),
     ("too_long", 2, "2 too long")],
)  # fmt: skip
def test_outcomes_are_counted_in_words(outcome: str, n: int, said: str) -> None:
    from selfreward.outlook import counted

    assert counted(outcome, n) == said


def test_a_policy_page_has_signals_measures_and_curves_with_gaps(client: TestClient) -> None:
    page = client.get("/policy/M1").text
    assert "loops" in page and "0.25" in page and "[0.125, 0.5]" in page
    assert (
        client.get("/policy/M2").text.count("<polyline") == 2
    )  # the value that was not finite parts the curve


@pytest.mark.parametrize(
    ("query", "slots"),
    [
        ("", [HOSTILE, PLAIN, WIDE, DROPPED, LONG, FAULTY]),
        ("?sort=margin", [LONG, DROPPED, HOSTILE, WIDE, FAULTY, PLAIN]),
        ("?sort=-margin", [PLAIN, FAULTY, HOSTILE, WIDE, DROPPED, LONG]),
        ("?min_margin=1.5", [PLAIN, FAULTY]),
        ("?review=drop", [DROPPED]), ("?review=keep", []),
        ("?review=auto&sort=-margin", [PLAIN, FAULTY, HOSTILE, WIDE, LONG]),
        ("?of=M2", []), ("?of=M1&review=drop", [DROPPED]), ("?of=nope", []),
        ("?search=DOG", [PLAIN]), ("?search=question+3", [DROPPED]), ("?search=x%25", []),
        ("?fault=no_score", [FAULTY]), ("?fault=other", []), ("?scorer=judge&min_margin=2", [PLAIN]),
        ("?scorer=length", []), ("?after=1.0:0&sort=margin", [HOSTILE, WIDE, FAULTY, PLAIN]),
    ],
)  # fmt: skip
def test_a_list_has_the_pairs_asked_for_in_order(client: TestClient, query: str, slots: list[int]) -> None:
    assert shown(client, f"/pairs{query}") == [PAIRS[s] for s in slots]


@pytest.mark.parametrize("sort", ["id", "margin", "-margin"])
def test_pages_by_key_show_each_pair_once_there_and_back(
    client: TestClient, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of two over six pairs, a tie of margins across a page's end: 2 + 2 + 2, and back the same."""
    every = shown(client, f"/pairs?sort={sort}")
    monkeypatch.setattr("selfreward.ui.pages.ROWS", 2)
    pages, address = [], f"/pairs?sort={sort}"
    while address:
        pages.append(shown(client, address))
        later = re.search(r'rel="next" href="([^"]+)"', client.get(address).text)
        last, address = address, html.unescape(later[1]) if later else ""
    assert pages == [every[0:2], every[2:4], every[4:6]]
    back = [shown(client, last)]
    while earlier := re.search(r'rel="prev" href="([^"]+)"', client.get(last).text):
        last = html.unescape(earlier[1])
        back.append(shown(client, last))
    assert back == pages[::-1]


def test_a_search_that_stops_early_says_so_and_goes_on_from_there(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfreward.ui.pages.SEARCHING", 0.0)
    monkeypatch.setattr("selfreward.store.finding.WINDOW", 2)
    page = client.get("/pairs?search=unreadable").text
    assert shown(client, "/pairs?search=unreadable") == [] and "2 pairs were searched" in page
    assert 'data-on="/pairs?search=unreadable&amp;after=' in page
    found: list[int] = []
    counts: list[int] = []
    while more := re.search(r'href="([^"]+)">Search on', page):
        page = client.get(html.unescape(more[1])).text
        found += [int(i) for i in re.findall(r'class="row" href="/pairs/(\d+)', page)]
        counts += [int(n) for n in re.findall(r"(\d+) pairs were searched", page)]
        assert ("data-on" in page) is ("Search on" in page and 'class="row"' not in page)
    assert found == [PAIRS[FAULTY]] and counts == sorted(counts)
    beyond = client.get(f"/pairs/{PAIRS[HOSTILE]}/next?search=unreadable").headers["location"]
    assert beyond == f"/pairs?search=unreadable&after=1.0%3A{PAIRS[WIDE]}"  # PLAIN and WIDE were searched


def test_a_frequent_fault_finds_what_a_rare_one_does(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for frequent in (0, 2):
        monkeypatch.setattr("selfreward.store.finding.FREQUENT", frequent)
        assert shown(client, "/pairs?fault=no_score") == [PAIRS[FAULTY]]
        assert shown(client, "/pairs?fault=no_score&scorer=length") == []


def test_a_search_takes_no_pattern(client: TestClient) -> None:
    for query in ("%25", "_", "%5C", "c_t", "c%25t"):
        assert PAIRS[PLAIN] not in shown(client, f"/pairs?search={query}")
    assert shown(client, "/pairs?search=CAT+SAT") == [PAIRS[PLAIN]]


def test_next_and_previous_keep_the_filter_and_end_in_the_list(client: TestClient) -> None:
    def go(slot: int, way: str, query: str) -> str:
        return str(client.get(f"/pairs/{PAIRS[slot]}/{way}{query}").headers["location"])

    assert go(PLAIN, "next", "?sort=-margin") == f"/pairs/{PAIRS[FAULTY]}?sort=-margin"
    assert go(WIDE, "previous", "?sort=-margin") == f"/pairs/{PAIRS[HOSTILE]}?sort=-margin"
    assert go(WIDE, "next", "?review=auto") == f"/pairs/{PAIRS[LONG]}?review=auto"  # past the dropped one
    assert go(FAULTY, "next", "?min_margin=1.5") == "/pairs?min_margin=1.5&end=last"
    assert "last pair of this filter" in client.get("/pairs?end=last").text


def test_a_review_is_stored_shown_and_taken_back(client: TestClient, path: Path) -> None:
    pair, secret = PAIRS[PLAIN], token(client, PAIRS[PLAIN])
    answer = review(client, pair, token=secret, review="drop", note=f"  {ATTACK}\r\n ")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/pairs/{pair}?done={pair}")
    assert reviews(path)[pair] == ("drop", spelled(ATTACK))
    assert pair in shown(client, "/pairs?review=drop")
    review(client, pair, token=secret, review="keep")
    assert reviews(path)[pair] == ("keep", None)
    review(client, pair, token=secret, review="clear")
    assert pair not in reviews(path)


def test_a_review_may_go_on_to_the_next_pair_of_the_filter(client: TestClient) -> None:
    pair, secret = PAIRS[PLAIN], token(client, PAIRS[PLAIN])
    answer = review(client, pair, "?review=auto&sort=-margin", token=secret, review="keep", go="next")
    following = client.get(answer.headers["location"]).headers["location"]
    assert following == f"/pairs/{PAIRS[FAULTY]}?review=auto&sort=-margin&go=next&done={pair}"
    assert f"Pair {pair}</a> is kept" in client.get(following).text


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"token": "wrong", "review": "drop"}, 403), ({"review": "drop"}, 403),
        ({"token": "", "review": "burn"}, 400), ({"token": "", "review": "drop", "note": "x" * 2001}, 400),
        ({"token": ""}, 400), ({"token": "", "review": "drop", "note": "x" * 70_000}, 413),
    ],
)  # fmt: skip
def test_a_review_that_is_not_as_it_should_be_writes_nothing(
    client: TestClient, path: Path, form: dict[str, str], status: int
) -> None:
    before = reviews(path)
    form = {k: v or token(client, PAIRS[PLAIN]) for k, v in form.items()}
    assert review(client, PAIRS[PLAIN], **form).status_code == status
    assert reviews(path) == before


def test_nothing_is_written_without_an_origin_or_by_a_get(client: TestClient, path: Path) -> None:
    pair, before = PAIRS[PLAIN], reviews(path)
    form = {"token": token(client, pair), "review": "drop"}
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
        assert client.post(f"/pairs/{pair}/review", data=form, headers=headers).status_code == 403
    assert client.get(f"/pairs/{pair}/review", params=form).status_code == 404
    assert reviews(path) == before


def test_a_review_of_no_pair_is_refused(client: TestClient) -> None:
    assert review(client, 7, token=token(client, PAIRS[PLAIN]), review="drop").status_code == 400


def test_pages_are_read_and_reviews_written_beside_a_run_that_writes(client: TestClient, path: Path) -> None:
    pair, secret = PAIRS[PLAIN], token(client, PAIRS[PLAIN])
    driver = Store(path, write=True)
    with driver.transaction() as writing:
        driver.add([driver.event(1, "half")], writing)
        assert client.get("/").status_code == 200
    assert review(client, pair, token=secret, review="keep").status_code == 303
    driver.add([driver.event(1, "after")])
    driver.close()


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/nope", 404), ("/pairs/1", 404), ("/pairs/x", 404), ("/pairs/-1", 404),
        ("/pairs/9" + "9" * 30, 404), (f"/pairs/{2**63}/next", 404), ("/prompts/1", 404),
        ("/policy/M9", 404), (f"/policy/{ATTACK[:8]}", 404),
        ("/pairs?sort=size", 400), ("/pairs?min_margin=nan", 400), ("/pairs?min_margin=-1", 400),
        ("/pairs?min_margin=x", 400), ("/pairs?after=x", 400), ("/pairs?after=1:-1", 400),
        ("/pairs?after=nan:1", 400), ("/pairs?review=maybe", 400), ("/prompts?outcome=x", 400),
        ("/prompts?after=x", 400), ("/docs", 404), ("/openapi.json", 404), ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404), (f"/pairs/{PAIRS[PLAIN]}/sideways", 404),
        ("/pairs?search=%00%ff", 200),
    ],
)  # fmt: skip
def test_an_address_that_means_nothing_is_a_page_that_says_so(
    client: TestClient, address: str, status: int
) -> None:
    answer = client.get(address)
    assert answer.status_code == status and "Traceback" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_page_has_landmarks_labels_and_a_way_past_the_navigation(client: TestClient) -> None:
    for address in PAGES:
        page = client.get(address).text
        assert [
            n
            for n in ("<header>", "<nav ", "<main ", "<footer>", 'lang="en"', 'href="#main"')
            if n not in page
        ] == []
        fields = re.findall(r"<(?:input|select|textarea)\b[^>]*>", page)
        labelled = re.findall(r"<label.*?</label>", page, re.DOTALL)
        hidden = [f for f in fields if 'type="hidden"' in f]
        assert len(fields) - len(hidden) == sum(
            len(re.findall("<(?:input|select|textarea)", x)) for x in labelled
        )


def test_a_door_can_write_reviews_and_nothing_else(path: Path) -> None:
    opened = Reviews(path)
    for sql in (
        "DELETE FROM pair",
        "UPDATE policy SET status = 'promoted'",
        "INSERT INTO event SELECT * FROM event",
    ):
        with pytest.raises(Exception, match="not authorized"), opened.transaction() as connection:
            connection.exec_driver_sql(sql)
    opened.put(PAIRS[PLAIN], "keep")
    opened.close()
    assert reviews(path)[PAIRS[PLAIN]] == ("keep", None)
    with pytest.raises(StoreError, match="selfreward iterate"):
        Reviews(path.with_name("none.db"))
    assert not path.with_name("none.db").exists()


def test_the_store_refuses_a_review_it_does_not_know(path: Path) -> None:
    opened = Reviews(path)
    with pytest.raises(Exception, match="CHECK constraint"):
        opened.put(PAIRS[PLAIN], "maybe")
    with pytest.raises(BadInput, match="no pair 5"):
        opened.put(5, "keep")
    opened.close()


@pytest.mark.timeout(20)  # if it were not refused, it would serve
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "box.example"])
def test_other_machines_are_refused_without_a_token(path: Path, host: str) -> None:
    with pytest.raises(BadInput, match="--token"):
        serve.serve(path, host, 0, None)


@pytest.mark.parametrize("secret", ["short", "with space in it all", "semi;colon;semi;colon"])
def test_a_token_that_is_easy_to_guess_or_no_cookie_is_refused(path: Path, secret: str) -> None:
    with pytest.raises(BadInput, match="16 to 128"):
        serve.serve(path, "127.0.0.1", 0, secret)


def test_the_lines_printed_have_the_address_and_the_tunnel() -> None:
    here, there = serve.told(4321, "127.0.0.1", None)
    assert here.startswith("http://127.0.0.1:4321/ ") and "-L 4321:127.0.0.1:4321 " in there
    assert serve.told(4321, "0.0.0.0", "t" * 16)[0].split()[0].endswith(":4321/?token=" + "t" * 16)


def test_a_taken_port_is_one_line(path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="cannot be listened on"):
            serve.serve(path, "127.0.0.1", taken.getsockname()[1], None)


def test_reading_pages_leaves_the_store_as_it_was(client: TestClient, path: Path) -> None:
    before = list(sqlite3.connect(path).iterdump())
    for address in PAGES:
        client.get(address)
    assert list(sqlite3.connect(path).iterdump()) == before
