"""Networks of finite width, the learners beside them, and the measures of arXiv 2502.16763."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from claimbench.errors import NotApplicable, UserError
from claimbench.paper import load_paper
from claimbench.papers.theory.exact_permutations import claims
from claimbench.papers.theory.exact_permutations.agreement import agreement
from claimbench.papers.theory.exact_permutations.baselines import (
    BANDWIDTHS,
    linear_map,
    nearest_neighbour,
    rbf_regression,
)
from claimbench.papers.theory.exact_permutations.kernels import (
    Layers,
    activation_kernels,
    cosines,
    gram,
    limiting_mean,
    relu_nngp,
    relu_ntk,
    weights,
)
from claimbench.papers.theory.exact_permutations.network import (
    Networks,
    Outputs,
    Parametrisation,
    empirical_ntk,
    follows,
    initial_networks,
    learning_rate,
    train,
    train_many,
    unit,
)
from claimbench.papers.theory.exact_permutations.problem import (
    binary_inputs,
    inputs_with,
    permutation_targets,
)
from claimbench.trial import Row, Table, Trial, registry

PARAMETRISATIONS: list[Parametrisation] = list(get_args(Parametrisation))
PAPER = load_paper(Path(claims.__file__).with_name("paper.toml"))


def networks(
    nets: int, k: int, width: int, parametrisation: Parametrisation = "ntk", **more: Any
) -> Networks:
    generator = torch.Generator().manual_seed(0)
    return initial_networks(
        nets, k, width, generator, parametrisation=parametrisation, **{"dtype": torch.float64, **more}
    )


def kernel_error(width: int, parametrisation: Parametrisation, nets: int = 6, k: int = 4) -> float:
    """Rms distance of the tangent kernels at the start from the law's, in units of 1/k (standard: of h/k)."""
    inputs = inputs_with(2, k)
    expected = (relu_ntk if parametrisation == "ntk" else relu_nngp)(cosines(inputs, inputs))
    scale = width if parametrisation == "standard" else 1
    found = empirical_ntk(networks(nets, k, width, parametrisation), unit(inputs)) * k / scale
    return float((found - expected).square().mean().sqrt())


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_tangent_kernel_at_the_start_approaches_its_limit_as_one_over_root_width(
    parametrisation: Parametrisation,
) -> None:
    narrow, wide = kernel_error(1000, parametrisation), kernel_error(16000, parametrisation)
    # One unit's contribution to the kernel has a standard deviation below 3 (fourth moments of two normals).
    assert wide < 3 / math.sqrt(16000)
    assert 2 < narrow / wide < 8  # sqrt(16) = 4


def test_tangent_kernel_is_what_a_small_step_does() -> None:
    """d f_1(x) / d(rate) under gradient flow on output 1 at x~ alone is the kernel, by finite differences."""
    nets = networks(2, 3, 40)
    inputs = unit(binary_inputs(3))
    kernel = empirical_ntk(nets, inputs)
    for weight in nets.trained:
        weight.requires_grad_()
    gradients = torch.autograd.grad(nets(inputs)[:, 5, 0].sum(), nets.trained)
    step = 1e-6
    moved = [
        Networks(
            nets.first.detach() + sign * step * gradients[0],
            nets.second.detach() + sign * step * gradients[1],
            None,
            None,
            "ntk",
            nets.activation,
        )(inputs)[:, :, 0]
        for sign in (1, -1)
    ]
    torch.testing.assert_close((moved[0] - moved[1]) / (2 * step), kernel[:, :, 5], rtol=0, atol=1e-6)


def test_last_layer_training_is_kernel_regression_with_the_features_of_each_net() -> None:
    """At any width: f = f_0 + k(x, X) k(X, X)^-1 (Y - f_0(X)), k the inner products of hidden activations."""
    k, tolerance = 4, 1e-9
    nets, targets, inputs = (
        networks(3, k, 300, "last-layer"),
        permutation_targets(0, k),
        unit(binary_inputs(k)),
    )
    kernel, on_basis = empirical_ntk(nets, torch.cat([inputs, torch.eye(k)])), nets.on_basis()
    start = nets(inputs)
    cross, train_gram = kernel[:, : len(inputs), len(inputs) :], kernel[:, len(inputs) :, len(inputs) :]
    expected = start + cross @ torch.linalg.solve(train_gram, targets - on_basis)
    assert train(nets, targets, tolerance=tolerance).residual < tolerance
    torch.testing.assert_close(nets(inputs), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_nets_of_a_batch_train_independently(parametrisation: Parametrisation) -> None:
    k, targets, inputs = 3, permutation_targets(0, 3), unit(binary_inputs(3))
    together = networks(4, k, 50, parametrisation)
    biases = (together.first_bias, together.second_bias)
    alone = Networks(
        together.first[2:3].clone(),
        together.second[2:3].clone(),
        *(None if b is None else b[2:3].clone() for b in biases),
        parametrisation,
        together.activation,
    )
    train(together, targets, tolerance=1e-10)
    train(alone, targets, tolerance=1e-10)
    # They stop at different steps, each within 1e-10 of its limit on the training inputs.
    torch.testing.assert_close(together(inputs)[2], alone(inputs)[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_the_learning_rate_is_stable_and_not_small(parametrisation: Parametrisation) -> None:
    k, width = 5, 2000
    kernel = empirical_ntk(networks(4, k, width, parametrisation), torch.eye(k, dtype=torch.float64))
    largest = torch.linalg.eigvalsh(kernel)[:, -1]
    product = learning_rate(k, width, parametrisation) * largest
    assert bool((product < 1.2).all())
    assert bool((product > 0.5).all())


def test_the_law_of_wide_nets_is_the_one_that_their_parametrisation_follows() -> None:
    targets, inputs = permutation_targets(0, 4), binary_inputs(4)
    for parametrisation in PARAMETRISATIONS:
        outputs = train_many(200, inputs, targets, 1000, 0, parametrisation=parametrisation)
        own: Layers = follows(parametrisation)
        other: Layers = "last" if own == "both" else "both"
        near, far = (agreement(outputs, inputs, targets, layers=layers) for layers in (own, other))
        assert near.mean_error < far.mean_error / 5
        assert near.variance_error < 0.1
        assert far.excess > 10


def test_single_nets_vary_as_the_law_says_without_a_control_variate() -> None:
    k = 4
    inputs = inputs_with(2, k)
    end = train_many(400, inputs, permutation_targets(0, k), 500, 0).end.double()
    expected = float(weights_variance(k))
    # 400 nets of 4 independent outputs; 3 % for the width.
    assert float(end.var(0).mean()) == pytest.approx(expected, rel=4 * math.sqrt(2 / 1600) + 0.03)


def weights_variance(k: int) -> torch.Tensor:
    """Variance at two ones by hand: [K(1) + w K(X, X) w' - 2 w K(X, x)] / k."""
    x = inputs_with(2, k)[:1]
    basis = torch.eye(k, dtype=torch.float64)
    w = weights(x)
    value = (
        relu_nngp(cosines(x, x))
        + w @ relu_nngp(cosines(basis, basis)) @ w.T
        - 2 * w @ relu_nngp(cosines(basis, x))
    )
    return value[0, 0] / k


def test_agreement_measures_planted_errors() -> None:
    k, nets = 4, 3000
    inputs, targets = binary_inputs(k), permutation_targets(0, k)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(nets, len(inputs), k, generator=generator, dtype=torch.float64)
    on_basis = torch.randn(nets, k, k, generator=generator, dtype=torch.float64)
    control = start - weights(inputs) @ on_basis
    exact = limiting_mean(inputs, targets) + control
    none = agreement(Outputs(exact, start, on_basis), inputs, targets)
    assert none.mean_error < 1e-12
    assert none.variance_error < 1e-10
    shifted = agreement(Outputs(exact + 0.25, start, on_basis), inputs, targets)
    assert shifted.mean_error == pytest.approx(0.25, abs=1e-9)
    assert shifted.raw_mean_error == pytest.approx(0.25, abs=0.05)


def test_own_activation_optimiser_and_linear_map() -> None:
    k, outputs = 4, 3
    targets = torch.randn(k, outputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def squash(u: torch.Tensor) -> torch.Tensor:
        return torch.atan(u) + 0.3 * u**2

    wide = train_many(100, binary_inputs(k), targets, 2000, 0, activation=squash)
    kernels = activation_kernels(squash, k)
    near = agreement(wide, binary_inputs(k), targets, kernels)
    assert near.mean_error < 0.02 * float(targets.abs().max())
    nets = networks(2, k, 64, outputs=outputs)
    result = train(nets, targets, optimiser=lambda w: torch.optim.Adam(w, 0.02), tolerance=1e-3)
    assert result.residual < 1e-3
    assert result.steps > 1
    assert gram(kernels.ntk, k)[0] > 0


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"rate": 1e4}, RuntimeError, "diverged"),
        ({"max_steps": 2}, RuntimeError, "after 2 steps"),
        ({"targets": torch.eye(3)}, UserError, "want"),
    ],
)
def test_training_that_cannot_succeed_says_so(keywords: dict[str, Any], error: type, message: str) -> None:
    arguments = {"targets": permutation_targets(0, 4), **keywords}
    with pytest.raises(error, match=message):
        train(networks(2, 4, 30, activation="identity"), **arguments)


def test_unknown_names_are_mistakes() -> None:
    with pytest.raises(UserError, match='did you mean "ntk"'):
        networks(1, 3, 4, "ntks")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(UserError, match="not known"):
        networks(1, 3, 4, activation="rleu")


def test_baselines() -> None:
    inputs, targets = binary_inputs(5), permutation_targets(2, 5)
    torch.testing.assert_close(linear_map(inputs, targets), unit(inputs) @ targets, rtol=0, atol=1e-12)
    basis = torch.eye(5, dtype=torch.float64)
    for bandwidth in BANDWIDTHS:
        torch.testing.assert_close(rbf_regression(basis, targets, bandwidth), targets, rtol=0, atol=1e-9)
    labels = nearest_neighbour(inputs, targets)
    assert labels.sum(1).tolist() == [1.0] * 31
    assert bool((labels <= inputs @ targets).all())


def trial(claim: str, arm: str, point: dict[str, Any], seed: int = 0, **size: Any) -> dict[str, float]:
    found = PAPER.find_claim(claim)
    measure = registry(claims.__name__).measures[found.measured_by]
    return dict(measure(Trial(arm=arm, point=point, seed=seed, size={**found.sizes("smoke"), **size})))


@pytest.mark.parametrize("claim", [c.id for c in PAPER.claim])
def test_every_arm_measures_every_metric(claim: str) -> None:
    found = PAPER.find_claim(claim)
    small = {"nets": 60, "width": 32, "draws": 20, "wide_nets": 2, "repeats": 2, "failure": 0.6}
    expected = {name for name, metric in found.metrics.items() if not metric.derived}
    for arm in [found.method, *found.baselines]:
        sizes = {name: value for name, value in small.items() if name in found.sizes("smoke")}
        metrics = trial(claim, arm, {**found.points("smoke")[0]}, **sizes)
        assert set(metrics) == expected
        assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("k", [2, 9, 14, 64, 512])
def test_signs_separate_for_kernels_and_not_for_the_nearest_neighbour(k: int) -> None:
    assert trial("sign-separation", "ntk-ensemble", {"k": k})["share"] == 1.0
    nearest = trial("sign-separation", "nearest-neighbour", {"k": k})
    assert nearest["share"] == pytest.approx(k / (2.0**k - 1), rel=1e-6, abs=1e-15)
    half = trial("sign-separation", "linear-map-half", {"k": k})
    assert half == pytest.approx({"share": 1.0, "trained_share": 1.0, "margin": 0.5 / math.sqrt(k)})


def test_symmetry_stands_for_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = ("ntk-ensemble", "rbf-regression", "nearest-neighbour")
    enumerated = [trial("sign-separation", arm, {"k": 9}) for arm in arms]
    monkeypatch.setattr(claims, "ENUMERATED", 8)
    assert [trial("sign-separation", arm, {"k": 9}) for arm in arms] == [pytest.approx(e) for e in enumerated]


def test_own_permutation_and_activation() -> None:
    own = trial("sign-separation", "ntk-ensemble", {"k": 3}, permutation="2,0,1", activation="gelu")
    assert own["share"] == 1.0
    with pytest.raises(UserError, match=r"none of 0\.\.3"):
        trial("sign-separation", "ntk-ensemble", {"k": 4}, permutation="2,0,1")


def test_sampled_and_exact_match_agree() -> None:
    for arm in ("averaging", "majority-vote", "averaging-last-layer"):
        found = trial("ensemble-klogk", arm, {"k": 64}, draws=4000)
        assert abs(found["match"] - found["sampled_match"]) < 4 * math.sqrt(0.25 / 4000)


def test_growth_recognises_planted_laws() -> None:
    spans = {"fitted": (64, 128, 512), "asymptotic": (2048, 8192)}
    for exponent, growing in [(1.0, "klogk"), (2.0, "quadratic")]:
        rows = [
            Row(
                "averaging",
                {"span": span, "k": k},
                0,
                {"nets": 3 * (k * math.log(k) if exponent == 1 else k**2)},
            )
            for span, ks in spans.items()
            for k in ks
        ]
        numbers = claims.growth(Table(rows))
        assert (numbers["quadratic_over_klogk"] > 1) == (growing == "klogk")
        assert (numbers["klogk_exponent"] == pytest.approx(1.0)) == (growing == "klogk")


def test_joint_sampling_ends_where_the_inputs_are_too_many() -> None:
    with pytest.raises(NotApplicable, match=r"2\^64"):
        trial("ensemble-quadratic", "ensemble", {"k": 64})


def test_a_pool_that_is_too_small_is_named() -> None:
    with pytest.raises(UserError, match="nets = 20"):
        trial("trained-counts", "ntk-nets", {"k": 5}, nets=20, width=32)
