"""Causal attention with a key-value cache: Vaswani et al. 2017, arXiv 1706.03762, by torch's fused kernel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, in buffers with room to spare; `length` of them are filled."""

    keys: Float[Tensor, "batch heads capacity width"]
    values: Float[Tensor, "batch heads capacity width"]
    length: int


class Attention(nn.Module):
    """Causal multi-head self-attention. capacity: how many tokens a new cache has room for before it must grow."""

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
        """An empty cache."""
        shape = (batch, self.heads, self.capacity, self.width)
        keys = torch.empty(shape, dtype=self.out.weight.dtype, device=self.out.weight.device)
        return Cache(keys, torch.empty_like(keys), 0)

    def step(
        self, x: Float[Tensor, "batch features"], state: Cache
    ) -> tuple[Float[Tensor, "batch features"], Cache]:
        """One token: its key and value are written into the cache's buffers, in place, and attended to.

        A full cache doubles, so that a token costs one copy on average.
        """
        q, k, v = self.project(x).view(len(x), 3, self.heads, 1, self.width).unbind(1)
        state = _with_room(state)
        here = slice(state.length, state.length + 1)
        state.keys[:, :, here], state.values[:, :, here] = k, v
        seen = slice(0, state.length + 1)
        y = functional.scaled_dot_product_attention(q, state.keys[:, :, seen], state.values[:, :, seen])
        out: Tensor = self.out(y.reshape(len(x), -1))
        return out, state._replace(length=state.length + 1)

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """Keys and values of `length` tokens; room to spare is not counted."""
        return 2 * batch * self.heads * length * self.width * self.out.weight.element_size()


def _with_room(cache: Cache) -> Cache:
    capacity = cache.keys.shape[2]
    if cache.length < capacity:
        return cache
    room = (0, 0, 0, max(capacity, 16))
    return Cache(functional.pad(cache.keys, room), functional.pad(cache.values, room), cache.length)
