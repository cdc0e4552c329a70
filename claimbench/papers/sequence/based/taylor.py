"""The second-order Taylor feature map: exp to second order as a product of features (Arora et al. 2024, arXiv
2402.18668, Section 4.1; Zhang et al. 2024, arXiv 2402.04347).
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.blocks.mixers.feature_maps import FeatureMap


class Taylor(FeatureMap):
    """φ(x) = [1, x/d^{1/4}, vec(x xᵀ)/(√2 √d)], so that φ(q)ᵀφ(k) = 1 + s + s²/2 with s = qᵀk/√d, which is at least ½.

    merged=False is the paper's map: D = 1 + d + d² features, each product x_i x_j twice. merged=True has every product
    once, those of i ≠ j with weight √2: the same kernel from D = 1 + d + d(d + 1)/2 features (153 for 273 at d = 16).
    """

    def __init__(self, width: int, *, merged: bool = True) -> None:
        super().__init__(width, 1 + width + (width * (width + 1) // 2 if merged else width * width))
        self.merged = merged

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch dimension"]:
        """The features, in the order of the formula; merged products by rows of the upper triangle."""
        x = x * self.width**-0.25
        if self.merged:
            rows, columns, weights = _triangle(self.width, x.dtype, x.device)
            second = x.index_select(-1, rows) * x.index_select(-1, columns) * weights
        else:
            second = (x[..., :, None] * x[..., None, :]).flatten(-2) * 0.5**0.5
        return torch.cat([torch.ones_like(x[..., :1]), x, second], dim=-1)

    def kernel(
        self, q: Float[Tensor, "*batch n width"], k: Float[Tensor, "*batch m width"]
    ) -> Float[Tensor, "*batch n m"]:
        """1 + s + s²/2 for all pairs, from products of d numbers instead of D."""
        s = (q * self.width**-0.5) @ k.transpose(-1, -2)
        return torch.addcmul(1 + s, s, s, value=0.5)


@cache
@torch.inference_mode(False)  # else what was first asked for in inference could not be trained with later
def _triangle(width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns of the upper triangle, and the weight of each product."""
    rows, columns = torch.triu_indices(width, width, device=device)
    weights = torch.ones(len(rows), dtype=dtype, device=device)
    return rows, columns, weights.masked_fill_(rows == columns, 0.5**0.5)
