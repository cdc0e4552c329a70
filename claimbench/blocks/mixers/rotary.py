"""Rotary positions: Su et al. 2021, arXiv 2104.09864, with a head's first half paired with its second."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

BASE = 10_000.0


def rotate(
    x: Float[Tensor, "*batch length width"], positions: Int[Tensor, " length"], *, base: float = BASE
) -> Float[Tensor, "*batch length width"]:
    """Turn the pairs (x_i, x_{i + width/2}) by positions · base^(-2i/width), equation 15 of the paper.

    The product of a turned query and a turned key depends on their positions through the difference alone. width must
    be even. Angles are formed in float32 at least.
    """
    half = x.shape[-1] // 2
    exact = torch.promote_types(x.dtype, torch.float32)
    speed = base ** (-torch.arange(half, device=x.device, dtype=exact) / half)
    angle = positions.to(exact)[:, None] * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
