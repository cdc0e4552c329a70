"""S4's kernel and recurrence against dense algebra, SciPy and finite differences, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor

from claimbench.papers.sequence.s4 import cauchy as cauchy_module
from claimbench.papers.sequence.s4.cauchy import cauchy
from claimbench.papers.sequence.s4.hippo import hippo_legs, nplr
from claimbench.papers.sequence.s4.kernel import (
    Recurrence,
    advance,
    double,
    dplr_kernel,
    frequencies,
    recurrence,
    transition,
    truncate,
    untruncate,
)


class Model:
    """A HiPPO model in both forms: dense A, B, C and half Λ, p, B, C of the same system."""

    def __init__(self, n: int, steps: list[float], seed: int = 0) -> None:
        heads = len(steps)
        self.step = torch.tensor(steps, dtype=torch.float64)
        self.a, self.b = hippo_legs(n)
        self.c = torch.randn(heads, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        full = nplr(n)
        self.lam, self.p, self.inputs = (part[n // 2 :].expand(heads, -1) for part in full[:3])
        self.outputs = self.c.to(torch.complex128) @ full.basis[:, n // 2 :]

    def bilinear(self, head: int) -> tuple[np.ndarray, np.ndarray]:
        identity, half = np.eye(len(self.b)), float(self.step[head]) / 2 * self.a.numpy()
        inverse = np.linalg.inv(identity - half)
        return inverse @ (identity + half), inverse @ self.b.numpy() * float(self.step[head])

    def dense_kernel(self, length: int) -> Tensor:
        rows = []
        for head in range(len(self.step)):
            a, x = self.bilinear(head)
            row = []
            for _ in range(length):
                row.append(float(self.c[head].numpy() @ x))
                x = a @ x
            rows.append(row)
        return torch.tensor(rows, dtype=torch.float64)

    def kernel(self, length: int) -> Tensor:
        truncated = truncate(self.lam, self.p, self.outputs, self.step, length)
        return dplr_kernel(self.lam, self.p, self.inputs, truncated, self.step, length)

    def recurrence(self) -> Recurrence:
        return recurrence(self.lam, self.p, self.inputs, self.outputs, self.step)


def run(model: Recurrence, u: Tensor) -> Tensor:
    """Outputs [length, heads] of a recurrence for inputs [length, heads], token by token."""
    state = torch.zeros(1, *model.decay.shape, dtype=model.decay.dtype)
    out = []
    for token in u:
        y, state = advance(model, token[None], state)
        out.append(y[0])
    return torch.stack(out)


def impulse(length: int, heads: int, dtype: torch.dtype = torch.float64) -> Tensor:
    u = torch.zeros(length, heads, dtype=dtype)
    u[0] = 1
    return u


@pytest.mark.parametrize("length", [1, 2, 3, 127, 128])
def test_kernel_is_the_krylov_kernel_of_the_bilinear_model(length: int) -> None:
    model = Model(16, [0.001, 0.01, 0.1, 1.0])
    wanted = model.dense_kernel(length)
    error = (model.kernel(length) - wanted).abs().amax(-1) / wanted.abs().amax(-1)
    assert float(error.max()) < 1e-12


@pytest.mark.parametrize("n", [2, 64])
def test_kernel_holds_at_other_state_sizes(n: int) -> None:
    model = Model(n, [0.003, 0.05])
    wanted = model.dense_kernel(200)
    assert float((model.kernel(200) - wanted).abs().max() / wanted.abs().max()) < 1e-11


def test_single_precision_loses_no_more_than_single_precision() -> None:
    model = Model(64, [0.002, 0.02])
    length = 1024
    truncated = truncate(model.lam, model.p, model.outputs, model.step, length)
    narrow = [part.to(torch.complex64) for part in (model.lam, model.p, model.inputs, truncated)]
    kernel = dplr_kernel(narrow[0], narrow[1], narrow[2], narrow[3], model.step.float(), length)
    wanted = model.kernel(length)
    assert float((kernel - wanted).abs().max() / wanted.abs().max()) < 1e-5  # about 100 roundings of 6e-8


def test_recurrence_gives_the_kernel_as_its_impulse_response() -> None:
    model = Model(16, [0.01, 0.1])
    responses = run(model.recurrence(), impulse(128, 2)).T
    assert torch.allclose(responses, model.kernel(128), rtol=0, atol=1e-12)


def test_convolution_is_the_recurrence_step_by_step_in_complex64() -> None:
    model = Model(64, [0.002, 0.05])
    narrow = [part.to(torch.complex64) for part in (model.lam, model.p, model.inputs, model.outputs)]
    rnn = recurrence(narrow[0], narrow[1], narrow[2], narrow[3], model.step.float())
    u = torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
    kernel = model.kernel(300).numpy()
    wanted = np.stack([np.convolve(u[:, h].double().numpy(), kernel[h])[:300] for h in range(2)], axis=1)
    error = np.abs(run(rnn, u).numpy() - wanted).max() / np.abs(wanted).max()
    assert error < 1e-4


def test_transition_is_scipys_bilinear_discretisation_in_another_basis() -> None:
    model = Model(16, [0.05])
    c = model.c[0].numpy()[None]
    a, b, *_ = signal.cont2discrete(
        (model.a.numpy(), model.b.numpy()[:, None], c, np.zeros((1, 1))), 0.05, method="bilinear"
    )
    mine = transition(model.recurrence())[0].numpy()
    # The same eigenvalues up to their conditioning: compare the coefficients of both characteristic polynomials.
    assert np.allclose(np.poly(mine), np.poly(a), rtol=0, atol=1e-9)
    length = 60
    _, (response, *_) = signal.dimpulse((a, b, c, np.zeros((1, 1)), 1.0), n=length + 1)
    assert np.allclose(response[1:, 0], model.kernel(length)[0].numpy(), rtol=0, atol=1e-11)


def test_without_low_rank_the_kernel_is_a_sum_of_exponentials() -> None:
    model = Model(16, [0.01, 0.1])
    length = 101
    truncated = truncate(model.lam, None, model.outputs, model.step, length)
    kernel = dplr_kernel(model.lam, None, model.inputs, truncated, model.step, length)
    over = 2 / model.step[:, None]
    discrete = (over + model.lam) / (over - model.lam)
    weights = 2 * model.outputs * model.inputs * 2 / (over - model.lam)
    powers = discrete[..., None] ** torch.arange(length)
    wanted = (weights[..., None] * powers).sum(1).real
    assert torch.allclose(kernel, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    zero = dplr_kernel(model.lam, torch.zeros_like(model.p), model.inputs, truncated, model.step, length)
    assert torch.allclose(kernel, zero, rtol=0, atol=1e-13)
    responses = run(
        recurrence(model.lam, None, model.inputs, model.outputs, model.step), impulse(length, 2)
    ).T
    assert torch.allclose(responses, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


@pytest.mark.parametrize("length", [32, 33])
def test_one_real_dimension_is_an_exponential_moving_average(length: int) -> None:
    # x' = -x + u: the bilinear step keeps (1 - Δ/2)/(1 + Δ/2) of the old and adds the rest of the new.
    step = torch.tensor([0.5], dtype=torch.float64)
    keep = (1 - 0.25) / (1 + 0.25)
    one = torch.ones(1, 1, dtype=torch.complex128)
    truncated = one * (1 - keep**length)
    kernel = dplr_kernel(-one, None, one, truncated, step, length, conjugate=False)
    wanted = (1 - keep) * keep ** torch.arange(length, dtype=torch.float64)
    assert torch.allclose(kernel[0], wanted, rtol=0, atol=1e-14)


def test_half_the_step_and_twice_the_length_sample_the_same_continuous_kernel() -> None:
    length = 256
    coarse, fine = Model(8, [0.01]).kernel(length)[0] / 0.01, Model(8, [0.005]).kernel(2 * length)[0] / 0.005
    between = (fine[0::2] + fine[1::2]) / 2
    # the bilinear rule is of second order, and its error is spread over the kernel's fastest mode
    assert float((coarse - between).abs().max() / coarse.abs().max()) < 0.05
    finest = Model(8, [0.0025]).kernel(4 * length)[0] / 0.0025
    closer = (finest[0::2] + finest[1::2]) / 2
    assert float((fine - closer).abs().max()) < 0.5 * float((coarse - between).abs().max())


def test_truncation_is_undone_and_doubled_exactly() -> None:
    model = Model(16, [0.002, 0.05])
    truncated = truncate(model.lam, model.p, model.outputs, model.step, 100)
    back = untruncate(model.lam, model.p, truncated, model.step, 100)
    assert torch.allclose(back, model.outputs, rtol=0, atol=1e-11)
    assert torch.allclose(
        double(model.lam, model.p, truncated, model.step, 100),
        truncate(model.lam, model.p, model.outputs, model.step, 200),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("length", [12, 13])
def test_gradients_match_finite_differences(length: int) -> None:
    model = Model(8, [0.05, 0.2])
    truncated = truncate(model.lam, model.p, model.outputs, model.step, length)
    arguments = [
        t.clone().requires_grad_() for t in (model.lam, model.p, model.inputs, truncated, model.step)
    ]

    def kernel(lam: Tensor, p: Tensor, b: Tensor, c: Tensor, step: Tensor) -> Tensor:
        return dplr_kernel(lam, p, b, c, step, length)

    assert torch.autograd.gradcheck(kernel, arguments, atol=1e-6, rtol=1e-5)


def random_cauchy(points: int = 37, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.randn(points, dtype=torch.float64, generator=g)
    poles = torch.randn(3, 6, dtype=torch.complex128, generator=g) - 2
    return y, poles, torch.randn(3, 4, 6, dtype=torch.complex128, generator=g)


@pytest.mark.parametrize("tile", [1, 4000, 1 << 20])
def test_cauchy_sums_and_gradients_do_not_depend_on_the_tiles(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cauchy_module.TILE_BYTES, "cpu", tile)
    y, poles, weights = random_cauchy(points=131)
    poles.requires_grad_()
    weights.requires_grad_()
    plain = (weights[..., None] / (1j * y - poles[..., None])[:, None]).sum(2)
    mine = cauchy(y, poles, weights)
    assert torch.allclose(mine, plain, rtol=0, atol=1e-12)
    direction = torch.randn(plain.shape, dtype=plain.dtype, generator=torch.Generator().manual_seed(5))
    for got, wanted in zip(
        torch.autograd.grad(mine, (poles, weights), direction),
        torch.autograd.grad(plain, (poles, weights), direction),
        strict=True,
    ):
        assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-11)


def test_cauchy_matches_finite_differences() -> None:
    y, poles, weights = random_cauchy(points=5)
    assert torch.autograd.gradcheck(
        lambda p, w: cauchy(y, p, w), (poles.requires_grad_(), weights.requires_grad_())
    )


def test_cauchy_keeps_no_matrix_between_forward_and_backward() -> None:
    y, poles, weights = random_cauchy(points=5000)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        cauchy(y, poles.requires_grad_(), weights.requires_grad_())
    assert sum(kept) <= y.numel() + poles.numel() + weights.numel()


@pytest.mark.parametrize("length", [6, 7])
def test_frequencies_are_the_roots_of_unity_under_the_bilinear_map(length: int) -> None:
    y = frequencies(length, torch.float64)
    omega = torch.exp(-2j * math.pi * torch.arange(len(y), dtype=torch.float64) / length)
    assert torch.allclose(1j * y, (1 - omega) / (1 + omega), rtol=0, atol=1e-14)
    assert len(y) == (length + 1) // 2
