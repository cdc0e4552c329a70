"""FLOPs of factorisations and solvers, on batches of (rows, columns) matrices.

G. Golub and C. Van Loan, Matrix Computations, 4th edition 2013: leading terms, four times as many for complex
entries. The sections named below are that book's.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from claimbench.meters.elementwise import complex_factor
from claimbench.meters.formulas import FORMULAS, builtin

__all__ = ["FORMULAS"]  # with those of this file


def _matrices(matrix: Tensor) -> tuple[int, int, int, int]:
    """(matrices times the factor for complex entries, rows, columns, the smaller of the two)."""
    rows, columns = matrix.shape[-2:]
    return prod(matrix.shape[:-2]) * complex_factor(matrix), rows, columns, min(rows, columns)


def _lu(matrix: Tensor) -> float:
    batch, m, n, k = _matrices(matrix)
    return batch * 2 * (m * n * k - (m + n) * k**2 / 2 + k**3 / 3)


@builtin("linalg_lu_factor_ex", "linalg_lu", "_linalg_det", "_linalg_slogdet")
def lu(out: Any, matrix: Tensor, **options: Any) -> int:
    """2 n^3 / 3 for a square matrix (section 3.2)."""
    return round(_lu(matrix))


@builtin("_linalg_solve_ex")
def solve(out: tuple[Tensor, ...], matrix: Tensor, right: Tensor, **options: Any) -> int:
    """A factorisation and two triangular solves of n^2 a column."""
    return round(_lu(matrix)) + 2 * matrix.shape[-1] * out[0].numel() * complex_factor(matrix)


@builtin("linalg_lu_solve", "linalg_ldl_solve")
def solve_factored(out: Tensor, factor: Tensor, *rest: Any, **options: Any) -> int:
    return 2 * factor.shape[-1] * out.numel() * complex_factor(factor)


@builtin("_cholesky_solve_helper", "cholesky_solve")
def cholesky_solve(out: Tensor, right: Tensor, factor: Tensor, *rest: Any, **options: Any) -> int:
    return solve_factored(out, factor)


@builtin("linalg_solve_triangular")
def solve_triangular(out: Tensor, matrix: Tensor, right: Tensor, **options: Any) -> int:
    """n^2 a column (section 3.1)."""
    return matrix.shape[-1] * out.numel() * complex_factor(matrix)


@builtin("linalg_inv_ex")
def inverse(out: Any, matrix: Tensor, **options: Any) -> int:
    batch, _, _, n = _matrices(matrix)
    return batch * 2 * n**3


@builtin("linalg_cholesky_ex", "cholesky", "linalg_ldl_factor_ex")
def cholesky(out: Any, matrix: Tensor, *rest: Any, **options: Any) -> int:
    """n^3 / 3 (section 4.2)."""
    batch, _, _, n = _matrices(matrix)
    return round(batch * n**3 / 3)


@builtin("cholesky_inverse")
def cholesky_inverse(out: Tensor, factor: Tensor, *rest: Any, **options: Any) -> int:
    return 2 * cholesky(out, factor)


@builtin("linalg_qr")
def qr(out: Any, matrix: Tensor, mode: str = "reduced") -> int:
    """Householder (section 5.2): R takes 2 k^2 (max - k / 3), the thin Q as much again."""
    batch, m, n, k = _matrices(matrix)
    triangle = 2 * k**2 * (max(m, n) - k / 3)
    factor = {"r": 0.0, "complete": 4 * (m * m * k - m * k**2 + k**3 / 3)}.get(mode, triangle)
    return round(batch * (triangle + factor))


@builtin("geqrf")
def qr_factored(out: Any, matrix: Tensor) -> int:
    return qr(out, matrix, mode="r")


@builtin("_linalg_svd")
def svd(
    out: Any, matrix: Tensor, full_matrices: bool = False, compute_uv: bool = True, **options: Any
) -> int:
    """Golub and Reinsch (section 8.6): values; thin vectors; all vectors."""
    batch, rows, columns, n = _matrices(matrix)
    m = max(rows, columns)
    if not compute_uv:
        return round(batch * (4 * m * n**2 - 4 * n**3 / 3))
    return batch * (4 * m**2 * n + 8 * m * n**2 + 9 * n**3 if full_matrices else 14 * m * n**2 + 8 * n**3)


@builtin("_linalg_eigh")
def eigh(out: Any, matrix: Tensor, triangle: str = "L", compute_v: bool = True) -> int:
    """Symmetric QR (section 8.3): 4 n^3 / 3 for the values, 9 n^3 with the vectors."""
    batch, _, _, n = _matrices(matrix)
    return round(batch * (9 if compute_v else 4 / 3) * n**3)


@builtin("linalg_eig")
def eig(out: Any, matrix: Tensor) -> int:
    """QR algorithm (section 7.5): 25 n^3 with the vectors."""
    batch, _, _, n = _matrices(matrix)
    return batch * 25 * n**3


@builtin("linalg_eigvals", "_linalg_eigvals")
def eigvals(out: Any, matrix: Tensor) -> int:
    batch, _, _, n = _matrices(matrix)
    return batch * 10 * n**3
