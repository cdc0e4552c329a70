"""Bounds on a request's head, which uvicorn leaves to a proxy: the time that it may take, and its length."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger("claimbench.web")
HEAD_TIME = (
    10.0  # seconds from the connection, or from a further request's first byte, to the end of its head
)
LARGEST_HEAD = 16 << 10  # bytes that may come before a head ends


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 over httptools. A head that is late is cut off without an answer, one that is too long gets 431."""

    head_time = HEAD_TIME

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._taken = 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._taken += len(data)
        super().data_received(data)
        if self._late is not None and self._taken > LARGEST_HEAD and not self.transport.is_closing():
            log.warning("a head of more than %d bytes", LARGEST_HEAD)
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        if self._late is None:
            self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_is_here()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._taken = 0
        self._late = self.loop.call_later(self.head_time, self.timeout_keep_alive_handler)

    def _head_is_here(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
