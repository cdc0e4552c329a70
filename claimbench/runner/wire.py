"""What runner, worker and trial say to each other: JSON in frames that begin with their length."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from claimbench.spec import Group, SubjectRef, TrialSpec

Message = dict[str, Any]
LENGTH = struct.Struct("!I")
LARGEST = 1 << 28  # a frame above this is no frame but noise


class Frames:
    """Puts frames together from a stream, however it was cut. Half a frame is never a message."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes. Raises ValueError for what cannot be a frame."""
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > LARGEST:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._buffer) < LENGTH.size + length:
                return
            body = bytes(self._buffer[LENGTH.size : LENGTH.size + length])
            del self._buffer[: LENGTH.size + length]
            yield json.loads(body)


def frame(message: Message) -> bytes:
    # ASCII escapes carry the lone surrogates of non-UTF-8 paths
    body = json.dumps(message, ensure_ascii=True).encode()
    return LENGTH.pack(len(body)) + body


def write_frame(descriptor: int, message: Message) -> None:
    """Write a whole frame to a blocking descriptor. Raises OSError if nobody reads any more."""
    view = memoryview(frame(message))
    while view:
        view = view[os.write(descriptor, view) :]


def group_to_message(group: Group) -> Message:
    return {**asdict(group), "folder": os.fspath(group.folder)}


def group_from_message(message: Message) -> Group:
    return Group(
        **{
            **message,
            "specs": tuple(_spec(spec) for spec in message["specs"]),
            "folder": Path(message["folder"]),
            "metrics": tuple(message["metrics"]),
        }
    )


def _spec(message: Message) -> TrialSpec:
    known = {f.name: message[f.name] for f in fields(TrialSpec)}
    known["subjects"] = {name: SubjectRef(**ref) for name, ref in message["subjects"].items()}
    known["company"] = tuple(message["company"])
    return TrialSpec(**known)
