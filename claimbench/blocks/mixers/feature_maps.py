"""Feature maps of linear attention: φ with φ(q)ᵀφ(k) in the place of exp(qᵀk/√d). One registry; papers add theirs.

A map is a module over [..., width] with `dimension` features; `kernel(q, k)` gives all products φ(q)ᵀφ(k) at once, by
a shorter way where there is one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from claimbench.errors import UserError, nearest

FEATURE_MAPS = {
    "elu": "claimbench.blocks.mixers.feature_maps:EluPlusOne",
    "performer": "claimbench.blocks.mixers.feature_maps:Performer",
    "taylor": "claimbench.papers.sequence.based.taylor:Taylor",
}


class FeatureMap(nn.Module):
    """What a map says of itself: how many features it makes out of vectors of `width` numbers."""

    def __init__(self, width: int, dimension: int) -> None:
        super().__init__()
        self.width, self.dimension = width, dimension

    def kernel(
        self, q: Float[Tensor, "*batch n width"], k: Float[Tensor, "*batch m width"]
    ) -> Float[Tensor, "*batch n m"]:
        """φ(q_i)ᵀφ(k_j) for all pairs."""
        products: Tensor = self(q) @ self(k).transpose(-1, -2)
        return products


class EluPlusOne(FeatureMap):
    """φ(x) = elu(x) + 1, elementwise (Katharopoulos et al. 2020, arXiv 2006.16236, equation 7)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Positive features, as many as the vector has numbers."""
        return functional.elu(x) + 1


class Performer(FeatureMap):
    """Positive random features: E[φ(q)ᵀφ(k)] = exp(qᵀk/√width) (Choromanski et al. 2020, arXiv 2009.14794, Lemma 1).

    φ(x) = exp(Ωx̂ − |x̂|²/2)/√m with x̂ = x/width^{1/4}; the rows of Ω are Gaussian and orthogonal in blocks of `width`
    (Section 2.4), with the lengths of Gaussian vectors. Drawn from torch's default generator, or from one with `seed`.
    """

    directions: Tensor

    def __init__(self, width: int, dimension: int, *, seed: int | None = None) -> None:
        super().__init__(width, dimension)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        blocks = -(-dimension // width)
        gaussian = torch.randn(blocks, width, width, dtype=torch.float64, generator=generator)
        lengths = torch.randn(blocks, width, width, dtype=torch.float64, generator=generator).norm(dim=-1)
        basis, triangle = torch.linalg.qr(gaussian)
        basis = (
            basis * triangle.diagonal(dim1=-2, dim2=-1).sign()[:, None]
        )  # else its signs are LAPACK's, not chance
        rows = (basis * lengths[..., None]).flatten(0, 1)[:dimension].to(torch.get_default_dtype())
        self.register_buffer("directions", rows)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch dimension"]:
        """Positive features. They overflow only where |x| does what no norm layer lets through."""
        x = x * self.width**-0.25
        logs = x @ self.directions.T.to(x.dtype) - x.square().sum(-1, keepdim=True) / 2
        return logs.exp() * self.dimension**-0.5


def make_feature_map(name: str, width: int, **options: Any) -> Any:
    """A new map by its name for vectors of `width` numbers. Raises UserError for an unknown name."""
    if name not in FEATURE_MAPS:
        raise UserError(f'no feature map "{name}"{nearest(name, FEATURE_MAPS)}')
    module, attribute = FEATURE_MAPS[name].split(":")
    return getattr(import_module(module), attribute)(width, **options)
