"""Heads of requests that never end, are too long, or come in pieces."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from claimbench.web.protocol import LARGEST_HEAD, BoundedProtocol


class Hasty(BoundedProtocol):
    head_time = 0.4


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(PlainTextResponse("here"), http=Hasty, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with socket.create_connection(listening.getsockname()) as found:
        found.settimeout(5)
        yield found
    server.should_exit = True
    thread.join(10)


def everything(connection: socket.socket) -> bytes:
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass  # closed with bytes of ours unread
    return found


def test_a_head_that_never_ends_is_cut_off(connection: socket.socket) -> None:
    began = time.monotonic()
    connection.sendall(b"GET / HTTP/1.1\r\n")
    for _ in range(3):
        time.sleep(0.05)
        connection.sendall(b"x: y\r\n")
    assert everything(connection) == b""
    assert time.monotonic() - began < 3


def test_silence_is_cut_off_too(connection: socket.socket) -> None:
    assert everything(connection) == b""


def test_a_head_that_is_too_long_is_refused(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * (LARGEST_HEAD + 1))
    assert everything(connection).startswith(b"HTTP/1.1 431")


def test_a_head_in_pieces_is_answered_again_and_again(connection: socket.socket) -> None:
    for last in (False, False, True):
        ask = b"GET / HTTP/1.1\r\nhost: a\r\n" + (b"connection: close\r\n" if last else b"") + b"\r\n"
        for piece in (ask[:5], ask[5:20], ask[20:]):
            connection.sendall(piece)
            time.sleep(0.05)
        if not last:
            assert connection.recv(65536).endswith(b"here")
            time.sleep(0.5)  # idle between requests is not a late head
    assert everything(connection).endswith(b"here")
