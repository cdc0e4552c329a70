"""Free places in CPython's own allocator, for objects of up to 512 bytes (Objects/obmalloc.c), found and filled.

Arenas stay resident while one object in them lives. A block that uses their free places again would seem to use
nothing; with the places filled, it has to take new arenas, and is seen to.
"""

from __future__ import annotations

import ctypes
import re
import sys

__all__ = ["fill"]

CLASS_ROW = re.compile(r"^ *\d+ +(\d+) +\d+ +\d+ +(\d+) *$", re.MULTILINE)  # class, size, pools, in use, free
UNUSED_POOLS = re.compile(r"^([\d,]+) unused pools \* (\d+) bytes", re.MULTILINE)
BYTES_HEADER = bytes(2).__sizeof__() - 2
LARGEST, POOL_HEADER = 512, 48


def fill() -> list[list[object]]:
    """Objects that fill every free place; places come free when the list is dropped. Empty for other allocators."""
    text = _statistics()
    filling = [_objects(int(size), int(free)) for size, free in CLASS_ROW.findall(text)]
    for pools, size in UNUSED_POOLS.findall(text):
        filling.append(
            _objects(LARGEST, int(pools.replace(",", "")) * ((int(size) - POOL_HEADER) // LARGEST))
        )
    return filling


def _objects(size: int, number: int) -> list[object]:
    """New objects that take `size` bytes each, without anything else in the arenas."""
    if size >= 48:
        return [bytes(size - BYTES_HEADER) for _ in range(number)]
    if size == 32:
        return list(range(1 << 40, (1 << 40) + number))
    return [object() for _ in range(number)]


def _statistics() -> str:
    """What `sys._debugmallocstats` prints, without printing it; "" if this Python keeps no arenas."""
    if not sys.platform.startswith("linux") or not hasattr(ctypes.pythonapi, "_PyObject_DebugMallocStats"):
        return ""
    library = ctypes.CDLL(None)
    library.open_memstream.restype = ctypes.c_void_p
    text, length = ctypes.c_void_p(), ctypes.c_size_t()
    stream = library.open_memstream(ctypes.byref(text), ctypes.byref(length))
    if not stream:
        return ""
    ctypes.pythonapi._PyObject_DebugMallocStats(ctypes.c_void_p(stream))
    library.fclose(ctypes.c_void_p(stream))
    written = ctypes.string_at(text.value, length.value).decode("ascii", "replace") if text.value else ""
    library.free(text)
    return written
