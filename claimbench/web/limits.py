"""Bounds on what a request may bring and take: address, body and time."""

from __future__ import annotations

import asyncio
import logging

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("claimbench.web")
LONGEST_ADDRESS = 2048  # bytes of path and query
LARGEST_BODY = 64 << 10  # bytes
MOST_HEADERS = 64
TIME = 10.0  # seconds for an answer, from the request's first byte


async def refuse(send: Send, status: int, reason: str) -> None:
    """A short plain answer, before any page is made."""
    body = f"{reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _TooLarge(Exception):
    pass


class Limits:
    """ASGI middleware. A request beyond a bound gets 413, 414, 431 or 503 in plain words."""

    def __init__(self, app: ASGIApp, *, body: int = LARGEST_BODY, time: float = TIME) -> None:
        self._app, self._body, self._time = app, body, time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (
            len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
            > LONGEST_ADDRESS
        ):
            await refuse(send, 414, f"the address is longer than {LONGEST_ADDRESS} bytes")
            return
        if len(scope["headers"]) > MOST_HEADERS:
            await refuse(send, 431, f"more than {MOST_HEADERS} headers")
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or int(length) > self._body:
            await refuse(send, 413, f"the body is larger than {self._body} bytes")
            return
        await self._bounded(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken, started = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._body:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self._time):
                await self._app(scope, counted, noted)
        except (TimeoutError, _TooLarge) as error:
            log.warning("%s %s: %s", scope["method"], scope["path"][:200], type(error).__name__)
            if started:
                raise
            if isinstance(error, _TooLarge):
                await refuse(send, 413, f"the body is larger than {self._body} bytes")
            else:
                await refuse(send, 503, f"no answer within {self._time:g} seconds; try again later")
        except Exception:
            if started:
                raise
            log.exception("%s %s", scope["method"], scope["path"][:200])
            await refuse(send, 500, "something went wrong here; it has been written to the log")
