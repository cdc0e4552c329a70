"""The encoder process: one model in memory for all workers, requests that arrive together encoded together.

It holds a lock for its life, so that there is one of a kind; listens only when its model is loaded; and ends when
nobody has asked for a while. Run as `python -m claimbench.search.encoder_server SOCKET MODULE:FUNCTION ARGUMENT IDLE`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path

import numpy as np

from claimbench.errors import UserError
from claimbench.search.encoder_client import MOST_TEXTS, receive, send
from claimbench.search.meaning import Encoder, vectors_of

MOST_CONNECTIONS = 64
BATCH = 64  # texts that are encoded together at most, unless one request has more
REQUEST_LIMIT = 10.0  # seconds for a request to arrive and for its answer to be taken
_Waiting = tuple[list[str], "Future[np.ndarray]"]


class Server:
    """Listens on `path`, in a folder that only its user enters; ends after `idle` seconds without a request."""

    def __init__(self, path: Path, encoder: Encoder, idle: float) -> None:
        self.encoder = encoder
        self.idle = idle
        self._waiting: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._open = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._busy = 0
        self._last = time.monotonic()
        self._counting = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)  # a killed predecessor's; the lock says that it is gone
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(MOST_CONNECTIONS)

    def serve(self) -> None:
        """Answer until idle."""
        threading.Thread(target=self._encode, daemon=True).start()
        self._listener.settimeout(min(self.idle / 4, 1.0))
        while self._busy or time.monotonic() - self._last < self.idle:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._open.acquire()
            with self._counting:
                self._busy += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(REQUEST_LIMIT)
                try:
                    rows = self._rows(receive(connection))
                except (ValueError, RuntimeError, UserError) as error:
                    send(connection, json.dumps({"error": str(error)[:500]}).encode())
                    return
                send(connection, json.dumps({"shape": rows.shape}).encode())
                send(connection, rows.tobytes())
        except (OSError, EOFError):
            pass  # whoever asked is gone or too slow, which is theirs to notice
        finally:
            with self._counting:
                self._busy -= 1
                self._last = time.monotonic()
            self._open.release()

    def _rows(self, request: bytes) -> np.ndarray:
        asked = json.loads(request)
        texts = asked.get("texts") if isinstance(asked, dict) else None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("a request is a list of texts")
        if not 0 < len(texts) <= MOST_TEXTS:
            raise ValueError(f"a request has 1 to {MOST_TEXTS} texts, not {len(texts)}")
        answer: Future[np.ndarray] = Future()
        self._waiting.put((texts, answer))
        return answer.result()

    def _encode(self) -> None:
        """The one thread that computes: takes whatever waits, up to a batch, and encodes it as one."""
        while True:
            batch = [self._waiting.get()]
            while sum(len(texts) for texts, _ in batch) < BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            try:
                rows = vectors_of(self.encoder, [text for texts, _ in batch for text in texts])
            except (ValueError, RuntimeError, UserError) as error:
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            except (
                BaseException
            ):  # ours to mend: without this thread everybody would wait, so the process ends
                traceback.print_exc()
                os._exit(1)
            cuts = np.cumsum([len(texts) for texts, _ in batch])[:-1]
            for (_, answer), part in zip(batch, np.split(rows, cuts), strict=True):
                answer.set_result(part)


def load(factory: str, argument: str) -> Encoder:
    """The encoder that `module:function` makes of its argument."""
    module, name = factory.split(":")
    make: Callable[[str], Encoder] = getattr(import_module(module), name)
    return make(argument)


def main(path: Path, factory: str, argument: str, idle: float) -> None:
    with path.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another was faster
        server = Server(path, load(factory, argument), idle)
        try:
            server.serve()
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
