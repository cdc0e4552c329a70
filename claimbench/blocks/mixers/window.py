"""Causal softmax attention over the last few tokens, with rotary positions: exact, and linear in the length.

Windows: Beltagy et al. 2020, arXiv 2004.05150; as a layer of tiny windows: Arora et al. 2024, arXiv 2402.18668.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from claimbench.blocks.mixers.rotary import rotate


class Ring(NamedTuple):
    """Turned keys and values of the last `window` of `length` tokens; token t lies in slot t mod window."""

    keys: Float[Tensor, "batch heads window width"]
    values: Float[Tensor, "batch heads window width"]
    length: int


def window_attention(
    q: Float[Tensor, "batch heads length width"],
    k: Float[Tensor, "batch heads length width"],
    v: Float[Tensor, "batch heads length width"],
    window: int,
) -> Float[Tensor, "batch heads length width"]:
    """Token i attends to tokens i − window + 1 … i; scores are scaled by width^(-1/2).

    The length is cut into blocks of `window` queries, each with the keys of its own block and the one before: that is
    2 · length · window scores. Where the window covers the length this is full causal attention.
    """
    batch, heads, length, width = q.shape
    if window >= length:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    blocks = -(-length // window)
    q, k, v = (functional.pad(x, (0, 0, 0, blocks * window - length)) for x in (q, k, v))
    cut = (batch * heads, blocks, window, width)
    q, k, v = (x.reshape(cut) for x in (q, k, v))
    k, v = (torch.cat([functional.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1], x], dim=2) for x in (k, v))
    query = torch.arange(window, device=q.device)[:, None] + window
    key = torch.arange(2 * window, device=q.device)
    near = (key <= query) & (key > query - window)
    exists = key >= window  # the first block has none before it
    allowed = torch.stack([near & exists, near])[torch.arange(blocks, device=q.device).clamp(max=1)]
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    return y.reshape(batch, heads, blocks * window, width)[:, :, :length]


class SlidingWindow(nn.Module):
    """Multi-head attention over the last `window` tokens, itself included. No biases, as in Based.

    rotary=False leaves positions out. The window's ring is the whole state: 2 · window · features numbers.
    """

    def __init__(self, features: int, heads: int = 1, *, window: int, rotary: bool = True) -> None:
        super().__init__()
        if features % heads or (rotary and features // heads % 2):
            raise ValueError(f"{features} features cannot be split among {heads} heads of an even width")
        if window < 1:
            raise ValueError(f"a window holds at least 1 token, not {window}")
        self.heads, self.width, self.window, self.rotary = heads, features // heads, window, rotary
        self.project = nn.Linear(features, 3 * features, bias=False)
        self.out = nn.Linear(features, features, bias=False)

    def _heads(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as [batch, heads, length, width]; q and k turned to positions from `start`."""
        batch, length, _ = x.shape
        q, k, v = self.project(x).view(batch, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        if self.rotary:
            positions = torch.arange(start, start + length, device=x.device)
            q, k = rotate(q, positions), rotate(k, positions)
        return q, k, v

    def _joined(self, y: Tensor) -> Tensor:
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        """All positions at once."""
        q, k, v = self._heads(x, 0)
        return self._joined(window_attention(q, k, v, self.window))

    def init_state(self, batch: int) -> Ring:
        """An empty ring."""
        shape = (batch, self.heads, self.window, self.width)
        keys = torch.zeros(shape, dtype=self.out.weight.dtype, device=self.out.weight.device)
        return Ring(keys, torch.zeros_like(keys), 0)

    def prefill(
        self, x: Float[Tensor, "batch length features"]
    ) -> tuple[Float[Tensor, "batch length features"], Ring]:
        """`forward`, and the ring as it is after the last token."""
        q, k, v = self._heads(x, 0)
        length = x.shape[1]
        state = self.init_state(len(x))
        last = torch.arange(max(length - self.window, 0), length, device=x.device)
        state.keys[:, :, last % self.window] = k[:, :, last]
        state.values[:, :, last % self.window] = v[:, :, last]
        y = self._joined(window_attention(q, k, v, self.window))
        return y, state._replace(length=length)

    def step(
        self, x: Float[Tensor, "batch features"], state: Ring
    ) -> tuple[Float[Tensor, "batch features"], Ring]:
        """One token: it takes the place of the one that leaves the window, in place, and attends to the ring."""
        q, k, v = self._heads(x[:, None], state.length)
        slot, filled = state.length % self.window, min(state.length + 1, self.window)
        state.keys[:, :, slot], state.values[:, :, slot] = k[:, :, 0], v[:, :, 0]
        y = functional.scaled_dot_product_attention(q, state.keys[:, :, :filled], state.values[:, :, :filled])
        return self._joined(y)[:, 0], state._replace(length=state.length + 1)

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """The ring, however many tokens it has seen."""
        return 2 * batch * self.heads * self.window * self.width * self.out.weight.element_size()
