"""Based's mixer: global linear attention with the Taylor map, and exact attention over a tiny window.

Arora et al. 2024, arXiv 2402.18668, Section 4. Two dials for the size of the state: the width d′ of queries and keys,
and the window w.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from claimbench.blocks.mixers.linear_attention import LinearAttention, Sums
from claimbench.blocks.mixers.window import Ring, SlidingWindow
from claimbench.papers.sequence.based.taylor import Taylor


def taylor_attention(
    features: int, heads: int = 1, *, key_width: int, merged: bool = True
) -> LinearAttention:
    """Based's linear attention: h heads with queries and keys of d′ = key_width numbers."""
    return LinearAttention(features, heads, key_width=key_width, feature_map=Taylor(key_width, merged=merged))


class Dials(NamedTuple):
    """State of the two parts."""

    sums: Sums
    ring: Ring | None


class BasedMixer(nn.Module):
    """Taylor linear attention plus window attention in one layer; window = 0 leaves the window out.

    The paper's language models put the two into layers of their own (see `model.py`); in one layer they fit where one
    mixer is asked for.
    """

    def __init__(
        self, features: int, heads: int = 1, *, key_width: int, window: int = 0, merged: bool = True
    ) -> None:
        super().__init__()
        self.linear = taylor_attention(features, heads, key_width=key_width, merged=merged)
        self.window = SlidingWindow(features, heads, window=window) if window else None

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        """All positions at once."""
        y: Tensor = self.linear(x)
        return y if self.window is None else y + self.window(x)

    def init_state(self, batch: int) -> Dials:
        """Zero sums and an empty ring."""
        return Dials(
            self.linear.init_state(batch), None if self.window is None else self.window.init_state(batch)
        )

    def prefill(
        self, x: Float[Tensor, "batch length features"]
    ) -> tuple[Float[Tensor, "batch length features"], Dials]:
        """`forward`, and the state after the last token."""
        y, sums = self.linear.prefill(x)
        if self.window is None:
            return y, Dials(sums, None)
        near, ring = self.window.prefill(x)
        return y + near, Dials(sums, ring)

    def step(
        self, x: Float[Tensor, "batch features"], state: Dials
    ) -> tuple[Float[Tensor, "batch features"], Dials]:
        """One token."""
        y, sums = self.linear.step(x, state.sums)
        if self.window is None or state.ring is None:
            return y, Dials(sums, None)
        near, ring = self.window.step(x, state.ring)
        return y + near, Dials(sums, ring)

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """h · D · (d/h + 1) numbers and, with a window, 2 · w · d more."""
        window = 0 if self.window is None else self.window.state_bytes(batch)
        return self.linear.state_bytes(batch) + window
