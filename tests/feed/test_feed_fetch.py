"""Asking over HTTP, against a real server: limits, retries, redirects and the hosts that may be asked."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from feeds import Answer, Handler, Server

from claimbench.feed.fetch import Fetcher, SourceError
from claimbench.feed.settings import FetchSettings, SourceSettings

Serve = Callable[[Handler], Server]


def fetcher(server: Server, slept: list[float] | None = None, **limits: Any) -> Fetcher:
    made = SourceSettings(name="s", kind="rss", url=f"{server.url}/feed", every=0)
    sleep = time.sleep if slept is None else slept.append
    return Fetcher(made, FetchSettings(**({"backoff": 1.0, "timeout": 5.0} | limits)), sleep)


def test_an_answer_says_who_asks(serve: Serve) -> None:
    server = serve(lambda path, query: (200, {"Content-Encoding": "gzip"}, gzip.compress(b"body")))
    with fetcher(server) as ask:
        assert ask.get(f"{server.url}/feed") == b"body"
    assert server.headers[0]["user-agent"].startswith("claimbench/")


def test_busy_servers_are_asked_again_with_growing_pauses_or_when_they_say(serve: Serve) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=31), usegmt=True)
    answers = iter(
        [
            (503, {}, b""),
            (429, {"Retry-After": "7"}, b""),
            (500, {"Retry-After": soon}, b""),
            (200, {}, b"done"),
        ]
    )
    server, slept = serve(lambda path, query: next(answers)), []
    with fetcher(server, slept) as ask:
        assert ask.get(f"{server.url}/feed") == b"done"
    first, second, third = [wait for wait in slept if wait]
    assert (first, second) == (1.0, 7.0)
    assert 25 < third <= 31


def test_giving_up_says_why(serve: Serve) -> None:
    server = serve(lambda path, query: (503, {}, b""))
    with (
        fetcher(server, [], attempts=3) as ask,
        pytest.raises(SourceError, match=r"/feed: HTTP 503, 3 times; pull again later"),
    ):
        ask.get(f"{server.url}/feed?secret=1")
    assert len(server.asked) == 3


def test_a_wait_that_is_too_long_ends_the_pull(serve: Serve) -> None:
    server = serve(lambda path, query: (503, {"Retry-After": "3600"}, b""))
    with (
        fetcher(server, []) as ask,
        pytest.raises(SourceError, match="wait 3600 s, longer than longest_wait = 60"),
    ):
        ask.get(f"{server.url}/feed")


def test_an_answer_that_is_not_ready_is_asked_for_again(serve: Serve) -> None:
    bodies = iter([b"", b"half", b"whole"])
    server = serve(lambda path, query: (200, {}, next(bodies)))
    with fetcher(server, []) as ask:
        assert ask.get(f"{server.url}/feed", lambda body: "" if body == b"whole" else "not whole") == b"whole"


def test_a_refusal_is_final(serve: Serve) -> None:
    server = serve(lambda path, query: (404, {}, b""))
    with fetcher(server) as ask, pytest.raises(SourceError, match="HTTP 404"):
        ask.get(f"{server.url}/feed")
    assert len(server.asked) == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_size_is_limited_after_decompression(serve: Serve, zipped: bool) -> None:
    body = b"a" * 3_000_000
    packed = (200, {"Content-Encoding": "gzip"}, gzip.compress(body)) if zipped else (200, {}, body)
    server = serve(lambda path, query: packed)
    with (
        fetcher(server, max_bytes=1_000_000) as ask,
        pytest.raises(SourceError, match="more than max_bytes = 1000000"),
    ):
        ask.get(f"{server.url}/feed")


def test_time_is_limited(serve: Serve) -> None:
    def slow(path: str, query: dict[str, str]) -> Answer:
        time.sleep(0.6)
        return 200, {}, b"late"

    server = serve(slow)
    with (
        fetcher(server, [], timeout=0.1, attempts=2) as ask,
        pytest.raises(SourceError, match="ReadTimeout.*2 times"),
    ):
        ask.get(f"{server.url}/feed")


def test_broken_connections_are_tried_again(serve: Serve) -> None:
    answers = iter([(200, {"Content-Length": "99"}, b"cut"), (200, {"Content-Encoding": "gzip"}, b"no gzip")])
    server = serve(lambda path, query: next(answers, (200, {}, b"whole")))
    with fetcher(server, []) as ask:
        assert ask.get(f"{server.url}/feed") == b"whole"


def test_redirects_lead_to_allowed_hosts_alone(serve: Serve) -> None:
    def handle(path: str, query: dict[str, str]) -> Answer:
        if path == "/feed":
            return 301, {"Location": "/moved"}, b""
        return (200, {}, b"here") if path == "/moved" else (302, {"Location": query["to"]}, b"")

    server = serve(handle)
    port = server.url.rsplit(":", 1)[1]
    with fetcher(server) as ask:
        assert ask.get(f"{server.url}/feed") == b"here"
        for target, reason in (
            (f"http://localhost:{port}/moved", "not an allowed host"),
            ("http://192.0.2.1/", "must begin with https://"),
            ("https://other.example/", "not an allowed host"),
            ("file:///etc/passwd", "must begin with https://"),
        ):
            with pytest.raises(SourceError, match=reason):
                ask.get(f"{server.url}/go?to={target}")


def test_redirects_end(serve: Serve) -> None:
    server = serve(lambda path, query: (302, {"Location": "/feed"}, b""))
    with fetcher(server) as ask, pytest.raises(SourceError, match="more than 5 redirects"):
        ask.get(f"{server.url}/feed")


def test_requests_keep_their_distance(serve: Serve) -> None:
    server = serve(lambda path, query: (200, {}, b""))
    made = SourceSettings(name="s", kind="rss", url=f"{server.url}/feed", every=0.2)
    with Fetcher(made, FetchSettings()) as ask:
        start = time.monotonic()
        for _ in range(3):
            ask.get(f"{server.url}/feed")
    assert time.monotonic() - start >= 0.4
