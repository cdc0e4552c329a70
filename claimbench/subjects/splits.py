"""Who goes to train, validation and test: by the order of the contents' hashes.

Nothing about an item's name, place or neighbours decides, and equal items lie in one split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped, UInt64

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def boundaries(sizes: Sequence[int] | Int[np.ndarray, " items"]) -> tuple[int, int]:
    """Where validation and test begin among items of these sizes, which stay whole.

    An item lies in the split that holds its middle; no split is empty if there are three items.
    """
    lengths = np.asarray(sizes, dtype=np.int64)
    count, total = len(lengths), int(lengths.sum())
    middles = np.cumsum(lengths) - lengths / 2
    trained = int(np.searchsorted(middles, SHARES["train"] * total))
    trained = min(max(trained, 1), max(count - 2, 1))
    validated = int(np.searchsorted(middles, (SHARES["train"] + SHARES["validation"]) * total))
    validated = min(max(validated, trained + 1), count - 1) if count > 2 else trained
    return trained, validated


def content_keys(items: Shaped[np.ndarray, "items ..."]) -> UInt64[np.ndarray, " items"]:
    """The first 64 bits of each item's sha256. Equal bytes have equal keys."""
    count = len(items)
    content = memoryview(np.ascontiguousarray(items).tobytes())
    width = len(content) // max(count, 1)
    heads = b"".join(hashlib.sha256(content[i * width : (i + 1) * width]).digest()[:8] for i in range(count))
    return np.frombuffer(heads, dtype=">u8").astype(np.uint64)


def split_by_key(keys: UInt64[np.ndarray, " items"]) -> dict[str, Int[np.ndarray, " part"]]:
    """The places of each split's items, in the order of their keys: train, validation, test."""
    order = np.argsort(keys, kind="stable")
    _, counts = np.unique(keys, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    trained, validated = boundaries(counts)
    parts = np.split(order, [ends[trained], ends[validated]])
    return dict(zip(SHARES, parts, strict=True))
