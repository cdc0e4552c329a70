"""Sums over a Cauchy matrix on the imaginary axis, without ever holding the matrix.

The workhorse of S4 (Gu, Goel, Ré 2021, arXiv 2111.00396, Section 3.2): the kernel's generating function is a few sums
Σ_n v_n / (z − λ_n). The matrix 1/(z_l − λ_n) has H·N·L complex entries; here it is formed in tiles that stay in the
processor's cache (or fill a GPU), contracted with all right-hand sides at once, and formed again for the gradient.

Real arithmetic throughout: with z = iy, λ = a + ib and t = y − b,

    1/(z − λ) = −(a + it) r,   r = 1/(a² + t²)

so a tile is two real matrices (r and t·r) and its contraction one real matrix product. The difference t is taken before
anything else, which keeps full precision next to a pole, also in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

TILE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Size of a tile: about the second-level cache of a core, or enough to fill a GPU."""


def cauchy(
    y: Float[Tensor, " points"], poles: Complex[Tensor, "heads n"], weights: Complex[Tensor, "heads sums n"]
) -> Complex[Tensor, "heads sums points"]:
    """s[h,k,l] = Σ_n weights[h,k,n] / (i·y[l] − poles[h,n]). Differentiable in poles and weights, once.

    Time O(H·N·L); memory beyond inputs and outputs is one tile, forward and backward. Finite where no pole lies on the
    imaginary axis.
    """
    return _Cauchy.apply(y, poles, weights)


def _tiles(heads: int, points: int, row_bytes: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Ranges of heads and points whose tile stays within the budget; whole rows of points first."""
    budget = TILE_BYTES.get(device.type, 1 << 20)
    rows = max(budget // row_bytes, 64)
    width = min(points, rows)
    height = max(min(heads, rows // max(width, 1)), 1)
    for head in range(0, heads, height):
        for point in range(0, points, width):
            yield slice(head, min(head + height, heads)), slice(point, min(point + width, points))


def _real_columns(values: Tensor) -> Tensor:
    """[h, k, x] complex -> [h, x, 2k] real: real parts, then imaginary parts."""
    return torch.cat([values.real, values.imag], dim=1).transpose(1, 2)


def _complex_rows(columns: Tensor) -> Tensor:
    """[h, x, 2k] real -> [h, k, x] complex: the inverse of `_real_columns`."""
    real, imag = columns.transpose(1, 2).chunk(2, dim=1)
    return torch.complex(real.contiguous(), imag.contiguous())


def _tile(y: Tensor, square: Tensor, imag: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Fill `out` [h, l, 2n or more] with r and t·r, and return these two views. square is a², imag is b."""
    n = imag.shape[1]
    r, tr = out[..., :n], out[..., n : 2 * n]
    torch.sub(y[None, :, None], imag[:, None, :], out=tr)
    torch.addcmul(square[:, None, :], tr, tr, out=r).reciprocal_()
    tr.mul_(r)
    return r, tr


class _Cauchy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, poles: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(y, poles, weights)
        heads, sums, n = weights.shape
        points = y.shape[0]
        # −(a + it) r v summed over n, as [r, t·r] times a real matrix [2n, 2k] of −a v and −i v.
        right = torch.cat(
            [_real_columns(-poles.real[:, None] * weights), _real_columns(-1j * weights)], dim=1
        )
        square, imag = poles.real.square(), poles.imag.contiguous()
        result = torch.empty(heads, points, 2 * sums, dtype=y.dtype, device=y.device)
        buffer = torch.empty(0, dtype=y.dtype, device=y.device)
        for head, point in _tiles(heads, points, 2 * n * y.element_size(), y.device):
            height, width = head.stop - head.start, point.stop - point.start
            if buffer.shape[:2] != (height, width):
                buffer = torch.empty(height, width, 2 * n, dtype=y.dtype, device=y.device)
            _tile(y[point], square[head], imag[head], buffer)
            result[head, point] = torch.bmm(buffer, right[head])
        return _complex_rows(result)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        y, poles, weights = ctx.saved_tensors
        heads, sums, n = weights.shape
        points = y.shape[0]
        square, real, imag = poles.real.square(), poles.real.contiguous(), poles.imag.contiguous()
        left = _real_columns(grad).transpose(1, 2)  # [h, 2k, l]
        total = torch.zeros(heads, 2 * sums, 4 * n, dtype=y.dtype, device=y.device)
        buffer = torch.empty(0, dtype=y.dtype, device=y.device)
        for head, point in _tiles(heads, points, 4 * n * y.element_size(), y.device):
            height, width = head.stop - head.start, point.stop - point.start
            if buffer.shape[:2] != (height, width):
                buffer = torch.empty(height, width, 4 * n, dtype=y.dtype, device=y.device)
            r, tr = _tile(y[point], square[head], imag[head], buffer)
            r2, r2t = buffer[..., 2 * n : 3 * n], buffer[..., 3 * n :]
            torch.mul(r, r, out=r2)
            torch.mul(r, tr, out=r2t)
            total[head].baddbmm_(left[head, :, point], buffer)
        sum_r, sum_tr, sum_r2, sum_r2t = total.view(heads, 2, sums, 4, n).unbind(3)
        # each sum is [h, (re, im), k, n]
        g_r, g_tr, g_r2, g_r2t = (torch.complex(s[:, 0], s[:, 1]) for s in (sum_r, sum_tr, sum_r2, sum_r2t))
        a = real[:, None]
        # conj(W) = −(a − it) r and conj(W²) = (a − it)² r² = (2a² − 2iat) r² − r, since t² r² = r − a² r².
        grad_weights = -a * g_r + 1j * g_tr
        grad_square = 2 * a * a * g_r2 - 2j * a * g_r2t - g_r
        grad_poles = (weights.conj() * grad_square).sum(dim=1)
        return None, grad_poles, grad_weights
