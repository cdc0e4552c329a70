"""Answers are kept while the state lasts, revalidated by ETag, packed once, never shared where they are personal."""

from __future__ import annotations

import gzip

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from claimbench.web.cache import Cache


class Counted:
    """An application that says how often it was asked, behind a cache whose stamp can be set."""

    def __init__(self, **options: int) -> None:
        self.asked = 0
        self.stamp = "a"
        app = Starlette(routes=[Route("/{name:path}", self.answer)])
        self.client = TestClient(Cache(app, lambda: self.stamp, personal=["session"], **options))

    async def answer(self, request: Request) -> Response:
        self.asked += 1
        name = request.path_params["name"]
        headers = {"private": {"cache-control": "private"}, "cookie": {"set-cookie": "a=b"}}.get(name, {})
        status = 404 if name == "missing" else 200
        return PlainTextResponse(f"{name} {request.url.query} {'x' * 2000}", status, headers=headers)


def test_an_answer_is_made_once_for_each_state() -> None:
    page = Counted()
    first = page.client.get("/a?x=1")
    assert page.client.get("/a?x=1").content == first.content
    assert page.asked == 1
    page.client.get("/a?x=2")
    page.client.get("/b?x=1")
    assert page.asked == 3
    page.stamp = "b"
    page.client.get("/a?x=1")
    assert page.asked == 4


def test_an_unchanged_answer_is_not_sent_again() -> None:
    page = Counted()
    etag = page.client.get("/a").headers["etag"]
    for tag in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = page.client.get("/a", headers={"if-none-match": tag})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert page.client.get("/a", headers={"if-none-match": '"other"'}).status_code == 200
    page.stamp = "b"  # another state in which the answer is the same
    assert page.client.get("/a", headers={"if-none-match": etag}).status_code == 304


def test_heads_are_answered_from_the_same_answer() -> None:
    page = Counted()
    whole = page.client.get("/a")
    head = page.client.head("/a")
    assert page.asked == 1
    assert (head.content, head.headers["etag"]) == (b"", whole.headers["etag"])
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_packed_and_plain_are_the_same_answer() -> None:
    page = Counted()
    plain = page.client.get("/a", headers={"accept-encoding": "identity"})
    with page.client.stream("GET", "/a", headers={"accept-encoding": "gzip"}) as packed:
        raw = b"".join(packed.iter_raw())
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert gzip.decompress(raw) == plain.content
    assert packed.headers["etag"] != plain.headers["etag"]


def test_what_is_personal_is_never_kept() -> None:
    page = Counted()
    for name in ("private", "cookie", "missing"):
        before = page.asked
        page.client.get(f"/{name}")
        page.client.cookies.clear()
        page.client.get(f"/{name}")
        page.client.cookies.clear()
        assert page.asked == before + 2, name
    page.client.get("/a")
    before = page.asked
    page.client.get("/a", headers={"cookie": "theme=dark; session=1"})
    assert page.asked == before + 1
    page.client.get("/a", headers={"cookie": "theme=dark"})
    assert page.asked == before + 1


def test_the_oldest_answers_go_when_there_are_too_many() -> None:
    page = Counted(largest=7000)  # three answers of a little over 2000 bytes
    for name in ("a", "b", "c", "a", "d"):
        page.client.get(f"/{name}", headers={"accept-encoding": "identity"})
    assert page.asked == 4
    page.client.get("/a", headers={"accept-encoding": "identity"})
    assert page.asked == 4
    page.client.get("/b", headers={"accept-encoding": "identity"})
    assert page.asked == 5
