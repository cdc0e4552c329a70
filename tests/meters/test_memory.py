"""Memory of blocks whose size is known by hand, in a warm worker and in a new process.

Not in the tests' own process: what other tests left there (threads that end, an allocator that gives pages back
after ten seconds) would be counted against the block.
"""

import functools
import importlib
import json
import mmap
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from claimbench.errors import UserError
from claimbench.meters import arenas, memory

module = importlib.import_module("claimbench.meters.memory")
MB = 1 << 20
needs_clear_refs = pytest.mark.skipif(
    not module.can_clear_peak(), reason="this system does not reset VmHWM, so that peaks are sampled"
)
PATTERNS = [
    "one big block",
    "many small blocks",
    "many Python objects",
    "peak in the middle",
    "retained and nested",
    "holes filled again",
]


def _call(name: str, arguments: dict[str, Any]) -> None:
    runpy.run_path(__file__)[name].__wrapped__(**arguments)


@functools.cache
def _new_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def in_a_new_process(test: Callable[..., None]) -> Callable[..., None]:
    """The test, run in an interpreter that only these tests use; its fixtures' values are sent there."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        _new_process().submit(_call, test.__name__, arguments).result(timeout=120)

    return run


@pytest.fixture(scope="module")
def warm_worker() -> list[dict]:
    script = Path(__file__).with_name("memory_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), "5"], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_clear_refs
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_warm_worker_measures_a_block_within_five_per_cent(warm_worker: list[dict], pattern: str) -> None:
    measured = [row for row in warm_worker if row["name"] == pattern]
    assert len(measured) == 2
    for row in measured:
        assert row["expected"] > 50 * MB
        assert row["method"] == "clear_refs"
        assert row["peak"] == pytest.approx(row["expected"], rel=0.05)


def free_places() -> int:
    """Bytes of places that are free in arenas which other objects keep alive."""
    text = arenas._statistics()
    pools = sum(int(n.replace(",", "")) * int(size) for n, size in arenas.UNUSED_POOLS.findall(text))
    return pools + sum(int(size) * int(free) for size, free in arenas.CLASS_ROW.findall(text))


@pytest.mark.skipif(not arenas._statistics(), reason="this Python does not keep its small objects in arenas")
def test_free_places_between_python_objects_are_filled() -> None:
    """Of the sizes of every way to make a filling object: 16, 32, 48 and up to 512 bytes."""
    kinds = [[object() for _ in range(50_000)], list(range(1 << 50, (1 << 50) + 50_000))]
    kinds += [[bytes(size) for _ in range(20_000)] for size in (10, 100, 400, 470)]
    survivors = [kind[::300] for kind in kinds]
    del kinds
    before = free_places()
    filling = arenas.fill()
    filled = free_places()
    assert before > 15 * MB
    assert filled < 1.5 * MB  # one arena at most is newly begun
    assert survivors
    del filling
    assert free_places() > 15 * MB


@needs_clear_refs
@in_a_new_process
def test_mapped_files_are_counted_apart(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(os.urandom(MB) * 64)
    with memory("cpu") as used:
        mapped = np.memmap(file, dtype=np.uint8, mode="r")
        own = np.array(mapped)
        assert own.size == 64 * MB
    assert used.mapped_bytes == pytest.approx(64 * MB, rel=0.05)
    assert used.peak_bytes == pytest.approx(64 * MB, rel=0.05)
    assert used.total_bytes == pytest.approx(128 * MB, rel=0.05)


@needs_clear_refs
@in_a_new_process
def test_a_file_unmapped_before_the_own_peak_does_not_hide_it(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(os.urandom(MB) * 64)
    with memory("cpu") as used:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            pages.find(b"not there" * 100)
            time.sleep(0.1)
        own = np.ones(64 * MB // 8)
        time.sleep(0.1)
        del own
    assert used.mapped_bytes == pytest.approx(64 * MB, rel=0.05)
    assert used.peak_bytes == pytest.approx(64 * MB, rel=0.05)


@needs_clear_refs
@in_a_new_process
def test_a_file_that_is_written_to_counts_as_own(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(bytes(64 * MB))
    with memory("cpu") as used:
        mapped = np.memmap(file, dtype=np.uint8, mode="c")
        mapped[:] = 1
    assert used.peak_bytes == pytest.approx(64 * MB, rel=0.05)


@needs_clear_refs
@in_a_new_process
def test_nested_blocks_are_each_measured_over_their_own_time() -> None:
    with memory("cpu") as outer:
        kept = np.ones(16 * MB // 8)
        np.ones(96 * MB // 8)
        with memory("cpu") as inner:
            np.ones(56 * MB // 8)
        assert inner.peak_bytes == pytest.approx(56 * MB, rel=0.05)
        assert kept.size
    assert outer.peak_bytes == pytest.approx(112 * MB, rel=0.05)
    with memory("cpu") as outer:
        with memory("cpu") as inner:
            np.ones(64 * MB // 8)
        np.ones(8 * MB // 8)
    assert outer.peak_bytes == pytest.approx(64 * MB, rel=0.05)
    assert inner.peak_bytes == pytest.approx(64 * MB, rel=0.05)


@in_a_new_process
def test_what_was_held_before_is_not_counted() -> None:
    before = np.ones(64 * MB // 8)
    with memory("cpu") as used:
        before += 1.0
    assert used.peak_bytes < 3 * MB


@in_a_new_process
def test_a_block_that_raises_is_measured_and_raises() -> None:
    used = None

    def fail() -> None:
        nonlocal used
        with memory("cpu") as used:
            np.ones(64 * MB // 8)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert used is not None
    assert used.peak_bytes > 60 * MB


def test_a_running_block_has_no_figures() -> None:
    with memory("cpu") as used, pytest.raises(RuntimeError, match="has ended"):
        _ = used.peak_bytes
    assert used.peak_bytes >= 0


@in_a_new_process
def test_without_the_kernels_peak_it_samples_and_says_so() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "can_clear_peak", lambda: False)
        patch.setattr(module, "_watches", {})
        with memory("cpu") as used:
            own = np.ones(64 * MB // 8)
            time.sleep(0.2)
            del own
    assert used.method == "sampled"
    assert used.peak_bytes == pytest.approx(64 * MB, rel=0.05)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@in_a_new_process
def test_a_child_forked_from_inside_a_block_measures_its_own() -> None:
    with memory("cpu") as outer:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with memory("cpu") as used:
                np.ones(64 * MB // 8)
            os.write(write, str(used.peak_bytes).encode())
            os._exit(0)
        os.waitpid(child, 0)
        peak = int(os.read(read, 100))
        os.close(read)
        os.close(write)
    assert peak == pytest.approx(64 * MB, rel=0.05)
    assert outer.peak_bytes < 8 * MB


def test_a_device_without_a_meter_is_named() -> None:
    with pytest.raises(UserError, match='"mps" cannot be measured; use "cpu" or "cuda"'), memory("mps"):
        pass


@functools.cache
def no_gpu() -> bool:
    import torch

    return not torch.cuda.is_available()


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu(), reason="torch finds no CUDA GPU")
def test_a_gpu_block_counts_its_own_tensors() -> None:
    import torch

    before = torch.ones(32 * MB, dtype=torch.uint8, device="cuda")
    torch.ones(256 * MB, dtype=torch.uint8, device="cuda")  # a higher peak, before the block
    with memory("cuda") as outer:
        with memory("cuda:0") as used:
            first = torch.ones(64 * MB, dtype=torch.uint8, device="cuda")
            torch.ones(96 * MB, dtype=torch.uint8, device="cuda")
        torch.ones(8 * MB, dtype=torch.uint8, device="cuda")
    assert (used.method, used.peak_bytes) == ("cuda", 160 * MB)
    assert outer.peak_bytes == 160 * MB
    assert first.numel() + before.numel()


@pytest.mark.skipif(not no_gpu(), reason="torch finds a CUDA GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="torch finds no CUDA GPU"), memory("cuda"):
        pass
