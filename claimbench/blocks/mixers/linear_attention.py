"""Causal linear attention with any feature map: in chunks for training, as a recurrence for generation.

Katharopoulos et al. 2020, arXiv 2006.16236; the chunks follow Hua et al. 2022, arXiv 2202.10447, Section 3.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from claimbench.blocks.mixers.feature_maps import FeatureMap, make_feature_map

EPS = 1e-12
CHUNK = 64


class Sums(NamedTuple):
    """Σ φ(k) [v, 1]ᵀ over the tokens so far: S in all columns but the last, z in the last."""

    sums: Float[Tensor, "batch heads dimension values"]


def accumulated(dtype: torch.dtype) -> torch.dtype:
    """What sums over tokens are held in: float32 for half precision, where they would lose the small terms."""
    return torch.promote_types(dtype, torch.float32)


def linear_attention(
    q: Float[Tensor, "batch heads length width"],
    k: Float[Tensor, "batch heads length width"],
    v: Float[Tensor, "batch heads length values"],
    feature_map: FeatureMap,
    *,
    chunk: int = CHUNK,
) -> Float[Tensor, "batch heads length values"]:
    """y_i = φ(q_i)ᵀ S_i / (φ(q_i)ᵀ z_i) with S_i = Σ_{j≤i} φ(k_j) v_jᵀ and z_i = Σ_{j≤i} φ(k_j).

    Within a chunk the products φ(q_i)ᵀφ(k_j) are formed; chunks before it enter through S and z alone, so that no more
    than length · chunk products and length/chunk states exist. Sums are held in float32 at least.
    """
    batch, heads, length, values = v.shape
    dtype, wide = v.dtype, accumulated(v.dtype)
    q, k, v = q.to(wide), k.to(wide), functional.pad(v.to(wide), (0, 1), value=1.0)
    if length <= chunk:
        return _normalised(feature_map.kernel(q, k).tril() @ v, dtype)
    chunks = -(-length // chunk)
    missing = chunks * chunk - length
    q, k, v = (functional.pad(x, (0, 0, 0, missing)) for x in (q, k, v))
    q, k = (x.reshape(batch, heads, chunks, chunk, x.shape[-1]) for x in (q, k))
    v = v.reshape(
        batch, heads, chunks, chunk, values + 1
    )  # padding has a 0 where tokens have a 1: it adds nothing
    own = feature_map.kernel(q, k).tril() @ v
    sums = (feature_map(k[:, :, :-1]).transpose(-1, -2) @ v[:, :, :-1]).cumsum(2)
    earlier = feature_map(q[:, :, 1:]) @ sums
    y = torch.cat([own[:, :, :1], own[:, :, 1:] + earlier], dim=2)
    return _normalised(y.flatten(2, 3)[:, :, :length], dtype)


def key_value_sums(
    k: Float[Tensor, "batch heads length width"],
    v: Float[Tensor, "batch heads length values"],
    feature_map: FeatureMap,
) -> Float[Tensor, "batch heads dimension values_and_one"]:
    """[S, z] after the last token, as a recurrence goes on from it."""
    wide = accumulated(v.dtype)
    features = feature_map(k.to(wide)).transpose(-1, -2)
    return features @ functional.pad(v.to(wide), (0, 1), value=1.0)


def _normalised(sums: Tensor, dtype: torch.dtype) -> Tensor:
    return (sums[..., :-1] / (sums[..., -1:] + EPS)).to(dtype)


class LinearAttention(nn.Module):
    """Multi-head causal linear attention without positions and biases.

    key_width: of queries and keys in each head. feature_map: a name of `FEATURE_MAPS` (`options` are its own), or a
    map for vectors of key_width numbers, shared by all heads.
    """

    def __init__(
        self,
        features: int,
        heads: int = 1,
        *,
        key_width: int,
        feature_map: str | FeatureMap = "elu",
        chunk: int = CHUNK,
        **options: int,
    ) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"{features} features cannot be split among {heads} heads")
        self.heads, self.key_width, self.chunk = heads, key_width, chunk
        self.feature_map: FeatureMap = (
            make_feature_map(feature_map, key_width, **options)
            if isinstance(feature_map, str)
            else feature_map
        )
        self.project = nn.Linear(
            features, 2 * heads * key_width + features, bias=False
        )  # W_q, W_k, W_v at once
        self.out = nn.Linear(features, features, bias=False)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys = self.heads * self.key_width
        parts = self.project(x).split([keys, keys, x.shape[-1]], dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return q, k, v

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        """All positions at once, by chunks."""
        return self._joined(linear_attention(*self._heads(x), self.feature_map, chunk=self.chunk))

    def prefill(
        self, x: Float[Tensor, "batch length features"]
    ) -> tuple[Float[Tensor, "batch length features"], Sums]:
        """`forward`, and the state after the last token."""
        q, k, v = self._heads(x)
        y = self._joined(linear_attention(q, k, v, self.feature_map, chunk=self.chunk))
        return y, Sums(key_value_sums(k, v, self.feature_map))

    def _joined(self, y: Tensor) -> Tensor:
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def init_state(self, batch: int) -> Sums:
        """Zero sums."""
        weight = self.out.weight
        shape = (batch, self.heads, self.feature_map.dimension, weight.shape[0] // self.heads + 1)
        return Sums(torch.zeros(shape, dtype=accumulated(weight.dtype), device=weight.device))

    def step(
        self, x: Float[Tensor, "batch features"], state: Sums
    ) -> tuple[Float[Tensor, "batch features"], Sums]:
        """One token: its key and value are added to the sums, in place, and its query reads them."""
        q, k, v = (part.to(state.sums.dtype) for part in self._heads(x[:, None]))
        v = functional.pad(v, (0, 1), value=1.0)
        # addcmul with broadcasting: φ(k) vᵀ is never held apart from the sums
        state.sums.addcmul_(self.feature_map(k).transpose(-1, -2), v)
        y = _normalised(self.feature_map(q) @ state.sums, x.dtype)
        return self._joined(y)[:, 0], state

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """D · (features + heads) numbers a sequence, whatever the length."""
        weight = self.out.weight
        numbers = self.feature_map.dimension * (weight.shape[0] + self.heads)
        return batch * numbers * accumulated(weight.dtype).itemsize
