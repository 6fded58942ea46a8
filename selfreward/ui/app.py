"""The addresses of the pages, and the one thing that can be posted: a review."""

# No `from __future__ import annotations`: FastAPI reads the annotations, and its own types are imported late.
import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from selfreward.errors import SelfRewardError
from selfreward.store import Reviews
from selfreward.ui import asked
from selfreward.ui.guard import MAX_BODY, Guard
from selfreward.ui.markup import HERE
from selfreward.ui.pages import Missing, Site
from selfreward.wording import spelled


def make_app(path: Path, names: tuple[str, ...] = (), token: str | None = None) -> Guard:
    """The pages of the run whose store lies at `path`, behind the guard; `token` as in `Guard`."""
    from fastapi import FastAPI
    from fastapi.staticfiles import StaticFiles

    site = Site(path, secrets.token_urlsafe(24))

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        yield
        site.views.close()

    # FastAPI's own pages of documentation load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    _add_pages(app, site)
    _add_review(app, site)
    _add_errors(app, site)
    return Guard(app, names, token)


def _add_pages(app: Any, site: Site) -> None:
    from fastapi import Request
    from fastapi.responses import HTMLResponse, RedirectResponse

    def pairs(request: Request) -> str:
        return site.pairs(request.query_params)

    def pair(request: Request, pair_id: int) -> str:
        return site.pair(pair_id, request.query_params)

    def beside(request: Request, pair_id: int, way: str) -> RedirectResponse:
        if way not in ("next", "previous"):
            raise Missing("There is no such page.")
        return RedirectResponse(site.beside(pair_id, request.query_params, way == "previous"), 303)

    def prompts(request: Request) -> str:
        return site.prompts(request.query_params)

    pages: dict[str, Callable[..., str]] = {
        "/": site.run,
        "/policy/{name}": site.policy,
        "/pairs": pairs,
        "/pairs/{pair_id}": pair,
        "/prompts": prompts,
        "/prompts/{prompt_id}": site.prompt,
    }
    for address, page in pages.items():
        app.add_api_route(address, page, methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/pairs/{pair_id}/{way}", beside, methods=["GET"])


def _add_review(app: Any, site: Site) -> None:
    from fastapi import Request
    from fastapi.responses import RedirectResponse, Response
    from starlette.concurrency import run_in_threadpool

    async def review(request: Request, pair_id: int) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return Response("The form is too long.", 413)
        form = {k: v[-1] for k, v in parse_qs(body.decode("utf-8", "replace")).items()}
        if not hmac.compare_digest(form.get("token", "").encode(), site.form_token.encode()):
            return Response("This form is from an older `selfreward ui`: load the page again.", 403)
        said = form.get("review", "")
        if said not in ("keep", "drop", "clear"):
            return Response("A review is keep, drop or clear.", 400)
        note = spelled(form.get("note", "").replace("\r\n", "\n").strip())
        wanted = asked.pair_filter(request.query_params)
        await run_in_threadpool(_put, site.path, pair_id, said, note)
        go = form.get("go") == "next"
        more = asked.query_of(wanted, go="next" if go else None, done=str(pair_id))
        return RedirectResponse(f"/pairs/{pair_id}{'/next' if go else ''}{more}", 303)

    app.add_api_route("/pairs/{pair_id}/review", review, methods=["POST"])


def _put(path: Path, pair_id: int, review: str, note: str) -> None:
    """Through a connection of its own, which is gone when the review is stored."""
    reviews = Reviews(path)
    try:
        reviews.put(pair_id, None if review == "clear" else review, note)
    finally:
        reviews.close()


def _add_errors(app: Any, site: Site) -> None:
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse
    from starlette.exceptions import HTTPException

    def page(request: Request, error: Exception) -> HTMLResponse:
        match error:
            case Missing():
                status, text = 404, str(error)
            case SelfRewardError():
                status, text = 400, f"{error}."
            case _:
                status, text = getattr(error, "status_code", 404), "There is no such page."
        return HTMLResponse(site.render("error.html", status=status, text=text), status)

    for kind in (Missing, SelfRewardError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, page)
