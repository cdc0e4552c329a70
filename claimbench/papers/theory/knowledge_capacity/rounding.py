"""Weights rounded after training: symmetric, to the nearest, a scale for each output row or for each group in it."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def round_to_nearest(
    weight: Float[Tensor, "rows columns"], bits: int, group: int | None = None
) -> Float[Tensor, "rows columns"]:
    """The weight on a grid of 2^bits - 1 levels, symmetric about zero, that spans the largest entry of its row.

    group: a scale for every so many neighbours in a row (default: the whole row). No entry moves by more than half a
    step. Raises ValueError unless a sign and a magnitude fit: at least 2 bits.
    """
    if bits < 2:
        raise ValueError(f"bits = {bits}; a sign and a magnitude take 2 at least")
    rows, columns = weight.shape
    width = min(group or columns, columns)
    padded = nn.functional.pad(weight, (0, -columns % width)).view(rows, -1, width)
    levels = 2 ** (bits - 1) - 1
    scale = padded.abs().amax(dim=-1, keepdim=True) / levels
    rounded = torch.where(scale > 0, (padded / scale).round() * scale, padded)
    return rounded.view(rows, -1)[:, :columns]


def round_weights(model: Model, bits: int, group: int | None = None) -> tuple[Model, int]:
    """A copy with every matrix rounded, and the bits that it takes: codes, half-precision scales, float32 vectors.

    A matrix that several layers share is rounded and counted once.
    """
    rounded, total = copy.deepcopy(model), 0
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.ndim < 2:
                total += 32 * parameter.numel()
                continue
            matrix = parameter.flatten(1)
            rows, columns = matrix.shape
            parameter.copy_(round_to_nearest(matrix, bits, group).view_as(parameter))
            total += bits * matrix.numel() + 16 * rows * math.ceil(columns / min(group or columns, columns))
    return rounded, total
