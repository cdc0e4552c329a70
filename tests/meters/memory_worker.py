"""A warm worker: allocates and frees for a while, then measures blocks of known size. Prints one JSON line a block.

Run as a script, so that its heap is its own: `python memory_worker.py SEED`.
"""

import json
import random
import sys
from collections.abc import Callable

import numpy as np
import torch

from claimbench.meters import memory

MB = 1 << 20
retained: list[object] = []


def warm(rng: random.Random) -> list[object]:
    """Fill the allocators' caches with freed memory of many sizes; the few survivors pin the heap in places."""
    survivors: list[object] = []
    for _ in range(3):
        tensors = [torch.ones(rng.randrange(1_000, 300_000)) for _ in range(150)]
        arrays = [np.ones(rng.randrange(100, 5_000)) for _ in range(4_000)]
        objects = [bytes(400) for _ in range(100_000)]
        big = torch.ones(20 * MB)
        product = torch.randn(600, 600) @ torch.randn(600, 600)
        spectrum = torch.fft.fft(torch.randn(1 << 17))
        survivors += rng.sample(tensors, 3) + rng.sample(arrays, 40) + objects[::100]
        del tensors, arrays, objects, big, product, spectrum
    return survivors


def one_big_block() -> None:
    np.ones(96 * MB // 8)


def many_small_blocks() -> None:
    [np.full(2048, 1.0) for _ in range(5_000)]


def many_python_objects() -> None:
    [bytes(400) for _ in range(150_000)]


def peak_in_the_middle() -> None:
    first = [torch.ones(MB // 4) for _ in range(40)]
    del first
    second = torch.ones(110 * MB // 4)
    del second
    [np.ones(3 * MB // 8) for _ in range(20)]


def retained_and_nested() -> None:
    def inner() -> float:
        ones = torch.ones(40 * MB // 4)
        return float((ones * 2.0).numpy().sum())

    retained.append(np.ones(30 * MB // 8))
    inner()
    retained.append(torch.ones(20 * MB // 4))


def holes_filled_again() -> None:
    """Frees between survivors, then larger blocks: what was freed must have left before they come."""
    first = [np.ones(30_000) for _ in range(200)]
    second = [np.ones(15 * 1024) for _ in range(200)]
    del first
    third = [np.ones(MB // 8) for _ in range(60)]
    del second, third


ARRAY = 112 + 16  # bytes of an ndarray object, and of the heap's bookkeeping for its data
OBJECT = (16_384 - 48) // 36 + 8 + 1  # 36 of these fit a pool of CPython's allocator; and a place in the list
BLOCKS: dict[str, tuple[Callable[[], None], int]] = {
    "one big block": (one_big_block, 96 * MB),
    "many small blocks": (many_small_blocks, 5_000 * (2048 * 8 + ARRAY)),
    "many Python objects": (many_python_objects, 150_000 * OBJECT),
    "peak in the middle": (peak_in_the_middle, 110 * MB),
    "retained and nested": (retained_and_nested, (30 + 40 + 40) * MB),
    "holes filled again": (holes_filled_again, 200 * 15 * 1024 * 8 + 60 * MB),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    rng = random.Random(int(sys.argv[1]))
    survivors = warm(rng)
    names = list(BLOCKS) * 2
    rng.shuffle(names)
    for name in names:
        block, expected = BLOCKS[name]
        with memory("cpu") as used:
            block()
        print(
            json.dumps({"name": name, "expected": expected, "peak": used.peak_bytes, "method": used.method})
        )
