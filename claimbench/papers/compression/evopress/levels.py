"""One linear map at many compression levels: SparseGPT, Wanda and magnitude sparsity, GPTQ and rounding to b
bits.

EvoPress (arXiv 2410.14649) searches over prepared layers. The preparation is others' work: SparseGPT (Frantar
& Alistarh 2023, arXiv 2301.00774) and GPTQ (Frantar et al. 2022, arXiv 2210.17323) go through the columns of
W and let the later columns take up each column's error, `W[:, j:] -= (w_j - q_j) / U_jj * U[j, j:]`, with U
the upper Cholesky factor of the inverse of H = X^T X + damping. Wanda (Sun et al. 2023, arXiv 2306.11695)
only masks by |W| * ||X||. All levels of a linear share H, so they go through the columns together, as one
batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from claimbench.errors import UserError

SparsityMethod = Literal["sparsegpt", "wanda", "magnitude"]
BitsMethod = Literal["gptq", "rtn"]
_MASK_COLUMNS = 128  # SparseGPT chooses its mask in blocks of this many columns


def inverse_factor(
    hessian: Float[Tensor, "inputs inputs"], damping: float = 0.01
) -> Float[Tensor, "inputs inputs"]:
    """Upper Cholesky factor U of inv(H + damping * mean(diag H) * I) = U^T U. Inputs that are always 0 get a
    1.
    """
    h = hessian.double().clone()
    dead = h.diagonal() == 0
    h.diagonal()[dead] = 1.0
    h.diagonal().add_(damping * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    return torch.linalg.cholesky(inverse, upper=True).to(hessian.dtype)


def _smallest(
    scores: Float[Tensor, "levels outputs inputs"], counts: Int[Tensor, " levels"]
) -> Bool[Tensor, " ..."]:
    """Per level, exactly `counts` entries with the smallest scores."""
    order = scores.flatten(1).argsort(dim=1, stable=True)
    first = torch.arange(order.shape[1], device=scores.device) < counts[:, None]
    return torch.zeros_like(first).scatter(1, order, first).view_as(scores)


def sparse_levels(
    weight: Float[Tensor, "outputs inputs"],
    hessian: Float[Tensor, "inputs inputs"],
    zeros: Int[Tensor, " levels"],
    method: SparsityMethod = "sparsegpt",
    damping: float = 0.01,
) -> Float[Tensor, "levels outputs inputs"]:
    """W with exactly `zeros[i]` weights pruned at level i.

    sparsegpt: mask by w^2 / U_jj^2, chosen block by block of 128 columns (each block's share of the zeros is
    proportional to its columns), later columns compensated. wanda: the smallest |w| * ||x|| of each row,
    evenly over rows. magnitude: the smallest |w| of the whole matrix.
    """
    outputs, inputs = weight.shape
    if int(zeros.min()) < 0 or int(zeros.max()) > weight.numel():
        raise UserError(
            f"zeros: {zeros.tolist()} must lie between 0 and the linear's {weight.numel()} weights"
        )
    zeros = zeros.to(weight.device)
    levels = weight.repeat(len(zeros), 1, 1)
    if method == "magnitude":
        return levels.masked_fill(_smallest(levels.abs(), zeros), 0.0)
    if method == "wanda":
        scores = (weight.abs() * hessian.diagonal().sqrt()).argsort(dim=1, stable=True).argsort(dim=1)
        # the rank within a row orders all weights, so every row loses as many up to one
        order = scores.double() * outputs + torch.arange(outputs, device=weight.device)[:, None]
        return levels.masked_fill(_smallest(order.expand_as(levels), zeros), 0.0)
    if method != "sparsegpt":
        raise UserError(f'method: "{method}" is not known; use sparsegpt, wanda or magnitude')
    factor = inverse_factor(hessian, damping)
    for begin in range(0, inputs, _MASK_COLUMNS):
        end = min(begin + _MASK_COLUMNS, inputs)
        # whole numbers that add up to `zeros` over the blocks
        counts = zeros * end // inputs - zeros * begin // inputs
        block = levels[:, :, begin:end]
        mask = _smallest((block / factor.diagonal()[begin:end]) ** 2, counts)
        errors = torch.empty_like(block)
        for column in range(begin, end):
            w = levels[:, :, column].clone()
            kept = w.masked_fill(mask[:, :, column - begin], 0.0)
            error = (w - kept) / factor[column, column]
            levels[:, :, column:end] -= error[:, :, None] * factor[column, column:end]
            levels[:, :, column] = kept
            errors[:, :, column - begin] = error
        levels[:, :, end:] -= errors @ factor[begin:end, end:]
    return levels


def bit_levels(
    weight: Float[Tensor, "outputs inputs"],
    hessian: Float[Tensor, "inputs inputs"],
    bits: Int[Tensor, " levels"],
    method: BitsMethod = "gptq",
    group: int = 128,
    damping: float = 0.01,
) -> Float[Tensor, "levels outputs inputs"]:
    """W rounded to `bits[i]` bits at level i, an asymmetric grid for every `group` inputs of a row.

    Grid of a group: 2^b evenly spaced values from min(w, 0) to max(w, 0), with 0 among them (a whole zero
    point). gptq: the grid of a group is fixed when its first column is reached, later columns compensated.
    rtn: to nearest. Scale and zero point cost memory on top of the bits: 32 / group bits a weight with 16-bit
    numbers.
    """
    if method not in ("gptq", "rtn"):
        raise UserError(f'method: "{method}" is not known; use gptq or rtn')
    if int(bits.min()) < 1:
        raise UserError(f"bits: {bits.tolist()} must be at least 1")
    inputs = weight.shape[1]
    steps = (2.0 ** bits.to(weight) - 1)[:, None]
    levels = weight.repeat(len(bits), 1, 1)
    factor = inverse_factor(hessian, damping) if method == "gptq" else None
    for begin in range(0, inputs, group):
        end = min(begin + group, inputs)
        block = levels[:, :, begin:end]
        low, high = block.amin(-1).clamp(max=0.0), block.amax(-1).clamp(min=0.0)
        scale = ((high - low) / steps).clamp(min=torch.finfo(weight.dtype).tiny)
        zero = (-low / scale).round()
        if factor is None:
            codes = (block / scale[..., None] + zero[..., None]).round()
            codes = torch.minimum(codes.clamp(min=0.0), steps[..., None])
            levels[:, :, begin:end] = (codes - zero[..., None]) * scale[..., None]
            continue
        errors = torch.empty_like(block)
        for column in range(begin, end):
            w = levels[:, :, column].clone()
            rounded = (torch.minimum((w / scale + zero).round().clamp(min=0.0), steps) - zero) * scale
            error = (w - rounded) / factor[column, column]
            levels[:, :, column:end] -= error[:, :, None] * factor[column, column:end]
            levels[:, :, column] = rounded
            errors[:, :, column - begin] = error
        levels[:, :, end:] -= errors @ factor[begin:end, end:]
    return levels


def output_errors(
    weight: Float[Tensor, "outputs inputs"],
    levels: Float[Tensor, "levels outputs inputs"],
    hessian: Float[Tensor, "inputs inputs"],
) -> Float[Tensor, " levels"]:
    """Normalised squared error of the linear's output, |(W' - W) X|^2 / |W X|^2, from H = X^T X alone."""
    change = (levels - weight).double()
    h = hessian.double()
    whole = torch.einsum("oi,ij,oj->", weight.double(), h, weight.double())
    return torch.einsum("loi,loi->l", change @ h, change) / whole.clamp(min=torch.finfo(torch.float64).tiny)


def outlier_share(
    weight: Float[Tensor, "outputs inputs"], hessian: Float[Tensor, "inputs inputs"], threshold: float = 5.0
) -> tuple[int, int]:
    """OWL's outliers: how many entries of |W| * ||X|| exceed `threshold` times their mean, of how many."""
    scores = weight.abs() * hessian.diagonal().sqrt()
    return int((scores > threshold * scores.mean()).sum()), scores.numel()
