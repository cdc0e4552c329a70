"""The encoder process: one for all who ask, started again when it dies, gone when nobody asks."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from papers import PAPERS, WordHashes

from claimbench.search import EncoderClient, EncoderUnreachable, Index
from claimbench.search.encoder_client import LARGEST, receive, send
from claimbench.search.encoder_server import Server


@pytest.fixture(autouse=True)
def short_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket's path has at most 107 bytes; and the process must find `papers`."""
    with tempfile.TemporaryDirectory(prefix="cb") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield Path(folder)


def client(argument: str = "", idle: float = 1.5, **options: object) -> EncoderClient:
    return EncoderClient("papers:WordHashes", argument, f"hashes-{argument}", idle=idle, **options)  # type: ignore[arg-type]


def units(texts: list[str]) -> np.ndarray:
    rows = WordHashes().encode(texts)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def process_of(asked: EncoderClient) -> int:
    """The process that answers, as the kernel names it (Linux): others with its arguments may be coming or going."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(asked.socket_path))
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[0])


def wait_until_gone(asked: EncoderClient, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while asked.socket_path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not asked.socket_path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="asks for SO_PEERCRED")
def test_two_who_ask_at_once_share_a_process_that_ends_when_idle_and_starts_again_when_killed() -> None:
    texts = [[f"attention number {i}", "kernel"] for i in range(12)]
    with ThreadPoolExecutor(12) as threads:
        rows = list(threads.map(lambda asked: client().encode(asked), texts))
    for asked, found in zip(texts, rows, strict=True):
        np.testing.assert_allclose(found, units(asked), atol=1e-6)
    first = process_of(client())
    assert client().socket_path.parent.stat().st_mode & 0o777 == 0o700
    os.kill(first, signal.SIGKILL)
    np.testing.assert_allclose(client().encode(["again"]), units(["again"]), atol=1e-6)
    assert process_of(client()) != first
    wait_until_gone(client())
    with pytest.raises(EncoderUnreachable, match="no encoder is running"):
        client(start=False).encode(["x"])


def test_one_that_cannot_start_or_dies_while_computing_leaves_words(tmp_path: Path) -> None:
    missing = EncoderClient("papers:Nothing", "", "none", start_limit=20)
    with pytest.raises(EncoderUnreachable, match="did not start: AttributeError"):
        missing.encode(["x"])
    index = Index(tmp_path, client())
    index.build(PAPERS)
    assert index.search("attention").without_meaning == ""
    results = index.search("die")
    assert "broke off" in results.without_meaning
    assert index.search("attention").without_meaning == ""  # started again


def test_requests_that_wait_together_are_encoded_together(short_runtime_folder: Path) -> None:
    class Slow(WordHashes):
        def encode(self, texts):  # type: ignore[no-untyped-def]
            time.sleep(0.2)
            return super().encode(texts)

    encoder = Slow()
    path = short_runtime_folder / "s"
    server = Server(path, encoder, idle=1.0)
    with ThreadPoolExecutor(9) as threads:
        serving = threads.submit(server.serve)
        answers = list(
            threads.map(lambda i: ask(path, json.dumps({"texts": [f"text {i}"]}).encode()), range(8))
        )
        serving.result(timeout=10)
    assert all(answer == {"shape": [1, 64]} for answer in answers)
    assert sum(encoder.calls) == 8
    assert len(encoder.calls) <= 3  # one that came first, and the rest


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"not json", "Expecting value"),
        (b'{"texts": "one"}', "a list of texts"),
        (b'{"texts": []}', "1 to 256 texts"),
        (json.dumps({"texts": ["x"] * 257}).encode(), "1 to 256 texts"),
        (b"[1]", "a list of texts"),
    ],
)
def test_what_is_no_request_is_answered_with_its_reason(
    short_runtime_folder: Path, request_: bytes, reason: str
) -> None:
    path = short_runtime_folder / "s"
    server = Server(path, WordHashes(), idle=0.3)
    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(server.serve)
        assert reason in ask(path, request_)["error"]
        serving.result(timeout=10)


def test_a_length_that_is_too_large_is_refused_unread(short_runtime_folder: Path) -> None:
    path = short_runtime_folder / "s"
    server = Server(path, WordHashes(), idle=0.3)
    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(server.serve)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(struct.pack(">I", LARGEST + 1))
            assert "too large" in json.loads(receive(connection))["error"]
        serving.result(timeout=10)


def test_a_folder_that_others_may_enter_is_refused(short_runtime_folder: Path) -> None:
    (short_runtime_folder / "claimbench").mkdir(mode=0o755)
    with pytest.raises(EncoderUnreachable, match="must be a folder of yours"):
        client().encode(["x"])


def ask(path: Path, request: bytes) -> dict:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        send(connection, request)
        return json.loads(receive(connection))
