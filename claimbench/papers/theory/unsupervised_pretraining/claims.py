"""How the claims of provable pretraining (arXiv 2303.01566) are measured. What is claimed and judged: paper.toml."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from claimbench.errors import NotApplicable
from claimbench.papers.theory.unsupervised_pretraining.bound import (
    expected_least_squares_risk,
    expected_overlap,
    theorem_bound,
)
from claimbench.papers.theory.unsupervised_pretraining.classifiers import fit_predict, semi_supervised
from claimbench.papers.theory.unsupervised_pretraining.contrastive import fit_contrastive, sample_pairs
from claimbench.papers.theory.unsupervised_pretraining.factor import (
    FactorTask,
    Moments,
    choose_factors,
    fit_loadings,
    fit_two_stage,
    posterior_map,
    random_task,
)
from claimbench.papers.theory.unsupervised_pretraining.linear import (
    SUPERVISED,
    least_squares_of,
    ridge,
    ridge_of,
)
from claimbench.papers.theory.unsupervised_pretraining.mixture import (
    fit_means,
    label_components,
    predict_labels,
    random_mixture,
    responsibilities,
)
from claimbench.papers.theory.unsupervised_pretraining.rows import checked_features, raw_columns, targets
from claimbench.papers.theory.unsupervised_pretraining.two_stage import compare, fit_factors
from claimbench.trial import Table, Trial, derive, measure

TUNED = ("ridge", "lasso", "pls", "composed")
"""Supervised arms that are judged: least squares has a pole at n = d and is reported for its factor d/r alone."""
CLASSIFIERS = ("linear", "k-nearest", "rbf-svm", "mlp")
SEMI_SUPERVISED = ("self-training", "label-spreading")
MANY = 8
"""Labels for each column from which they count as many."""
SMALLEST = 1e-4
"""Added to excess errors before their ratio: a mixture's may be 0."""

Gram = Float[np.ndarray, "d d"]


def factor_features(arm: str, task: FactorTask, gram: Gram, m: int, rng: np.random.Generator) -> Gram:
    """The frozen features of an arm, as a map [d, features]."""
    d, r = task.loadings.shape
    match arm:
        case "two-stage":
            return posterior_map(fit_loadings(gram, r))
        case "two-stage-bic":
            return posterior_map(fit_loadings(gram, choose_factors(gram, m)))
        case "fewer-factors":
            return posterior_map(fit_loadings(gram, r - 1))
        case "more-factors":
            return posterior_map(fit_loadings(gram, 2 * r))
        case "oracle":
            return posterior_map(task.loadings)
        case _:  # random projection
            return rng.standard_normal((d, r)) / math.sqrt(d)


def factor_predictor(
    arm: str,
    task: FactorTask,
    gram: Gram,
    m: int,
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " d"]:
    """Any arm's linear predictor. spectral-ridge: all factors that unlabelled inputs show, shrunk by labels."""
    d, r = task.loadings.shape
    if arm in SUPERVISED:
        return SUPERVISED[arm](X, y, r, rng)
    if arm == "spectral-ridge":
        scale = posterior_map(fit_loadings(gram, d))
        return scale @ ridge(X @ scale, y)
    if arm == "ridge-on-both":
        features = posterior_map(fit_loadings(gram, r))
        both = np.column_stack([np.eye(d), features / np.linalg.norm(features, axis=0)])
        return both @ ridge(X @ both, y)
    return fit_two_stage(factor_features(arm, task, gram, m, rng), Moments.of(X, y))


def factor_risks(trials: list[Trial], *, hidden: bool = False) -> list[dict[str, float]]:
    """Mean excess risk of each arm over `repeats` tasks with fresh inputs and labels, which the arms share.

    Where labels are many, two-stage and least squares go on to `many_repeats`: their ratio is judged by its extremes
    over points, which noise alone would spread.
    """
    first = trials[0]
    d, r, ratio = (int(first.point[name]) for name in ("d", "r", "ratio"))
    m, n = int(first.point.get("m", first.size.get("m", 0))), ratio * d
    risks: dict[str, list[float]] = {trial.arm: [] for trial in trials}
    repeats = int(first.size["repeats"])
    more = int(first.size["many_repeats"]) if ratio >= MANY and not hidden else repeats
    for repeat in range(max(repeats, more)):
        rng = np.random.default_rng([first.seed, d, r, ratio, repeat])
        task = random_task(
            d, r, float(first.size["strength"]), float(first.size["noise"]), rng, hidden=hidden
        )
        gram = task.sample_moments(m, rng).gram
        X, y = task.sample(n, rng)
        for arm, found in risks.items():
            if repeat >= repeats and arm not in ("two-stage", "ols"):
                continue
            own = np.random.default_rng([first.seed, repeat, *map(ord, arm)])
            found.append(task.excess_risk(factor_predictor(arm, task, gram, m, X, y, own)))
    return [{"risk": float(np.mean(risks[trial.arm]))} for trial in trials]


@measure("label-efficiency")
def label_efficiency(trials: list[Trial]) -> list[dict[str, float]]:
    return factor_risks(trials)


def log2_advantage(
    seed: Table, method: str, rivals: tuple[str, ...], metric: str, floor: float = 0.0, **point: object
) -> float:
    """Mean over points of log2 (least risk of the rivals / the method's): the best rival is seen with hindsight."""
    found = []
    for row in seed.where(arm=method, **point):
        risks = [
            other.metrics[metric]
            for other in seed
            if other.arm in rivals and dict(other.point) == dict(row.point)
        ]
        found.append(math.log2((min(risks) + floor) / (row.metrics[metric] + floor)))
    return float(np.mean(found))


@derive("label-efficiency")
def saved_labels(seed: Table) -> dict[str, float]:
    """Advantage where labels are few, and the factor over least squares, in units of d/r, where they are many."""
    few = Table([row for row in seed if row.point["ratio"] <= 4])
    factors: dict[int, list[float]] = {}
    for row in seed.where(arm="ols"):
        if row.point["ratio"] >= MANY:
            own = seed.value("risk", arm="two-stage", **row.point)
            scale = row.point["d"] / row.point["r"]
            factors.setdefault(int(row.point["m"]), []).append(row.metrics["risk"] / own / scale)
    many, few_unlabelled = max(factors), min(factors)
    return {
        "log2_advantage": log2_advantage(few, "two-stage", TUNED, "risk"),
        "log2_advantage_bic": log2_advantage(few, "two-stage-bic", TUNED, "risk"),
        "log2_over_spectral_ridge": log2_advantage(few, "two-stage", ("spectral-ridge",), "risk"),
        "least_ols_factor": min(factors[many]),
        "largest_ols_factor": max(factors[many]),
        "least_ols_factor_fewer_unlabelled": min(factors[few_unlabelled]),
    }


def moment_risks(
    trials: list[Trial], strength: float, m: int, n: int
) -> tuple[dict[str, float], list[FactorTask], list[float]]:
    """Mean excess risk of each arm from second moments alone, the tasks, and how much of the factors was found."""
    first = trials[0]
    d, r = int(first.size["d"]), int(first.size["r"])
    risks: dict[str, list[float]] = {trial.arm: [] for trial in trials}
    tasks, overlaps = [], []
    for repeat in range(int(first.size["repeats"])):
        rng = np.random.default_rng([first.seed, m, n, round(1000 * strength), repeat])
        task = random_task(d, r, strength, float(first.size["noise"]), rng)
        gram = task.sample_moments(m, rng).gram
        labelled = task.sample_moments(n, rng)
        loadings = fit_loadings(gram, r)
        for arm, found in risks.items():
            match arm:
                case "ridge":
                    predictor = ridge_of(labelled)
                case "ols":
                    predictor = least_squares_of(labelled)
                case _:
                    used = loadings if arm == "two-stage" else task.loadings
                    predictor = fit_two_stage(posterior_map(used), labelled)
            found.append(task.excess_risk(predictor))
        top = np.linalg.eigh(gram)[1][:, -r:]
        overlaps.append(float(np.linalg.norm(top.T @ task.loadings) ** 2) / (r * strength**2))
        tasks.append(task)
    return {arm: float(np.mean(found)) for arm, found in risks.items()}, tasks, overlaps


@measure("rates")
def rates(trials: list[Trial]) -> list[dict[str, float]]:
    """Excess risk along labels and along unlabelled inputs, with very many of the other."""
    first = trials[0]
    d, r, strength = int(first.size["d"]), int(first.size["r"]), float(first.size["strength"])
    count, many = int(first.point["count"]), int(first.size["many"])
    m, n = (many, count) if first.point["span"] == "labels" else (count, many)
    risks, tasks, _ = moment_risks(trials, strength, m, n)
    variance = float(np.mean([task.residual_variance for task in tasks]))
    bound = theorem_bound(d, r, m, n, loss=float(first.size["loss"]))
    label_term = expected_least_squares_risk(variance, r, n)
    return [
        {
            "risk": risks[trial.arm],
            "of_bound": risks[trial.arm] / bound,
            "of_label_term": risks[trial.arm] / label_term,
        }
        for trial in trials
    ]


@measure("factor-strength")
def factor_strength(trials: list[Trial]) -> list[dict[str, float]]:
    """Excess risk, and the share of the factors that pretraining finds, by their singular values."""
    first = trials[0]
    strength, m = float(first.point["strength"]), int(first.size["m"])
    risks, _, overlaps = moment_risks(trials, strength, m, int(first.size["n"]))
    overlap = float(np.mean(overlaps))
    return [
        {
            "risk": risks[trial.arm],
            "overlap": overlap,
            "overlap_less_theory": overlap - expected_overlap(strength, int(first.size["d"]), m),
        }
        for trial in trials
    ]


@derive("factor-strength")
def strength_matters(seed: Table) -> dict[str, float]:
    """log2 of ridge's risk over two stages' at singular values 2 and 0.3, and how much that falls."""
    strong = log2_advantage(seed, "two-stage", ("ridge",), "risk", strength=2.0)
    weak = log2_advantage(seed, "two-stage", ("ridge",), "risk", strength=0.3)
    return {"log2_strong": strong, "log2_weak": weak, "log2_lost": strong - weak}


@measure("mixture")
def mixture(trials: list[Trial]) -> list[dict[str, float]]:
    """Excess error of one label a component, and of classifiers of x, on the same labelled points."""
    first = trials[0]
    k, d = int(first.size["k"]), int(first.size["d"])
    n, separation = int(first.point["n"]), float(first.point["separation"])
    errors: dict[str, list[float]] = {trial.arm: [] for trial in trials}
    for repeat in range(int(first.size["repeats"])):
        rng = np.random.default_rng([first.seed, n, round(10 * separation), repeat])
        task = random_mixture(k, d, separation, float(first.size["flip"]), rng)
        unlabelled, _ = task.sample(int(first.size["m"]), rng)
        X, y = task.sample(n, rng)
        tests, _ = task.sample(int(first.size["tests"]), rng)
        means = fit_means(unlabelled, k, rng) if "two-stage" in errors else task.means
        for arm, found in errors.items():
            if arm in ("two-stage", "oracle"):
                used = means if arm == "two-stage" else task.means
                bits = label_components(responsibilities(X, used), y)
                predicted = predict_labels(responsibilities(tests, used), bits)
            elif arm in SEMI_SUPERVISED:
                predicted = semi_supervised(arm, X, y, unlabelled, tests, seed=repeat) == 1
            else:
                predicted = fit_predict(arm, X, y, tests, seed=repeat) == 1
            found.append(task.excess_error(predicted, tests))
    return [{"excess": float(np.mean(errors[trial.arm]))} for trial in trials]


@derive("mixture")
def mixture_advantage(seed: Table) -> dict[str, float]:
    """log2 advantage over the best classifier, and over the best of those that use unlabelled inputs, by separation."""
    numbers = {}
    for separation in (2, 6, 8):
        at = {"separation": separation}
        numbers[f"log2_{separation}"] = log2_advantage(
            seed, "two-stage", CLASSIFIERS, "excess", SMALLEST, **at
        )
        numbers[f"log2_semi_{separation}"] = log2_advantage(
            seed, "two-stage", SEMI_SUPERVISED, "excess", SMALLEST, **at
        )
    return numbers


@measure("contrastive")
def contrastive(trials: list[Trial]) -> list[dict[str, float]]:
    """Excess risk of least squares on contrastively trained features, and of baselines on x. Inputs are N(0, I)."""
    first = trials[0]
    d, r, m = int(first.size["d"]), int(first.size["r"]), int(first.point["m"])
    n = int(first.point["ratio"]) * d
    risks: dict[str, list[float]] = {trial.arm: [] for trial in trials}
    for repeat in range(int(first.size["repeats"])):
        rng = np.random.default_rng([first.seed, m, n, repeat])
        loadings = np.linalg.qr(rng.standard_normal((d, r)))[0] * float(first.size["strength"])
        weights = rng.standard_normal(r)
        best = loadings @ (weights / np.linalg.norm(loadings @ weights))
        fitted = fit_contrastive(*sample_pairs(loadings, m, rng), r)
        X = rng.standard_normal((n, d))
        y = X @ best + float(first.size["noise"]) * rng.standard_normal(n)
        for arm, found in risks.items():
            own = np.random.default_rng([first.seed, repeat, *map(ord, arm)])
            if arm in SUPERVISED:
                predictor = SUPERVISED[arm](X, y, r, own)
            else:
                features = {
                    "two-stage": fitted,
                    "oracle": loadings,
                    "random-projection": own.standard_normal((d, r)),
                }[arm]
                predictor = fit_two_stage(features, Moments.of(X, y))
            found.append(float(((predictor - best) ** 2).sum()))
    return [{"risk": float(np.mean(risks[trial.arm]))} for trial in trials]


@derive("contrastive")
def contrastive_advantage(seed: Table) -> dict[str, float]:
    """log2 advantage over the best tuned baseline, by the number of pairs."""
    return {f"log2_{m}": log2_advantage(seed, "two-stage", TUNED, "risk", m=m) for m in (5000, 50000)}


@measure("not-informative")
def not_informative(trials: list[Trial]) -> list[dict[str, float]]:
    return factor_risks(trials, hidden=True)


@measure("few-labels-on-a-table")
def few_labels_on_a_table(trials: list[Trial]) -> list[dict[str, float]]:
    """Test risk of a linear predictor on frozen features and of tuned learners on the columns of a table."""
    first = trials[0]
    table = first.subject["table"]
    X = raw_columns(table)
    y, task = targets(table)
    if "encoder" in first.subject:
        features = checked_features(first.subject["encoder"](X), len(X))
    else:
        features = fit_factors(X)(X)
    budget = int(first.point["n"])
    if budget + len(X) * 3 // 10 > len(X):
        raise NotApplicable(f"{budget} labels of {len(X)} rows leave too few to test on")
    names = [trial.arm for trial in trials if trial.arm not in ("two-stage", "shuffled-features")]
    found = compare(
        features,
        X,
        y,
        task=task,
        budgets=[budget],
        repeats=int(first.size["repeats"]),
        learners=names,
        seed=first.seed,
    )
    risks = {curve.name: float(curve.mean[0]) for curve in (found.two_stage, *found.supervised)}
    if any(trial.arm == "shuffled-features" for trial in trials):
        rng = np.random.default_rng([first.seed, 7])
        shuffled = compare(
            rng.permuted(features, axis=0),
            X,
            y,
            task=task,
            budgets=[budget],
            repeats=int(first.size["repeats"]),
            learners=[],
            seed=first.seed,
        )
        risks["shuffled-features"] = float(shuffled.two_stage.mean[0])
    return [{"risk": risks[trial.arm]} for trial in trials]


@derive("few-labels-on-a-table")
def table_advantage(seed: Table) -> dict[str, float]:
    rivals = ("linear", "k-nearest", "rbf-svm", "mlp", "forest")
    return {"log2_advantage": log2_advantage(seed, "two-stage", rivals, "risk", 1e-3)}
