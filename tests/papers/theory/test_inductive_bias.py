"""Exact inductive bias: quadratic forms, fitted tails and kernel spaces against closed forms, SciPy and Monte Carlo."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, kstat, ncx2, norm, ortho_group

from claimbench.errors import UserError
from claimbench.papers.theory.inductive_bias.asymptotics import k_statistic_covariance, standard_error
from claimbench.papers.theory.inductive_bias.kernel_space import (
    FAMILIES,
    KernelSpace,
    family_kernel,
    kernel_space,
    median_width,
    rbf_kernel,
)
from claimbench.papers.theory.inductive_bias.problems import Problem, sine_problem
from claimbench.papers.theory.inductive_bias.quadratic_form import QuadraticForm
from claimbench.papers.theory.inductive_bias.tails import (
    FITS,
    by_library,
    chi_squared_of_cumulants,
    fit_chi_squared,
    sankaran,
)


def space_of(problem: Problem, width: float = 0.6) -> KernelSpace:
    return kernel_space(problem.X, problem.Y, problem.X_test, problem.Y_test, rbf_kernel(width))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def uneven(rng: np.random.Generator) -> QuadraticForm:
    return QuadraticForm(rng.exponential(size=40) ** 2, np.full(40, 3.0), rng.exponential(size=40), floor=0.5)


# ---- quadratic forms ----


@pytest.mark.parametrize(
    ("degrees", "shift"), [(1, 0.0), (1, 5.0), (3, 10.0), (50, 20.0), (0.3, 2.0), (300, 100.0)]
)
def test_one_term_is_a_chi_square_to_all_digits(degrees: float, shift: float) -> None:
    form = QuadraticForm.of_scaled_chi_squared(0.7, degrees, shift)
    law = ncx2(degrees, shift) if shift else chi2(degrees)
    for probability in (1e-8, 1e-3, 0.3, 0.9, 0.9999):
        value = float(law.ppf(probability))
        assert form.log_cdf(0.7 * value) == pytest.approx(float(law.logcdf(value)), abs=1e-11)


def test_probabilities_far_below_what_floats_hold() -> None:
    # P(chi^2_n <= x) of even n is a Poisson tail: its first term is exp(-x/2) (x/2)^(n/2) / (n/2)!, the rest less than
    # x / n of it.
    n, x = 2000, 1.0
    first = -x / 2 + n / 2 * math.log(x / 2) - math.lgamma(n / 2 + 1)
    found = QuadraticForm.of_scaled_chi_squared(1.0, n).log_cdf(x)
    assert first < -1000
    assert 0 < found - first < 2 * math.log1p(x / n)


def test_against_imhofs_inversion(uneven: QuadraticForm) -> None:
    # Imhof (1961): another path, the imaginary axis, by a library's quadrature.
    def integrand(u: float, error: float) -> float:
        log_characteristic = complex(uneven.log_moments(np.array([1j * u]))[0]) - 1j * u * error
        return float(np.exp(log_characteristic).imag / u)

    for error in (uneven.error_at(nats) for nats in (0.05, 0.7, 3.0, 8.0)):
        integral = quad(integrand, 0, np.inf, args=(error,), limit=500, epsabs=1e-11)[0]
        assert math.exp(uneven.log_cdf(error)) == pytest.approx(0.5 - integral / math.pi, abs=1e-7)


def test_against_a_million_draws_up_to_8_nats(uneven: QuadraticForm, rng: np.random.Generator) -> None:
    draws = uneven.sample(400_000, rng)
    for nats in (0.5, 2.0, 5.0, 8.0):
        error = uneven.error_at(nats)
        expected = math.exp(-nats)
        assert abs((draws <= error).mean() - expected) < 4 * math.sqrt(expected / len(draws))
        assert -uneven.log_cdf_saddle(error) == pytest.approx(nats, rel=0.02)
    for order in (1, 2, 3):
        spread = math.sqrt(k_statistic_covariance(uneven, len(draws))[order - 1, order - 1])
        assert abs(kstat(draws, order) - uneven.cumulant(order)) < 4 * spread


def test_saddle_point_and_tilted_sampling_in_the_tail(
    uneven: QuadraticForm, rng: np.random.Generator
) -> None:
    for nats in (20.0, 100.0, 1000.0):
        error = uneven.error_at(nats)
        assert uneven.log_cdf(error) == pytest.approx(-nats, abs=1e-8)
        assert uneven.log_cdf_saddle(error) == pytest.approx(-nats, abs=0.03)
        assert uneven.log_cdf_sampled(error, 20_000, rng) == pytest.approx(-nats, abs=0.1)
    assert uneven.log_cdf(uneven.floor) == -math.inf
    assert uneven.log_cdf(1e6) == 0.0
    assert uneven.log_cdf_sampled(uneven.floor, 10, rng) == -math.inf


def test_nats_fall_with_the_error_and_vanish(uneven: QuadraticForm) -> None:
    errors = np.geomspace(uneven.error_at(500.0), 20 * uneven.cumulant(1), 60)
    for law in (uneven.log_cdf, uneven.log_cdf_saddle):
        nats = [-law(error) for error in errors]
        assert all(later <= earlier + 1e-9 for earlier, later in pairwise(nats))
        assert nats[-1] < 1e-6
    assert -uneven.log_cdf_saddle(uneven.cumulant(1) * (1 + 1e-9)) == pytest.approx(
        -uneven.log_cdf(uneven.cumulant(1)), rel=0.02
    )


# ---- kernel spaces ----


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_functions_go_through_the_training_set(family: str, rng: np.random.Generator) -> None:
    problem = sine_problem(4, 15, 5, rng)
    seen = kernel_space(
        problem.X, problem.Y, problem.X, problem.Y, family_kernel(family, median_width(problem.X)), 1e-9
    )
    drawn = seen.sample(50, rng)
    # What is left is the nugget's, twice: 1e-9 of a variance near 1 (relu-network: 2).
    assert np.abs(drawn - problem.Y).max() < 1e-3
    matrix = family_kernel(family, 1.5)(problem.X, problem.X)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9
    np.testing.assert_allclose(matrix, matrix.T)


def test_no_training_rows_is_the_prior(rng: np.random.Generator) -> None:
    problem = sine_problem(3, 0, 8, rng)
    space = space_of(problem)
    np.testing.assert_allclose(space.covariance, rbf_kernel(0.6)(problem.X_test, problem.X_test), atol=2e-8)
    np.testing.assert_array_equal(space.mean, 0)


def test_conditioning_is_scikit_learns(rng: np.random.Generator) -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    problem = sine_problem(3, 20, 10, rng)
    found = space_of(problem)
    reference = GaussianProcessRegressor(RBF(0.6), alpha=1e-8, optimizer=None).fit(problem.X, problem.Y)
    mean, covariance = reference.predict(problem.X_test, return_cov=True)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.covariance - 1e-8 * np.eye(10), covariance[..., 0], atol=1e-6)


def test_the_relu_network_kernel_is_that_of_wide_networks(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((2, 4))
    weights = rng.standard_normal((5, 1_000_000))

    def hidden(rows: np.ndarray) -> np.ndarray:
        return np.maximum(np.column_stack([rows / 2.0, np.ones(len(rows))]) @ weights, 0)

    sampled = 2 * hidden(a) @ hidden(b).T / weights.shape[1]
    np.testing.assert_allclose(family_kernel("relu-network", 2.0)(a, b), sampled, rtol=0.02)


def test_the_mean_error_is_trace_and_offset_and_that_of_samples(rng: np.random.Generator) -> None:
    space = space_of(sine_problem(4, 20, 15, rng))
    assert space.mean_error == pytest.approx(space.errors.cumulant(1), rel=1e-10)
    drawn = ((space.sample(20_000, rng) - space.targets) ** 2).mean((1, 2))
    assert abs(drawn.mean() - space.mean_error) < 3 * drawn.std() / math.sqrt(len(drawn))
    for nats in (1.0, 4.0):
        share = (drawn <= space.errors.error_at(nats)).mean()
        assert abs(share - math.exp(-nats)) < 4 * math.sqrt(math.exp(-nats) / len(drawn))


def test_one_test_point_is_a_chi_square_of_one_degree(rng: np.random.Generator) -> None:
    space = space_of(sine_problem(3, 10, 1, rng, outputs=1))
    variance, gap = float(space.covariance[0, 0]), float((space.mean - space.targets)[0, 0])
    for error in (0.2 * space.mean_error, 1e-3 * space.mean_error):
        expected = ncx2.logcdf(error / variance, 1, gap**2 / variance)
        assert space.nats(error) == pytest.approx(-expected, rel=1e-9)


def test_white_noise_without_offset_is_a_chi_square(rng: np.random.Generator) -> None:
    targets = np.zeros((7, 2))
    space = KernelSpace(targets, 0.3 * np.eye(7), targets)
    for error in (0.3, 0.05, 1e-4):
        assert space.nats(error) == pytest.approx(-chi2.logcdf(14 * error / 0.3, 14), rel=1e-10)


def test_scaling_targets_and_kernel_or_turning_inputs_changes_nothing(rng: np.random.Generator) -> None:
    problem = sine_problem(4, 20, 15, rng)
    space = space_of(problem)
    error = space.errors.error_at(30.0)
    scale = 7.0
    scaled = kernel_space(
        problem.X,
        scale * problem.Y,
        problem.X_test,
        scale * problem.Y_test,
        lambda a, b: scale**2 * rbf_kernel(0.6)(a, b),
    )
    assert scaled.nats(scale**2 * error) == pytest.approx(30.0, rel=1e-8)
    turn = ortho_group.rvs(4, random_state=1)
    turned = space_of(Problem(problem.X @ turn, problem.Y, problem.X_test @ turn, problem.Y_test))
    assert turned.nats(error) == pytest.approx(30.0, rel=1e-6)


def test_mistakes_are_told(rng: np.random.Generator) -> None:
    problem = sine_problem(3, 10, 5, rng)
    with pytest.raises(UserError, match="shapes"):
        kernel_space(problem.X, problem.Y[:4], problem.X_test, problem.Y_test, rbf_kernel(1.0))
    twice = np.concatenate([problem.X, problem.X])
    with pytest.raises(UserError, match="raise nugget"):
        kernel_space(
            twice,
            np.concatenate([problem.Y, problem.Y]),
            problem.X_test,
            problem.Y_test,
            rbf_kernel(1.0),
            0.0,
        )
    with pytest.raises(UserError, match="laplace"):
        family_kernel("laplacian", 1.0)
    with pytest.raises(UserError, match="width"):
        family_kernel("rbf", 0.0)
    with pytest.raises(UserError, match="give the width"):
        median_width(np.zeros((5, 2)))


# ---- fitted tails ----


def test_three_cumulants_give_back_their_chi_square() -> None:
    law = QuadraticForm.of_scaled_chi_squared(0.02, 30.0, 12.0)
    found = chi_squared_of_cumulants(*(law.cumulant(order) for order in (1, 2, 3)))
    assert float(found.weights[0]) == pytest.approx(0.02)
    assert float(found.degrees[0]) == pytest.approx(30.0)
    assert float(found.offsets[0]) == pytest.approx(0.02 * 12)


def test_an_uneven_spectrum_has_no_such_chi_square_and_gets_the_gamma_law(uneven: QuadraticForm) -> None:
    centred = QuadraticForm(uneven.weights, uneven.degrees, np.zeros(40))
    mean, variance, third = (centred.cumulant(order) for order in (1, 2, 3))
    assert (variance / 2) ** 2 < mean * third / 8
    found = chi_squared_of_cumulants(mean, variance, third)
    assert float(found.offsets[0]) == 0
    assert (found.cumulant(1), found.cumulant(2)) == pytest.approx((mean, variance))


def test_every_fit_knows_its_own_law_where_it_can_be_counted(rng: np.random.Generator) -> None:
    degrees = 25.0
    samples = {
        "normal": 8 + rng.standard_normal(20_000),
        "log-normal": np.exp(0.3 * rng.standard_normal(20_000)),
    }
    for name, fit in FITS.items():
        if name == "chi-squared-library":
            continue
        errors = samples.get(name)
        if errors is None:
            errors = QuadraticForm.of_scaled_chi_squared(1 / degrees, degrees).sample(20_000, rng)
        law = fit(errors)
        for share in (0.5, 0.1, 0.01):
            assert law(float(np.quantile(errors, share))) == pytest.approx(math.log(share), abs=0.15), name
        assert law(0.0) < -20 or name == "counting", name


def test_extrapolation_where_the_family_is_true(rng: np.random.Generator) -> None:
    law = QuadraticForm.of_scaled_chi_squared(0.1, 10.0, 10.0)
    errors, target = law.sample(8000, rng), law.error_at(20.0)
    for name in ("chi-squared-moments", "chi-squared-likelihood"):
        assert abs(-FITS[name](errors)(target) / 20 - 1) < 0.1, name
    for name in ("normal", "log-normal"):
        assert abs(-FITS[name](errors)(target) / 20 - 1) > 0.2, name
    assert -FITS["counting"](errors)(target) == pytest.approx(math.log(16_000))


def test_the_librarys_fit_and_its_fall_back(rng: np.random.Generator) -> None:
    errors = ncx2(12, 8, scale=0.05).rvs(400, random_state=1)
    law = by_library(errors)
    assert law(float(np.median(errors))) == pytest.approx(math.log(0.5), abs=0.2)
    # Sankaran's deviate is good to some percent near the middle.
    for value in ncx2(12, 8).ppf([0.01, 0.5, 0.99]):
        assert sankaran(value, 12, 8) == pytest.approx(norm.ppf(ncx2(12, 8).cdf(value)), abs=0.03)


def test_first_order_theory_of_the_estimates_spread(rng: np.random.Generator) -> None:
    law = QuadraticForm.of_scaled_chi_squared(0.1, 10.0, 40.0)
    target, samples = law.error_at(12.0), 20_000
    estimates = [-fit_chi_squared(law.sample(samples, rng)).log_cdf(target) for _ in range(150)]
    # The spread of a spread over 150 repeats is 6 %; second order adds some more.
    assert np.std(estimates) == pytest.approx(standard_error(law, target, samples), rel=0.25)


def test_errors_that_cannot_be_fitted_are_told() -> None:
    with pytest.raises(UserError, match="at least 10"):
        fit_chi_squared(np.ones(3))
    with pytest.raises(UserError, match="not all the same"):
        fit_chi_squared(np.ones(30))
