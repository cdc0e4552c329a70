"""What the meters themselves cost: time inside a block or a count, and bytes and seconds reported for doing nothing.

python benchmarks/meters.py           print the table
python benchmarks/meters.py --write   and put it into docs/meters.md, between its markers
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from claimbench.meters import count, memory, rounds

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "meters.md"
BEGIN, END = "<!-- meters:begin -->", "<!-- meters:end -->"
MB = 1 << 20
SLOT = (
    16_384 / 36 + 8
)  # bytes for an object of 433: 36 fit a pool of CPython's allocator; and its place in a list


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median seconds of one call, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def memory_rows() -> list[tuple[str, str]]:
    def allocating(metered: bool) -> float:
        with memory("cpu") if metered else nullcontext():
            return seconds(lambda: [torch.ones(MB // 4) for _ in range(32)], 20)

    def computing(metered: bool) -> float:
        matrix = torch.randn(400, 400)
        with memory("cpu") if metered else nullcontext():
            return seconds(lambda: matrix @ matrix, 100)

    def empty() -> None:
        with memory("cpu"):
            pass

    def idle() -> int:
        with memory("cpu") as used:
            time.sleep(0.05)
        return used.peak_bytes

    def objects(survivors: int) -> str:
        """250,000 Python objects after as many were freed, but for every so many-th: reported against held."""
        before = [bytes(400) for _ in range(250_000)]
        before = before[::survivors] if survivors else []
        with memory("cpu") as used:
            block = [bytes(400) for _ in range(250_000)]
        held = len(block) * SLOT
        return f"{used.peak_bytes / held - 1:+.1%}, with {len(before):,} survivors"

    with memory("cpu") as used:
        method = used.method
    return [
        ("memory: method here", method),
        ("memory: entering and leaving a block", f"{1e3 * seconds(empty, 20):.0f} ms"),
        (
            "memory: reported for a block that does nothing",
            f"{max(idle() for _ in range(10)) / 1024:.0f} KiB at most",
        ),
        ("memory: error for 250,000 Python objects of 433 bytes", objects(0)),
        ("memory: the same where free places lie between survivors", objects(100)),
        (
            "memory: slow-down of 32 MB in pieces of 1 MB inside a block",
            f"{allocating(True) / allocating(False):.2f} x",
        ),
        (
            "memory: slow-down of a matrix product inside a block",
            f"{computing(True) / computing(False):.2f} x",
        ),
    ]


def count_rows() -> list[tuple[str, str]]:
    layer = torch.nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, dropout=0.0)
    inputs = torch.randn(2, 16, 64)
    small = torch.randn(4)

    def step() -> None:
        layer(inputs).sum().backward()

    def many() -> Tensor:
        total = small
        for _ in range(1000):
            total = total + small
        return total

    extra = (seconds(lambda: count(many), 10) - seconds(many, 10)) / 1000
    return [
        ("count: each torch operation", f"{1e6 * extra:.0f} microseconds more"),
        (
            "count: a small transformer layer, forward and backward",
            f"{seconds(lambda: count(step), 10) / seconds(step, 10):.1f} x",
        ),
    ]


def timing_rows() -> list[tuple[str, str]]:
    matrix = torch.randn(200, 200)

    def nothing() -> None:
        pass

    def product() -> Tensor:
        return matrix @ matrix

    call = rounds({"nothing": nothing}).seconds["nothing"]
    start = time.perf_counter()
    timed = rounds({"a": product, "b": product})
    whole = time.perf_counter() - start
    sampled = timed.passes * sum(
        timed.seconds[arm] * timed.repeats[arm] * copies for arm, copies in (("a", 2), ("b", 1))
    )
    return [
        ("rounds: reported for a step that does nothing", f"{1e9 * call:.0f} ns a call"),
        (
            "rounds: a round of two arms, 20 ms samples",
            f"{whole:.2f} s, {sampled / whole:.0%} of it in samples",
        ),
    ]


def table() -> str:
    torch.set_num_threads(1)
    rows = [*memory_rows(), *count_rows(), *timing_rows()]
    system = f"{platform.system()} {platform.release().split('-')[0]}, {os.cpu_count()} CPUs"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    lines = ["| overhead | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(
        [*lines, "", f"Measured on {system}, {versions}, one thread, load {os.getloadavg()[0]:.1f}."]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/meters.md")
    options = parser.parse_args()
    text = table()
    print(text)
    if options.write:
        document = DOCUMENT.read_text(encoding="utf-8")
        before, _, rest = document.partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
