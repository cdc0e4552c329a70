"""The arms of the recall claim: mixers whose states are matched in bytes.

A baseline gets at least as many bytes as Based: the smallest of its sizes that is not below. State bytes are those of
the mixer itself; the convolution before it is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from claimbench.blocks.mixers import make_mixer

NUMBER = 4  # bytes of a float32
MAMBA = {"expand": 2, "kernel": 4}

Make = Callable[[], Any]


def based_bytes(features: int, key_width: int, window: int) -> int:
    """State bytes of Based with one head: D · (d + 1) numbers, and 2 · w · d with a window."""
    dimension = 1 + key_width + key_width * (key_width + 1) // 2
    return NUMBER * (dimension * (features + 1) + 2 * window * features)


def matched(arm: str, *, features: int, state_bytes: int) -> Make:
    """A builder of this baseline's mixer with at least `state_bytes`; attention has no such dial."""
    numbers = -(-state_bytes // NUMBER)
    if arm == "attention":
        return partial(make_mixer, "attention", features, heads=1)
    if arm == "linear-elu":
        return partial(make_mixer, "linear-attention", features, key_width=-(-numbers // (features + 1)))
    if arm == "sliding-window":
        return partial(make_mixer, "sliding-window", features, window=-(-numbers // (2 * features)))
    if arm == "gru":
        return partial(make_mixer, "gru", features, hidden=numbers)
    if arm == "mamba":
        channels = MAMBA["expand"] * features
        state = max(-(-numbers // channels) - (MAMBA["kernel"] - 1), 1)
        return partial(make_mixer, "mamba", features, state=state, **MAMBA)
    raise ValueError(f'no arm "{arm}"')
