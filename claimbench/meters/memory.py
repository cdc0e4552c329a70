"""Peak memory of a block of code: the kernel's high-water mark on a CPU, the caching allocator's on a GPU.

On Linux writing 5 to `/proc/self/clear_refs` sets a process's peak resident size (`VmHWM`) back to its
present size (proc(5), since Linux 4.0), so that the peak of one block can be read exactly, whichever library
allocates. `docs/meters.md` states what is counted, and what this cannot see.
"""

from __future__ import annotations

import functools
import gc
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from claimbench.errors import UserError
from claimbench.meters.allocator import Allocator

__all__ = ["Memory", "memory"]

SAMPLE_SECONDS = 0.002
KIB = 1024


@dataclass(frozen=True)
class Reading:
    """Resident bytes: own (anonymous and shared memory), and pages of mapped files."""

    own: int
    mapped: int

    @property
    def total(self) -> int:
        return self.own + self.mapped


class Memory:
    """What a block of code held at its peak, above what was held when it began. Filled in when the block
    ends.

    method: "clear_refs" (the kernel's peak), "cuda" (torch's caching allocator's peak), or "sampled" (the
    largest of readings taken every 2 ms: a lower bound).
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self._ended: tuple[int, int, int] | None = None

    def _end(self, peak: int, mapped: int, total: int) -> None:
        self._ended = (max(peak, 0), max(mapped, 0), max(total, 0))

    def _value(self, index: int) -> int:
        if self._ended is None:
            raise RuntimeError("a block's memory is known when the block has ended; read it after `with`")
        return self._ended[index]

    @property
    def peak_bytes(self) -> int:
        """The block's own peak in bytes, files that it mapped left out."""
        return self._value(0)

    @property
    def mapped_bytes(self) -> int:
        """The largest growth of resident file pages (mapped model files, shared libraries' code) in bytes,
        seen in samples."""
        return self._value(1)

    @property
    def total_bytes(self) -> int:
        """The peak with mapped files: an upper bound of `peak_bytes`, and equal to it where no file was
        mapped."""
        return self._value(2)

    def __repr__(self) -> str:
        if self._ended is None:
            return f"Memory(method={self.method!r}, running)"
        return (
            f"Memory(method={self.method!r}, peak_bytes={self.peak_bytes}, mapped_bytes={self.mapped_bytes})"
        )


class Gauge(Protocol):
    """A resettable peak: what is held, and the most that was held since the last reset. Bytes."""

    method: str

    def open(self) -> None: ...
    def tidy(self) -> None: ...
    def reset(self) -> None: ...
    def held(self) -> Reading: ...
    def peak(self) -> int: ...
    def close(self) -> None: ...


class Status:
    """`/proc/self/status`, held open: one read is one system call."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)

    def fields(self) -> dict[str, int]:
        text = os.pread(self._file, 1 << 16, 0).decode("utf-8", "replace")
        rows = (line.split() for line in text.splitlines())
        return {row[0].rstrip(":"): int(row[1]) * KIB for row in rows if len(row) == 3 and row[2] == "kB"}

    def reading(self) -> Reading:
        fields = self.fields()
        return Reading(own=fields["RssAnon"] + fields["RssShmem"], mapped=fields["RssFile"])

    def close(self) -> None:
        os.close(self._file)


def _clear_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@functools.cache
def can_clear_peak() -> bool:
    """Whether this system resets `VmHWM` when asked: tried out once, since some sandboxes accept and ignore
    it."""
    size = 16 * KIB * KIB
    try:
        status = Status()
    except OSError:
        return False
    try:
        _clear_peak()
        before = status.fields()["VmHWM"]
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
            for offset in range(0, size, mmap.PAGESIZE):
                pages[offset] = 1
        risen = status.fields()["VmHWM"]
        _clear_peak()
        after = status.fields()["VmHWM"]
    except (OSError, KeyError):
        return False
    finally:
        status.close()
    return risen - before > size // 2 and risen - after > size // 2


class ClearRefs:
    """The kernel's own peak of resident pages: exact, whatever allocates them."""

    method = "clear_refs"

    def __init__(self) -> None:
        self._allocator = Allocator()

    def open(self) -> None:
        self._status = Status()

    def tidy(self) -> None:
        self._allocator.trim()

    def reset(self) -> None:
        _clear_peak()

    def held(self) -> Reading:
        return self._status.reading()

    def peak(self) -> int:
        return self._status.fields()["VmHWM"]

    def close(self) -> None:
        self._status.close()
        self._allocator.restore()


class Sampled:
    """Resident size by psutil, where the kernel's peak cannot be reset: the sampling thread finds the
    peak."""

    method = "sampled"

    def __init__(self) -> None:
        self._allocator = Allocator()

    def open(self) -> None:
        import psutil

        self._process = psutil.Process()

    def tidy(self) -> None:
        self._allocator.trim()

    def reset(self) -> None:
        pass

    def held(self) -> Reading:
        information = self._process.memory_info()
        mapped = getattr(information, "shared", 0)  # Linux: file pages and shared memory together
        return Reading(own=information.rss - mapped, mapped=mapped)

    def peak(self) -> int:
        return self.held().total

    def close(self) -> None:
        self._allocator.restore()


class Cuda:
    """Peak of torch's caching allocator on one GPU: tensors only, neither the context nor other libraries'
    buffers."""

    method = "cuda"

    def __init__(self, device: str) -> None:
        self._device = device

    def open(self) -> None:
        pass

    def tidy(self) -> None:
        import torch

        gc.collect()
        torch.cuda.synchronize(self._device)

    def reset(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)

    def held(self) -> Reading:
        import torch

        return Reading(own=torch.cuda.memory_allocated(self._device), mapped=0)

    def peak(self) -> int:
        import torch

        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device)

    def close(self) -> None:
        pass


class Block:
    """One running block: what was held at its start, and the most seen since."""

    def __init__(self, held: Reading) -> None:
        self.start = held
        self.peak = held.total
        self.own = held.own
        self.mapped = held.mapped

    def see(self, reading: Reading) -> None:
        self.own = max(self.own, reading.own)
        self.mapped = max(self.mapped, reading.mapped)
        self.peak = max(self.peak, reading.total)

    def result(self) -> tuple[int, int, int]:
        """(own peak, mapped, total), above the start.

        The kernel keeps one peak of both kinds of pages. Without mapped files it is the own peak. With them
        the own peak is at least the total less the most that was mapped, and at least the most that a sample
        saw.
        """
        total = self.peak - self.start.total
        mapped = max(self.mapped - self.start.mapped, 0)
        return max(total - mapped, self.own - self.start.own), mapped, total


class Watch:
    """The blocks that run on one device. A reset for an inner block would lose the outer ones' peaks, so each
    reset
    first hands the peak so far to every running block: blocks may be nested, and each is measured over its
    own time."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self.method = gauge.method
        self._blocks: list[Block] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> Block:
        with self._lock:
            first = not self._blocks
            if first:
                self._gauge.open()
                self._start_sampling()
            self._settle()
            self._gauge.tidy()
            self._gauge.reset()
            block = Block(self._gauge.held())
            self._blocks.append(block)
            return block

    def end(self, block: Block) -> None:
        with self._lock:
            self._settle()
            self._blocks.remove(block)
            last = not self._blocks
            if last:
                self._stop.set()
        if last and self._thread is not None:
            self._thread.join()
            self._thread = None
        if last:
            self._gauge.close()

    def _settle(self) -> None:
        if self._blocks:
            reading, peak = self._gauge.held(), self._gauge.peak()
            for block in self._blocks:
                block.see(reading)
                block.peak = max(block.peak, peak)

    def _start_sampling(self) -> None:
        if self.method == "cuda":
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._sample, args=(self._stop,), name="memory-meter", daemon=True
        )
        self._thread.start()

    def _sample(self, stop: threading.Event) -> None:
        while not stop.wait(SAMPLE_SECONDS):
            with self._lock:
                if stop.is_set():
                    return
                reading = self._gauge.held()
                for block in self._blocks:
                    block.see(reading)


_watches: dict[tuple[int, str], Watch] = {}


def _watch(device: str) -> Watch:
    """The one watch of a device in this process (a forked child has none of its parent's running blocks)."""
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise UserError(f'memory on device "{device}" cannot be measured; use "cpu" or "cuda"')
    if kind == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError(f'device "{device}": torch finds no CUDA GPU here; use device "cpu"')
        index = torch.device(device).index
        device = f"cuda:{torch.cuda.current_device() if index is None else index}"
    key = (os.getpid(), device)
    if key not in _watches:
        _watches[key] = Watch(
            Cuda(device) if kind == "cuda" else ClearRefs() if can_clear_peak() else Sampled()
        )
    return _watches[key]


@contextmanager
def memory(device: str = "cpu") -> Iterator[Memory]:
    """Measure the peak memory of a block: `with memory("cpu") as used: ...`, then `used.peak_bytes`.

    device: "cpu" (resident memory of this process) or "cuda", "cuda:1", ... (tensors on that GPU). Blocks may
    be nested. The block's cost in time is not to be trusted: it runs with a sampling thread and a thrifty
    allocator. Raises UserError for any other device, and for "cuda" where there is none.
    """
    watch = _watch(device)
    used = Memory(watch.method)
    block = watch.begin()
    try:
        yield used
    finally:
        watch.end(block)
        used._end(*block.result())
