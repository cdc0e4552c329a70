"""The limiting law of arXiv 2502.16763 and what is counted on it: identities, dense algebra and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from claimbench.errors import UserError
from claimbench.papers.theory.exact_permutations.ensemble import (
    classwise_union_bound,
    nets_for_one_input,
    success,
    sufficient_for_all_inputs,
    sufficient_for_one_input,
    vote_success,
    voters_for_one_input,
)
from claimbench.papers.theory.exact_permutations.kernels import (
    ACTIVATIONS,
    RELU,
    Kernels,
    Layers,
    activation_kernels,
    cosines,
    gram,
    levels,
    limiting_covariance,
    limiting_mean,
    relu_nngp,
    relu_ntk,
    weights,
)
from claimbench.papers.theory.exact_permutations.problem import (
    binary_inputs,
    inputs_with,
    permutation_targets,
    representatives,
    target_bits,
)
from claimbench.papers.theory.exact_permutations.sampling import (
    covariance_root,
    first_crossing,
    match_share,
    nets_from_pool,
    quantile,
    sample_first_crossings,
    sample_nets,
    sample_nets_for_all_inputs,
)

PI = math.pi
BOTH: list[Layers] = ["both", "last"]
ROUNDING = {"rtol": 0.0, "atol": 1e-12}  # float64 sums of at most a few thousand terms of order 1


def exactly(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def dense_law(inputs: torch.Tensor, kernels: Kernels, layers: Layers) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and covariance by the textbook formula, with a dense solve."""
    k = inputs.shape[1]
    basis = torch.eye(k, dtype=torch.float64)
    trained, start = kernels.trained(layers), kernels.nngp
    w = torch.linalg.solve(trained(cosines(basis, basis)), trained(cosines(basis, inputs))).T
    cross = w @ start(cosines(basis, inputs))
    covariance = start(cosines(inputs, inputs)) + w @ start(cosines(basis, basis)) @ w.T - cross - cross.T
    return w, covariance / k


def test_kernel_values() -> None:
    ends = exactly(1.0, 0.0)
    torch.testing.assert_close(relu_ntk(ends), exactly(1.0, 1 / (2 * PI)), **ROUNDING)
    torch.testing.assert_close(relu_nngp(ends), exactly(0.5, 1 / (2 * PI)), **ROUNDING)


@pytest.mark.parametrize("k", [2, 7, 30])
def test_gram_eigenvalues(k: int) -> None:
    basis = torch.eye(k, dtype=torch.float64)
    found = torch.linalg.eigvalsh(relu_ntk(cosines(basis, basis)))
    a, b = 1 - 1 / (2 * PI), 1 / (2 * PI)
    assert gram(relu_ntk, k) == pytest.approx((a, b), abs=1e-15)
    torch.testing.assert_close(found, exactly(*[a] * (k - 1), a + k * b), **ROUNDING)


@pytest.mark.parametrize("layers", BOTH)
@pytest.mark.parametrize("activation", ["relu", "gelu", "sin"])
def test_sherman_morrison_and_covariance_agree_with_a_dense_solve(layers: Layers, activation: str) -> None:
    inputs = binary_inputs(6)
    kernels = activation_kernels(activation, 6)
    w, covariance = dense_law(inputs, kernels, layers)
    torch.testing.assert_close(weights(inputs, kernels, layers), w, rtol=0, atol=1e-10)
    torch.testing.assert_close(limiting_covariance(inputs, kernels, layers), covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layers", BOTH)
def test_training_inputs_are_learnt_exactly(layers: Layers) -> None:
    targets = permutation_targets(3, 9)
    basis = torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(limiting_mean(basis, targets, RELU, layers), targets, **ROUNDING)
    covariance = limiting_covariance(basis, RELU, layers)
    torch.testing.assert_close(covariance, torch.zeros_like(covariance), **ROUNDING)


@pytest.mark.parametrize(
    ("k", "one", "zero", "variance"), [(5, 0.5606, -0.01464, 0.01323), (30, 0.5710, -0.004267, 0.00214)]
)
def test_two_ones_in_figures(k: int, one: float, zero: float, variance: float) -> None:
    law = levels(k, [2])
    assert float(law.one) == pytest.approx(one, abs=5e-5)
    assert float(law.zero) == pytest.approx(zero, rel=5e-4)
    assert float(law.variance) == pytest.approx(variance, rel=5e-3)


@pytest.mark.parametrize("k", [2, 5, 30, 512])
def test_the_mean_in_the_symbols_of_the_paper(k: int) -> None:
    n = torch.arange(1, k + 1, dtype=torch.float64)
    g = (1 - 1 / n).sqrt() + 2 / n.sqrt() * (PI - (1 / n.sqrt()).arccos())
    law = levels(k, n)
    torch.testing.assert_close(law.one, (g - (n * g + k - n) / (2 * PI - 1 + k)) / (2 * PI - 1), **ROUNDING)
    torch.testing.assert_close(
        law.zero, (2 * PI - 1 + n - n * g) / ((2 * PI - 1) * (2 * PI - 1 + k)), **ROUNDING
    )


@pytest.mark.parametrize("layers", BOTH)
def test_levels_are_the_law_at_every_input(layers: Layers) -> None:
    inputs, targets = binary_inputs(7), permutation_targets(1, 7)
    law = levels(7, inputs.sum(1), RELU, layers)
    expected = torch.where(target_bits(inputs, targets), law.one[:, None], law.zero[:, None])
    torch.testing.assert_close(limiting_mean(inputs, targets, RELU, layers), expected, **ROUNDING)
    torch.testing.assert_close(limiting_covariance(inputs, RELU, layers).diagonal(), law.variance, **ROUNDING)


@pytest.mark.parametrize("layers", BOTH)
@pytest.mark.parametrize("k", [1, 2, 3, 17, 512, 100_000])
def test_signs_separate(k: int, layers: Layers) -> None:
    law = levels(k, torch.arange(1, k + 1, dtype=torch.float64), RELU, layers)
    assert float(law.zero[0]) == 0.0  # exactly, not up to rounding
    assert bool((law.zero[1:] < 0).all())
    assert bool((law.one > 0).all())


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)))
def test_relabelling_permutes_the_outputs_alone(images: list[int]) -> None:
    inputs = binary_inputs(6)
    identity = limiting_mean(inputs, permutation_targets(list(range(6)), 6))
    relabelled = limiting_mean(inputs, permutation_targets(images, 6))
    torch.testing.assert_close(relabelled[:, images], identity, **ROUNDING)
    bits = target_bits(inputs, permutation_targets(images, 6))
    torch.testing.assert_close(bits[:, images], inputs > 0)


def test_any_linear_map_is_a_target() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, left, right = binary_inputs(5), *torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    both = limiting_mean(inputs, left + 2 * right)
    torch.testing.assert_close(
        both, limiting_mean(inputs, left) + 2 * limiting_mean(inputs, right), **ROUNDING
    )


def test_quadrature_agrees_with_closed_forms() -> None:
    k, c = 7, torch.linspace(-1, 1, 21, dtype=torch.float64)
    relu = activation_kernels(lambda u: torch.clamp(u, min=0), k)
    torch.testing.assert_close(relu.nngp(c), relu_nngp(c), **ROUNDING)
    torch.testing.assert_close(relu.ntk(c), relu_ntk(c), **ROUNDING)
    linear = activation_kernels("identity", k)
    torch.testing.assert_close(linear.ntk(c), 2 * c, **ROUNDING)
    # Williams, 1997: E[erf(u) erf(v)] = (2/pi) arcsin(2 c s / (1 + 2 s)) for variance s.
    erf = (2 / PI) * torch.arcsin(2 * c / k / (1 + 2 / k)) * k
    torch.testing.assert_close(activation_kernels("erf", k).nngp(c), erf, **ROUNDING)


@pytest.mark.parametrize("activation", ["gelu", "leaky-relu"])
def test_quadrature_agrees_with_monte_carlo(activation: str) -> None:
    k, c = 4, 0.6
    z = torch.randn(2, 400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / math.sqrt(
        k
    )
    products = (
        ACTIVATIONS[activation](z[0]) * ACTIVATIONS[activation](c * z[0] + math.sqrt(1 - c * c) * z[1]) * k
    )
    error = float(products.mean() - activation_kernels(activation, k).nngp(exactly(c))[0])
    assert abs(error) < 4 * float(products.std()) / math.sqrt(products.numel())


def test_agrees_with_neural_tangents() -> None:
    pytest.importorskip("jax", reason="neural-tangents is an optional reference and is not installed")
    stax = pytest.importorskip("neural_tangents.stax", reason="neural-tangents is an optional reference")
    k = 5
    inputs = torch.nn.functional.normalize(binary_inputs(k), dim=1).numpy()
    layer = {"W_std": 1.0, "b_std": None}
    _, _, kernel = stax.serial(stax.Dense(1, **layer), stax.Relu(), stax.Dense(1, **layer))
    reference = kernel(inputs, inputs, ("nngp", "ntk"))
    c = cosines(binary_inputs(k), binary_inputs(k))
    np.testing.assert_allclose(np.asarray(reference.nngp), relu_nngp(c).numpy() / k, atol=1e-6)
    np.testing.assert_allclose(np.asarray(reference.ntk), relu_ntk(c).numpy() / k, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "failure", "counts"),
    [
        ("last", 0.1, [28, 58, 89, 121, 155, 190]),
        ("both", 0.1, [205, 333, 454, 579, 708, 840]),
        ("last", 0.001, [96, 156, 219, 284, 351, 419]),
        ("both", 0.001, [716, 902, 1123, 1359, 1603, 1854]),
    ],
)
def test_counts_for_one_input(layers: Layers, failure: float, counts: list[int]) -> None:
    """Reference values from an independent computation."""
    assert [nets_for_one_input(k, failure, layers=layers) for k in range(5, 31, 5)] == counts


@pytest.mark.parametrize("layers", BOTH)
@pytest.mark.parametrize(("k", "ones"), [(4, 4), (9, 3), (512, 2)])
def test_counts_are_minimal(k: int, ones: int, layers: Layers) -> None:
    nets = nets_for_one_input(k, 0.1, ones, layers=layers)
    assert success(k, ones, nets, layers=layers) >= 0.9
    assert nets == 1 or success(k, ones, nets - 1, layers=layers) < 0.9
    assert sufficient_for_one_input(k, 0.1, ones, layers=layers) >= nets
    voters = voters_for_one_input(k, 0.1, ones, layers=layers)
    assert voters % 2 == 1
    assert vote_success(k, ones, voters, layers=layers) >= 0.9
    assert voters == 1 or vote_success(k, ones, voters - 2, layers=layers) < 0.9
    assert voters >= nets - 1


def test_votes_are_counted_as_votes() -> None:
    k, ones, voters = 4, 2, 5
    law = levels(k, [ones])
    z = torch.randn(200_000, voters, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = torch.cat([law.one.expand(ones), law.zero.expand(k - ones)])
    votes = (mean + law.variance.sqrt() * z > 0).sum(1)
    share = float(((votes > voters / 2) == (torch.arange(k) < ones)).all(1).double().mean())
    expected = vote_success(k, ones, voters)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / len(z))


def test_a_majority_needs_half_pi_times_as_many() -> None:
    """The sign's efficiency for a normal location is 2/pi (Fisher, 1925): the limit for many voters."""
    assert voters_for_one_input(512) / nets_for_one_input(512) == pytest.approx(PI / 2, rel=1e-3)


def test_bounds_for_all_inputs() -> None:
    sizes = [sufficient_for_all_inputs(k) for k in (64, 128, 256, 512)]
    np.testing.assert_allclose(np.diff(np.log2(sizes)), [1.80, 1.89, 1.94], atol=5e-3)
    for k in (3, 8, 64, 512):
        assert nets_for_one_input(k) < classwise_union_bound(k) < sufficient_for_all_inputs(k)


def test_the_classwise_bound_sums_failures_over_inputs() -> None:
    k = 6
    nets = classwise_union_bound(k)

    def failures(size: int) -> float:
        return sum(math.comb(k, n) * (1 - success(k, n, size)) for n in range(2, k + 1))

    assert failures(nets) <= 0.1 < failures(nets - 1)


@pytest.mark.parametrize("layers", BOTH)
def test_joint_counts_succeed_as_often_as_they_say(layers: Layers) -> None:
    """At the sampled quantile, fresh averages of all inputs, drawn another way, succeed in 90 % of the cases."""
    k, draws = 4, 4000
    needed = sample_nets_for_all_inputs(k, draws, torch.Generator().manual_seed(0), RELU, layers)
    nets = quantile(needed, 0.1)
    inputs = binary_inputs(k)
    mean = limiting_mean(inputs, torch.eye(k, dtype=torch.float64), RELU, layers)
    values, vectors = torch.linalg.eigh(dense_law(inputs, RELU, layers)[1])
    noise = torch.randn(
        draws, len(inputs), k, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    average = mean + torch.einsum("ij,njo->nio", vectors * values.clamp(min=0).sqrt(), noise) / math.sqrt(
        nets
    )
    fresh = inputs.sum(1) > 1
    share = float(((average > 0) == (inputs > 0))[:, fresh].all(-1).all(-1).double().mean())
    assert abs(share - 0.9) < 4 * math.sqrt(2 * 0.09 / draws)  # both samples err
    assert nets < sufficient_for_all_inputs(k, 0.1, RELU, layers)


def test_quantile_is_the_smallest_size_that_enough_draws_meet() -> None:
    assert quantile(exactly(*range(1, 11)), 0.1) == 9
    assert quantile(exactly(*range(1, 11)), 0.11) == 9
    assert quantile(exactly(*range(1, 11)), 0.2) == 8


def test_an_average_has_the_variance_of_one_net_over_the_number() -> None:
    k, nets, ensembles = 5, 16, 1000
    inputs = inputs_with(2, k)
    covariance = limiting_covariance(inputs)
    mean = limiting_mean(inputs, torch.eye(k, dtype=torch.float64))
    outputs = sample_nets(
        covariance_root(covariance), mean, nets * ensembles, torch.Generator().manual_seed(0)
    )
    averages = outputs.view(ensembles, nets, *mean.shape).mean(1)
    single, averaged = outputs.var(0).mean(), averages.var(0).mean()
    assert float(single) == pytest.approx(float(covariance.diagonal().mean()), rel=0.03)
    # k independent outputs of `ensembles` averages: relative error sqrt(2 / 5000) if the 10 inputs were one.
    assert float(averaged) == pytest.approx(
        float(covariance.diagonal().mean()) / nets, rel=4 * math.sqrt(2 / 5000)
    )


def test_a_pool_of_nets_gives_the_count_of_the_law() -> None:
    k = 6
    inputs = inputs_with(2, k)
    mean = limiting_mean(inputs, torch.eye(k, dtype=torch.float64), RELU, "last")
    root = covariance_root(limiting_covariance(inputs, RELU, "last"))
    generator = torch.Generator().manual_seed(0)
    outputs = sample_nets(root, mean, 1500, generator)
    expected = nets_for_one_input(k, layers="last")
    assert nets_from_pool(outputs, inputs > 0, 0.1, generator) == pytest.approx(expected, rel=0.15)
    assert nets_from_pool(outputs[:20], inputs > 0, 1e-9, generator) == math.inf
    whole = 1500 // expected * expected
    share = match_share(outputs[:whole].view(-1, expected, *mean.shape).mean(1), inputs > 0)
    assert share == pytest.approx(0.9, abs=0.05)


def test_first_crossing_stops_at_the_first_size_that_is_enough() -> None:
    bits = torch.tensor([[True, False]])
    outputs = torch.tensor([[[1.0, 1.0]], [[1.0, -3.0]], [[1.0, 9.0]]])
    assert first_crossing(outputs, bits, 0.1) == 2
    assert first_crossing(outputs[:1], bits, 0.1) == 0


def test_stopping_at_the_first_crossing_is_early() -> None:
    counts = sample_first_crossings(8, 40, torch.Generator().manual_seed(0))
    exact = nets_for_one_input(8, layers="last")
    assert float(counts.mean() + 4 * counts.std() / math.sqrt(40)) > 0.5 * exact
    assert np.mean([success(8, 2, n, layers="last") for n in counts.tolist()]) < 0.9


def test_inputs() -> None:
    assert len(binary_inputs(5).unique(dim=0)) == 31
    assert inputs_with(2, 6).shape == (15, 6)
    assert representatives(4).sum(1).tolist() == [1, 2, 3, 4]
    single = float(success(4, 4, 1))
    law = levels(4, [4])
    assert single == pytest.approx(float(ndtr(float(law.one / law.variance.sqrt())) ** 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: permutation_targets("2,0,2", 3), "each number once"),
        (lambda: permutation_targets([1, 0], 3), "none of 0..2"),
        (lambda: permutation_targets("two", 3), "write a seed"),
        (lambda: binary_inputs(40), "k = 40"),
        (lambda: activation_kernels("rleu", 4), 'did you mean "relu"'),
        (lambda: levels(4, [5]), "1..4"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()  # type: ignore[operator]  # every case is a function


def test_odd_activations_separate_nothing_in_finitely_many_nets() -> None:
    tanh = activation_kernels("tanh", 5)
    with pytest.raises(ValueError, match="does not separate"):
        nets_for_one_input(5, kernels=tanh)
    with pytest.raises(ValueError, match="does not separate"):
        sample_nets_for_all_inputs(5, 10, torch.Generator(), tanh)
