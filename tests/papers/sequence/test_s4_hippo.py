"""HiPPO-LegS, its normal-plus-low-rank form and the other initialisations (arXiv 2111.00396, Theorem 1)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from claimbench.papers.sequence.s4.hippo import (
    INITIALISATIONS,
    hippo,
    hippo_legs,
    nplr,
    random_dense,
    random_dplr,
    real_form,
    s4d_lin,
)

SIZES = [8, 16, 64]


@pytest.mark.parametrize("n", SIZES)
def test_hippo_entries_are_the_formula_entry_by_entry(n: int) -> None:
    a, b = hippo_legs(n)
    for i in range(0, n, 3):
        for k in range(n):
            wanted = -np.sqrt((2 * i + 1) * (2 * k + 1)) if i > k else -(i + 1) if i == k else 0.0
            assert float(a[i, k]) == pytest.approx(wanted, rel=1e-15)
        assert float(b[i]) == pytest.approx(np.sqrt(2 * i + 1), rel=1e-15)


@pytest.mark.parametrize("n", SIZES)
def test_hippo_plus_rank_one_is_skew_symmetric_after_the_shift(n: int) -> None:
    a, _ = hippo_legs(n)
    p = torch.sqrt(torch.arange(n, dtype=torch.float64) + 0.5)
    skew = a + torch.outer(p, p) + 0.5 * torch.eye(n, dtype=torch.float64)
    # entries are as large as n, each rounded once
    assert float((skew + skew.T).abs().max()) <= 1e-12


@pytest.mark.parametrize("n", SIZES)
def test_nplr_gives_back_the_matrix_from_a_unitary_basis(n: int) -> None:
    lam, p, b, v = nplr(n)
    a, inputs = hippo_legs(n)
    adjoint = v.conj().T
    assert float((v @ adjoint - torch.eye(n)).abs().max()) <= 1e-13 * n
    assert torch.all(lam.real == -0.5)
    rebuilt = v @ (torch.diag(lam) - torch.outer(p, p.conj())) @ adjoint
    scale = float(lam.abs().max())
    assert float((rebuilt - a).abs().max()) <= 1e-14 * n * scale
    assert float((v @ b - inputs).abs().max()) <= 1e-13 * n


@pytest.mark.parametrize("n", SIZES)
def test_eigenvalues_come_in_conjugate_pairs(n: int) -> None:
    lam = nplr(n).eigenvalues.imag
    assert float((lam + lam.flip(0)).abs().max()) <= 1e-14 * n * float(lam.abs().max())
    assert float(hippo(n).eigenvalues.imag.min()) > 0


def test_largest_frequency_at_64_is_the_known_one() -> None:
    assert float(nplr(64).eigenvalues.imag.max()) == pytest.approx(1303, abs=1)


def test_hippos_own_eigenvectors_are_useless() -> None:
    a, _ = hippo_legs(16)
    _, vectors = np.linalg.eig(a.numpy())
    assert np.linalg.cond(vectors) > 1e10


def test_the_real_form_of_hippo_is_hippo_in_another_basis() -> None:
    a, b = real_form(hippo(16))
    dense, inputs = hippo_legs(16)
    # Traces of powers and the input's growth are independent of the basis.
    for power in range(1, 4):
        mine, wanted = (float(torch.linalg.matrix_power(m, power).trace()) for m in (a, dense))
        assert mine == pytest.approx(wanted, rel=1e-10)
    assert float(b.norm()) == pytest.approx(float(inputs.norm()), rel=1e-12)
    assert float((a @ b).norm()) == pytest.approx(float((dense @ inputs).norm()), rel=1e-12)


@pytest.mark.parametrize("name", sorted(INITIALISATIONS))
def test_initialisations_are_stable_and_repeat_with_the_seed(name: str) -> None:
    first, again, other = (
        INITIALISATIONS[name](16, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert torch.equal(first.inputs, other.inputs) == (not name.startswith("random"))
    a, _ = real_form(first)
    assert float(torch.linalg.eigvals(a).real.max()) < 0


def test_random_dense_has_the_decay_that_its_docstring_promises() -> None:
    a, _ = random_dense(32, torch.Generator().manual_seed(0))
    assert float(torch.linalg.eigvals(a).real.max()) == pytest.approx(-0.5, abs=1e-9)


def test_s4d_lin_and_random_dplr_span_the_same_frequencies() -> None:
    linear, random = s4d_lin(64), random_dplr(64, torch.Generator().manual_seed(0))
    assert float(linear.eigenvalues.imag.max()) == pytest.approx(31 * torch.pi)
    assert 0.8 < float(random.eigenvalues.imag.max() / linear.eigenvalues.imag.max()) < 32 / 31


@pytest.mark.parametrize("n", [0, 1, 7])
def test_odd_states_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="even"):
        hippo(n)
