"""How the claims of exact inductive bias (arXiv 2406.15941) are measured. What is claimed and judged: paper.toml."""

from __future__ import annotations

import math

import numpy as np
import torch._dynamo  # noqa: F401  torch.optim imports it at its first use: seconds, in every trial's fork anew
from jaxtyping import Float
from scipy.stats import spearmanr

from claimbench.errors import UserError
from claimbench.papers.theory.inductive_bias.asymptotics import fitted_nats, standard_error
from claimbench.papers.theory.inductive_bias.kernel_space import (
    KernelSpace,
    kernel_space,
    median_width,
    rbf_kernel,
)
from claimbench.papers.theory.inductive_bias.learners import Shape, predict
from claimbench.papers.theory.inductive_bias.problems import (
    INTRINSIC,
    WIDTH,
    Problem,
    draw_shapes,
    image_arrays,
    one_hot,
    sine_problem,
    split_problem,
    table_arrays,
)
from claimbench.papers.theory.inductive_bias.quadratic_form import QuadraticForm
from claimbench.papers.theory.inductive_bias.tails import FITS, by_moments, fit_chi_squared
from claimbench.trial import Table, Trial, derive, measure

NATS_A_BIT = math.log(2)
WORST = 10.0  # relative error that stands for an estimate of infinity
RIVALS = ("normal", "gamma", "log-normal")
TARGETS = (5, 20, 100, 400)


def space_at(problem: Problem, width: float) -> KernelSpace:
    return kernel_space(problem.X, problem.Y, problem.X_test, problem.Y_test, rbf_kernel(width))


def relative_target(problem: Problem, share: float) -> float:
    """An error as a share of what predicting 0 makes."""
    return share * float((problem.Y_test**2).mean())


# ---- claim 1: the tail ----


@measure("tail-estimate")
def tail_estimate(trials: list[Trial]) -> list[dict[str, float]]:
    """Each law's estimate of I where the exact value is known, from the same sampled hypotheses."""
    laws: dict[str, tuple[QuadraticForm, Float[np.ndarray, " hypotheses"]]] = {}
    fits: dict[tuple[str, str], object] = {}
    found = []
    for trial in trials:
        task, nats = str(trial.point["task"]), float(trial.point["nats"])
        rng = np.random.default_rng([trial.seed, *map(ord, task)])
        if task not in laws:
            law = task_space(trial, task, rng).errors
            laws[task] = law, law.sample(int(trial.size["hypotheses"]), rng)
        law, errors = laws[task]
        target = law.error_at(nats)
        match trial.arm:
            case "saddle-point":
                estimate = -law.log_cdf_saddle(target)
            case "importance-sampling":
                estimate = -law.log_cdf_sampled(target, len(errors), rng)
            case arm:
                key = (task, arm)
                if key not in fits:
                    fits[key] = FITS[arm](errors)
                estimate = -fits[key](target)  # type: ignore[operator]  # a law's function, kept by name
        wrong = abs(estimate - nats) / nats
        found.append({"relative_error": min(WORST, wrong) if math.isfinite(wrong) else WORST})
    return found


def task_space(trial: Trial, task: str, rng: np.random.Generator) -> KernelSpace:
    """The kernel space of a made-up task (`sines-5`), of digits, or of the user's own table."""
    rows, tests = int(trial.size["rows"]), int(trial.size["tests"])
    if "table" in trial.subject:
        problem = split_problem(*table_arrays(trial.subject["table"]), rows, tests, rng)
        return space_at(problem, median_width(problem.X))
    if task == "digits":
        from claimbench.subjects import open_subject, resolve_subject

        pixels = image_arrays(open_subject(resolve_subject("images", "digits")))
        problem = split_problem(*pixels, int(trial.size["digits_rows"]), int(trial.size["digits_tests"]), rng)
        return space_at(problem, median_width(problem.X))
    dimension = int(task.removeprefix("sines-"))
    return space_at(sine_problem(dimension, rows, tests, rng), WIDTH * math.sqrt(dimension))


@derive("tail-estimate")
def medians(seed: Table) -> dict[str, float]:
    """Medians over tasks of the relative error at each I, and the method's lead over others where it is smallest."""
    arms = dict.fromkeys(row.arm for row in seed)
    middle = {
        (arm, nats): float(
            np.median([row.metrics["relative_error"] for row in seed.where(arm=arm, nats=nats)])
        )
        for arm in arms
        for nats in dict.fromkeys(row.point["nats"] for row in seed)
    }
    targets = dict.fromkeys(nats for _, nats in middle)

    def lead(arm: str, over: list[int]) -> float:
        return min(middle[arm, nats] - middle["chi-squared-moments", nats] for nats in over)

    numbers = {f"median_{nats}": middle["chi-squared-moments", nats] for nats in targets}
    numbers |= {f"lead_over_{arm.replace('-', '_')}": lead(arm, list(targets)) for arm in RIVALS}
    numbers["lead_over_counting"] = lead("counting", [nats for nats in targets if nats > TARGETS[0]])
    for arm in arms:
        if arm != "chi-squared-moments":
            numbers[f"{arm.replace('-', '_')}_100"] = middle[arm, 100]
    return numbers


# ---- claim 2: more sampled hypotheses ----


@measure("error-falls-with-samples")
def error_falls_with_samples(trial: Trial) -> dict[str, float]:
    """Root mean squared relative error of the moments' estimate over repeated samples, and its first-order theory."""
    samples, nats = int(trial.point["samples"]), float(trial.size["nats"])
    rng = np.random.default_rng([trial.seed, samples, len(str(trial.point["law"]))])
    if trial.point["law"] == "chi-squared":
        degrees = float(trial.size["degrees"])
        law = QuadraticForm.of_scaled_chi_squared(1 / degrees, degrees, degrees)
    else:
        task = np.random.default_rng([trial.seed, 8])
        law = space_at(
            sine_problem(8, int(trial.size["rows"]), int(trial.size["tests"]), task), WIDTH * math.sqrt(8)
        ).errors
    draws = int(trial.size["draws"]) // (samples * len(law.weights))
    fewest = int(trial.size["fewest" if trial.point["law"] == "chi-squared" else "kernel_fewest"])
    repeats = max(fewest, min(draws, int(trial.size["most"])))
    target = law.error_at(nats)
    estimates = np.array([-fit_chi_squared(law.sample(samples, rng)).log_cdf(target) for _ in range(repeats)])
    error = float(np.sqrt(np.mean((estimates - nats) ** 2))) / nats
    limit = abs(fitted_nats(law, target) - nats) / nats
    expected = math.hypot(limit, standard_error(law, target, samples) / nats)
    return {"error": error, "of_theory": error / expected, "limit": limit}


# ---- claim 3: dimension ----


@measure("dimension-needs-bias")
def dimension_needs_bias(trial: Trial) -> dict[str, float]:
    """Bits that a made-up task of d inputs demands, for an error of a tenth of the targets' mean square."""
    d = int(trial.point["d"])
    rng = np.random.default_rng([trial.seed, d, 1])
    if trial.arm == "redundant-copies":  # the same three coordinates at every d
        rng = np.random.default_rng([trial.seed, min(d, INTRINSIC), 1])
    problem = sine_problem(
        d,
        int(trial.size["rows"]),
        int(trial.size["tests"]),
        rng,
        redundant=trial.arm == "redundant-copies",
    )
    width = WIDTH * math.sqrt(INTRINSIC if trial.arm == "fixed-width" else d)
    if trial.arm == "median-width":
        width = median_width(problem.X)
    space = space_at(problem, width)
    error = relative_target(problem, float(trial.size["error"]))
    if trial.arm == "chi-squared-fit":
        estimate = by_moments(space.errors.sample(int(trial.size["hypotheses"]), rng))(error)
        return {"bits": -estimate / NATS_A_BIT, "mean_error": space.mean_error}
    return {"bits": space.nats(error) / NATS_A_BIT, "mean_error": space.mean_error}


@derive("dimension-needs-bias")
def growth(seed: Table) -> dict[str, float]:
    """Rank correlation of bits with d, and bits at d = 12 less those at d = 3."""
    numbers = {}
    for arm, name in (
        ("exact", ""),
        ("redundant-copies", "copies_"),
        ("fixed-width", "fixed_width_"),
        ("median-width", "median_width_"),
        ("chi-squared-fit", "fit_"),
    ):
        bits = seed.series("bits", along="d", arm=arm)
        numbers[f"{name}growth"] = bits[12] - bits[3]
        ranks = np.array([list(bits), list(bits.values())])
        numbers[f"{name}spearman"] = float(spearmanr(*ranks).statistic) if np.ptp(ranks[1]) else 0.0
    return numbers


# ---- claim 4: training rows ----


@measure("more-data-less-bias")
def more_data_less_bias(trial: Trial) -> dict[str, float]:
    """Bits demanded after the first n training rows, on one test set; labels permuted in the control."""
    n, most = int(trial.point["n"]), int(trial.size["most_rows"])
    rng = np.random.default_rng([trial.seed, 4])
    tests = int(trial.size["tests"])
    if "table" in trial.subject:
        whole = split_problem(*table_arrays(trial.subject["table"]), most, tests, rng)
        width = median_width(whole.X)
    else:
        dimension = int(trial.size["dimension"])
        whole = sine_problem(dimension, most, tests, rng)
        width = WIDTH * math.sqrt(dimension)
    if trial.arm == "permuted-targets":
        whole = Problem(whole.X, rng.permutation(whole.Y), whole.X_test, whole.Y_test)
    problem = whole.first(n)
    error = relative_target(problem, float(trial.size["error"]))
    space = space_at(problem, width)
    bits = space.nats(error) / NATS_A_BIT
    return {
        "bits": bits,
        "mean_over_target": space.mean_error / error,
        "bits_past_mean": bits if space.mean_error <= error else 0.0,
    }


@derive("more-data-less-bias")
def fall(seed: Table) -> dict[str, float]:
    """The largest rise from one n to the next, what is left at the last, and the most where the mean error suffices."""
    bits = list(seed.series("bits", along="n", arm="exact").values())
    means = list(seed.series("mean_over_target", along="n", arm="exact").values())
    past = seed.series("bits_past_mean", along="n", arm="exact")
    permuted = list(seed.series("bits", along="n", arm="permuted-targets").values())
    return {
        "largest_rise": float(np.diff(bits).max()),
        "left": bits[-1],
        "past_mean": max(past.values()),
        "last_mean": means[-1],
        "permuted_left": permuted[-1],
    }


# ---- claim 5: networks ----


@measure("nets-encode-bias")
def nets_encode_bias(trial: Trial) -> dict[str, float]:
    """Test error of a tuned learner, and how improbable it is among random functions that fit the training set."""
    rng = np.random.default_rng([trial.seed, 5])
    rows, tests = int(trial.size["rows"]), int(trial.size["tests"])
    if trial.point["data"] == "images":
        images = trial.subject["images"]
        shape: Shape = tuple(images.pixels.shape[1:])
        problem = split_problem(*image_arrays(images), rows, tests, rng)
    elif trial.point["data"] == "shapes":
        side = int(trial.size["side"])
        pixels, labels = draw_shapes(rows + tests, side, rng)
        shape = (1, side, side)
        problem = split_problem(pixels.reshape(rows + tests, -1), one_hot(labels, 5), rows, tests, rng)
    else:
        raise UserError(f"data = {trial.point['data']}: images or shapes")
    if trial.tuning:
        kept = len(problem.X) * 3 // 4
        problem = Problem(problem.X[:kept], problem.Y[:kept], problem.X[kept:], problem.Y[kept:])
    predictions = predict(
        trial.arm,
        int(trial.tuned("setting")),
        problem,
        seed=trial.seed,
        shape=shape,
        epochs=int(trial.size["epochs"]),
        device=trial.device,
    )
    error = float(((predictions - problem.Y_test) ** 2).mean())
    right = predictions.argmax(1) == problem.Y_test.argmax(1)
    bits = space_at(problem, median_width(problem.X)).nats(error) / NATS_A_BIT
    return {"error": error, "bits": bits, "accuracy": float(right.mean())}
