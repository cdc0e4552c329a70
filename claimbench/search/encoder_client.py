"""Asking the encoder process: a Unix socket in a private folder, bounded messages, started by whoever needs it first.

A message is a length (4 bytes, big-endian) and that many bytes. A request is JSON, `{"texts": [...]}`; the answer is
JSON, `{"shape": [texts, width]}` or `{"error": "..."}`, and after a shape a second message with the rows as float32.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from claimbench.errors import UserError
from claimbench.paths import cache_dir

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

LARGEST = 16 << 20  # bytes of a message
MOST_TEXTS = 256  # of a request
LONGEST_TEXT = 20_000  # characters that are sent of a text; the encoder reads 256 tokens
_LENGTH = struct.Struct(">I")


class EncoderUnreachable(UserError):
    """There is no encoder to ask: search by words goes on."""


class EncoderClient:
    """The encoder of a process that all workers share.

    factory: `module:function` that makes an object with `identity` and `encode` of `argument`, in that process.
    identity: what that encoder's `identity` is (a subject's content hash), known without loading it.
    start: start the process if none listens; else only a running one is asked.
    idle: seconds without a request after which a process started from here ends.
    """

    def __init__(
        self,
        factory: str,
        argument: str,
        identity: str,
        *,
        start: bool = True,
        idle: float = 600.0,
        time_limit: float = 30.0,
        start_limit: float = 60.0,
    ) -> None:
        self.factory = factory
        self.argument = argument
        self.identity = identity
        self.start = start
        self.idle = idle
        self.time_limit = time_limit
        self.start_limit = start_limit

    @property
    def socket_path(self) -> Path:
        name = hashlib.sha256(
            f"{cache_dir().absolute()}\n{self.factory}\n{self.argument}\n{self.identity}".encode()
        ).hexdigest()
        return private_folder() / f"{name[:16]}.socket"

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts width"]:
        """Rows of float32, one a text. Raises EncoderUnreachable."""
        import numpy as np

        parts = [
            self._ask([text[:LONGEST_TEXT] for text in texts[start : start + MOST_TEXTS]])
            for start in range(0, len(texts), MOST_TEXTS)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)

    def _ask(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts width"]:
        import numpy as np

        request = json.dumps({"texts": texts}).encode()
        for attempt in (1, 2):  # a process may end, idle or killed, between being found and being asked
            try:
                with self._connected() as connection:
                    connection.settimeout(self.time_limit)
                    send(connection, request)
                    answer = json.loads(receive(connection))
                    if "error" in answer:
                        raise EncoderUnreachable(f"the encoder answers: {answer['error']}")
                    shape = (int(answer["shape"][0]), int(answer["shape"][1]))
                    return np.frombuffer(receive(connection), dtype=np.float32).reshape(shape)
            except TimeoutError:
                raise EncoderUnreachable(f"the encoder did not answer within {self.time_limit:g} s") from None
            except (OSError, EOFError) as error:
                if attempt == 2:
                    raise EncoderUnreachable(f"the encoder broke off: {error}") from None
        raise AssertionError

    def _connected(self) -> socket.socket:
        path = self.socket_path
        found = _connect(path)
        if found is not None:
            return found
        if not self.start:
            raise EncoderUnreachable("no encoder is running")
        deadline = time.monotonic() + self.start_limit
        starting = self._launch(path)
        while time.monotonic() < deadline:
            found = _connect(path)
            if found is not None:
                return found
            if starting.poll() not in (None, 0):  # 0: another process was faster, and listens soon
                raise EncoderUnreachable(f"the encoder did not start: {_last_line(path.with_suffix('.log'))}")
            if starting.poll() == 0 and not _is_locked(path.with_suffix(".lock")):
                starting = self._launch(path)
            time.sleep(0.02)
        raise EncoderUnreachable(f"the encoder did not start within {self.start_limit:g} s")

    def _launch(self, path: Path) -> subprocess.Popen[bytes]:
        with path.with_suffix(".log").open("ab") as log:
            if log.tell() > 1 << 20:
                log.truncate(0)
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "claimbench.search.encoder_server",
                    str(path),
                    self.factory,
                    self.argument,
                    str(self.idle),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C for one who asks is not meant for all
            )


def private_folder() -> Path:
    """The folder of sockets, only this user's. Raises EncoderUnreachable if somebody else could write there."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = (
        Path(runtime, "claimbench") if runtime else Path(tempfile.gettempdir(), f"claimbench-{os.getuid()}")
    )
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EncoderUnreachable(f"{folder}: cannot be used: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EncoderUnreachable(f"{folder}: must be a folder of yours that nobody else may enter (0700)")
    return folder


def send(connection: socket.socket, message: bytes) -> None:
    if len(message) > LARGEST:
        raise ValueError(f"a message of {len(message)} bytes is too large")
    connection.sendall(_LENGTH.pack(len(message)) + message)


def receive(connection: socket.socket, largest: int = LARGEST) -> bytes:
    """One message. Raises EOFError when the other side leaves, ValueError when it is larger than `largest`."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > largest:
        raise ValueError(f"a message of {length} bytes is too large")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        part = connection.recv(min(length - len(found), 1 << 20))
        if not part:
            raise EOFError("the connection was closed")
        found += part
    return bytes(found)


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(5.0)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _is_locked(path: Path) -> bool:
    import fcntl

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it left no reason"
    return "it left no reason"
