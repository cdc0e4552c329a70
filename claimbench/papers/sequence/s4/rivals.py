"""What S4 is compared with on whole sequences: causal attention with a key-value cache, and an LSTM.

Both are mixers like `S4`. Attention: Vaswani et al. 2017, arXiv 1706.03762, by torch's fused kernel. LSTM: Hochreiter
and Schmidhuber 1997, torch's own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, in buffers of fixed capacity; `length` of them are filled."""

    keys: Float[Tensor, "batch heads capacity width"]
    values: Float[Tensor, "batch heads capacity width"]
    length: int


class Attention(nn.Module):
    """Causal multi-head self-attention. capacity: how many tokens a cache has room for."""

    def __init__(self, features: int, heads: int, *, capacity: int = 0) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"{features} features cannot be split among {heads} heads")
        self.heads, self.width, self.capacity = heads, features // heads, capacity
        self.project = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        """All positions at once, each attending to itself and those before it."""
        batch, length, features = x.shape
        q, k, v = self.project(x).view(batch, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, features))
        return out

    def init_state(self, batch: int) -> Cache:
        """An empty cache. Raises ValueError if the layer was made without a capacity."""
        if not self.capacity:
            raise ValueError("make the layer with capacity=... to run it token by token")
        shape = (batch, self.heads, self.capacity, self.width)
        keys = torch.empty(shape, dtype=self.out.weight.dtype, device=self.out.weight.device)
        return Cache(keys, torch.empty_like(keys), 0)

    def step(
        self, x: Float[Tensor, "batch features"], state: Cache
    ) -> tuple[Float[Tensor, "batch features"], Cache]:
        """One token: its key and value are written into the cache's buffers, in place, and attended to."""
        if state.length >= state.keys.shape[2]:
            raise ValueError(
                f"the cache is full at {state.length} tokens; make the layer with a larger capacity"
            )
        q, k, v = self.project(x).view(len(x), 3, self.heads, 1, self.width).unbind(1)
        here = slice(state.length, state.length + 1)
        state.keys[:, :, here], state.values[:, :, here] = k, v
        seen = slice(0, state.length + 1)
        y = functional.scaled_dot_product_attention(q, state.keys[:, :, seen], state.values[:, :, seen])
        out: Tensor = self.out(y.reshape(len(x), -1))
        return out, state._replace(length=state.length + 1)

    def state_bytes(self, batch: int = 1) -> int:
        """A full cache: keys and values of `capacity` tokens."""
        return 2 * batch * self.heads * self.capacity * self.width * self.out.weight.element_size()


class LSTM(nn.Module):
    """One LSTM layer of `hidden` units, projected back to `features`."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.out = nn.Linear(hidden, features)
        with torch.no_grad():  # remember by default: a forget gate that starts open (Jozefowicz et al. 2015)
            for name in ("bias_ih_l0", "bias_hh_l0"):
                self.lstm.get_parameter(name)[hidden : 2 * hidden] = 0.5

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        out: Tensor = self.out(self.lstm(x)[0])
        return out

    def init_state(self, batch: int) -> tuple[Tensor, Tensor]:
        zero = self.out.weight.new_zeros(1, batch, self.lstm.hidden_size)
        return zero, zero

    def step(
        self, x: Float[Tensor, "batch features"], state: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "batch features"], tuple[Tensor, Tensor]]:
        """One token."""
        y, state = self.lstm(x[:, None], state)
        return self.out(y[:, 0]), state

    def state_bytes(self, batch: int = 1) -> int:
        return 2 * batch * self.lstm.hidden_size * self.out.weight.element_size()
