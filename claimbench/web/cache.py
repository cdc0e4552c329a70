"""Answers kept for as long as what they show is unchanged, with ETag, 304, and gzip made once.

An answer is kept under its address and the site's stamp: a new verdict, listing or paper.toml, or other code, makes a
new stamp, and old answers are dropped. Only what is the same for everybody is kept: no answer that sets a cookie or
says `private` or `no-store`, and nothing for a request that brings one of the `personal` cookies.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 64 << 20  # bytes of all kept answers
LARGEST_ANSWER = 4 << 20
LEAST_GZIP = 600  # bytes below which compressing is not worth it
TEXT = ("text/", "application/json", "application/atom+xml", "image/svg+xml")
RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Answer:
    """One encoding of a 200. headers: all but those that depend on the request."""

    headers: RawHeaders
    body: bytes
    etag: bytes

    @property
    def size(self) -> int:
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)


class Cache:
    """ASGI middleware. stamp: the state that answers are a function of, asked for at each request."""

    def __init__(
        self,
        app: ASGIApp,
        stamp: Callable[[], str],
        *,
        personal: Sequence[str] = (),
        largest: int = LARGEST,
    ) -> None:
        self._app, self._stamp, self._largest = app, stamp, largest
        self._personal = tuple(f"{name}=" for name in personal)
        self._kept: OrderedDict[tuple[bytes, bytes, bool], Answer] = OrderedDict()
        self._size = 0
        self._of = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = headers.get("cookie", "")
        if any(part.strip().startswith(self._personal) for part in cookies.split(";") if self._personal):
            await self._app(scope, receive, send)
            return
        stamp = await run_in_threadpool(self._stamp)
        if stamp != self._of:
            self._kept.clear()
            self._size, self._of = 0, stamp
        packed = "gzip" in headers.get("accept-encoding", "")
        host = headers.get("host", "").encode("latin-1") if scope["path"].endswith(".atom") else b""
        key = (scope.get("raw_path") or scope["path"].encode(), scope["query_string"] + b"\0" + host, packed)
        answer = self._kept.get(key)
        if answer is not None:
            self._kept.move_to_end(key)
        else:
            answer = await self._make(scope, receive, send, packed)
            if answer is None:
                return
            if stamp == self._of:
                self._keep(key, answer)
        await _send(answer, scope["method"], headers.get("if-none-match", "").encode("latin-1"), send)

    async def _make(self, scope: Scope, receive: Receive, send: Send, packed: bool) -> Answer | None:
        """The answer, if it may be kept; any other has been sent."""
        start: Message | None = None
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if _may_be_kept(message):
                    start = message
                else:
                    await send(message)
            elif start is None:
                await send(message)
            else:
                parts.append(message.get("body", b""))

        await self._app({**scope, "method": "GET"} if scope["method"] == "HEAD" else scope, receive, collect)
        if start is None:
            return None
        return await run_in_threadpool(_answer, start["headers"], b"".join(parts), packed)

    def _keep(self, key: tuple[bytes, bytes, bool], answer: Answer) -> None:
        if answer.size > LARGEST_ANSWER or key in self._kept:
            return
        self._kept[key] = answer
        self._size += answer.size
        while self._size > self._largest:
            _, gone = self._kept.popitem(last=False)
            self._size -= gone.size


def _may_be_kept(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    control = headers.get("cache-control", "")
    return (
        start["status"] == 200
        and "set-cookie" not in headers
        and "private" not in control
        and "no-store" not in control
    )


def _answer(headers: RawHeaders, body: bytes, packed: bool) -> Answer:
    found = Headers(raw=headers)
    text = found.get("content-type", "").startswith(TEXT)
    kept = [(name, value) for name, value in headers if name not in (b"content-length", b"etag")]
    if packed and text and len(body) >= LEAST_GZIP:
        body = gzip.compress(body, 6, mtime=0)
        kept.append((b"content-encoding", b"gzip"))
    if "cache-control" not in found:
        kept.append((b"cache-control", b"no-cache"))
    etag = b'"' + hashlib.sha256(body).hexdigest()[:24].encode() + b'"'
    kept += [(b"vary", b"accept-encoding"), (b"etag", etag)]
    return Answer(kept, body, etag)


async def _send(
    answer: Answer, method: str, wanted: bytes, send: Callable[[Message], Awaitable[None]]
) -> None:
    if wanted and (
        wanted == b"*" or answer.etag in [tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")]
    ):
        kept = [(name, value) for name, value in answer.headers if name != b"content-encoding"]
        await send({"type": "http.response.start", "status": 304, "headers": kept})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
