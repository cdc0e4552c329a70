"""Two more feature maps to compare the Taylor map with: as many elu features as one likes, and none at all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from claimbench.blocks.mixers.feature_maps import FeatureMap, Performer


class RotatedElu(FeatureMap):
    """elu + 1 of `dimension` random orthogonal projections: the kernel of Katharopoulos et al. with more features."""

    directions: Tensor

    def __init__(self, width: int, dimension: int, *, seed: int | None = None) -> None:
        super().__init__(width, dimension)
        drawn = Performer(width, dimension, seed=seed).directions
        self.register_buffer("directions", functional.normalize(drawn, dim=-1))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch dimension"]:
        return functional.elu(x @ self.directions.T.to(x.dtype)) + 1


class Uniform(FeatureMap):
    """One constant feature: every token so far gets the same weight. What a map achieves by knowing nothing."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch one"]:
        return torch.ones_like(x[..., :1])
