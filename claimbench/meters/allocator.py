"""The heap of a warm process, brought to a state in which a block's memory can be seen.

glibc's allocator as documented in mallopt(3) and malloc_trim(3), and in the comments of its malloc.c.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sys

from claimbench.meters import arenas

__all__ = ["Allocator"]

KIB = 1024
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
FIXED_THRESHOLD = 128 * KIB  # glibc's first value for both, before it adapts to what is freed
ADAPTED_MMAP, ADAPTED_TRIM = 32 * KIB * KIB, 64 * KIB * KIB  # the largest values that glibc adapts to
LARGEST_PLUG, MOST_PLUGS = 1 << 30, 20_000


class Allocator:
    """CPython's arenas and glibc's heap while blocks are measured; any other allocator is left as it is.

    Four habits of a heap that has been used would hide or inflate a block's memory. Free places between Python
    objects are used again unseen: they are filled (`arenas`). Freed pages of the heap stay resident, to the same
    effect: they are given back (`malloc_trim`). Large frees stay in the heap once glibc has raised its thresholds
    to the sizes freed: the thresholds are fixed while a block runs. And large holes of the heap are used before
    new memory is mapped, but not given back when freed: they are stopped up with chunks that are never touched.
    So every chunk of 128 KiB or more is mapped, and leaves when it is freed.
    """

    def __init__(self) -> None:
        self._libc = _glibc()
        self._plugs: list[int] = []
        self._filling: list[list[object]] = []

    def trim(self) -> None:
        gc.collect()
        self._filling += arenas.fill()
        if self._libc is None:
            return
        self._libc.mallopt(M_MMAP_THRESHOLD, FIXED_THRESHOLD)
        self._libc.mallopt(M_TRIM_THRESHOLD, FIXED_THRESHOLD)
        self._libc.malloc_trim(0)
        self._plug()

    def restore(self) -> None:
        """Leave the allocator as one that has adapted to large frees: glibc cannot be told to adapt again."""
        self._filling.clear()
        if self._libc is None:
            return
        for plug in self._plugs:
            self._libc.free(plug)
        self._plugs.clear()
        self._libc.mallopt(M_MMAP_THRESHOLD, ADAPTED_MMAP)
        self._libc.mallopt(M_TRIM_THRESHOLD, ADAPTED_TRIM)

    def _plug(self) -> None:
        assert self._libc is not None
        size = LARGEST_PLUG
        while size >= FIXED_THRESHOLD and len(self._plugs) < MOST_PLUGS:
            end_of_heap = self._libc.sbrk(0)
            chunk = self._libc.malloc(size)
            if chunk and not _is_mapped(chunk) and self._libc.sbrk(0) == end_of_heap:
                self._plugs.append(chunk)
                continue
            if chunk:
                self._libc.free(chunk)
            size = size * 3 // 4


def _is_mapped(chunk: int) -> bool:
    """Whether glibc mapped this chunk by itself: bit 1 of the size that stands before it (malloc.c,
    IS_MMAPPED)."""
    word = ctypes.sizeof(ctypes.c_size_t)
    return bool(ctypes.c_size_t.from_address(chunk - word).value & 2)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """glibc, if the `malloc` of this process is glibc's own and no other allocator was loaded before it; else
    None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    names = ("malloc", "malloc_trim", "mallopt", "gnu_get_libc_version")
    if not all(hasattr(library, name) for name in (*names, "dladdr")):
        return None

    class Found(ctypes.Structure):
        _fields_ = (
            ("file", ctypes.c_char_p),
            ("base", ctypes.c_void_p),
            ("symbol", ctypes.c_char_p),
            ("address", ctypes.c_void_p),
        )

    bases = set()
    for name in names:
        found = Found()
        if not library.dladdr(ctypes.cast(library[name], ctypes.c_void_p), ctypes.byref(found)):
            return None
        bases.add(found.base)
    library.sbrk.argtypes, library.sbrk.restype = [ctypes.c_ssize_t], ctypes.c_void_p
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.free.argtypes, library.free.restype = [ctypes.c_void_p], None
    return library if len(bases) == 1 else None
