"""In which order training meets its data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int


def shuffled(count: int, batch: int, generator: np.random.Generator) -> Iterator[Int[np.ndarray, " batch"]]:
    """Batches of 0 .. count - 1 for ever: each once before any comes again, in a new order each time."""
    left = np.empty(0, dtype=np.int64)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, generator.permutation(count)])
        yield left[:batch]
        left = left[batch:]
