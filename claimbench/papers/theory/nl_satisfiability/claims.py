"""How the claims of natural-language satisfiability (arXiv 2112.09054) are measured. What is claimed: paper.toml."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from claimbench.errors import UserError
from claimbench.papers.theory.nl_satisfiability.formulas import clauses_of, joined, random_formulas
from claimbench.papers.theory.nl_satisfiability.predictors import (
    PREDICTORS,
    balanced_accuracy,
    gradient_boosting,
)
from claimbench.papers.theory.nl_satisfiability.samples import (
    Balance,
    Sample,
    hard_sample,
    mixed,
    naive_sample,
    without,
)
from claimbench.papers.theory.nl_satisfiability.solvers import SMALL, cdcl_effort, dpll_effort
from claimbench.trial import Table, Trial, derive, measure

THRESHOLD = (
    4.267  # clauses per variable at which random 3SAT turns, for many variables; of random 2SAT it is 1
)


# ---- claim 1: where formulas are hard ----


@measure("hard-region")
def hard_region(trial: Trial) -> dict[str, float]:
    """Median effort of a complete solver on random formulas, and the share that is satisfiable."""
    n, count = int(trial.point["n"]), int(trial.size["formulas"])
    clauses_per_variable = float(trial.point["alpha"])
    if trial.arm == "2sat":  # as far from its own threshold, as a multiple of it
        clauses_per_variable /= THRESHOLD
    m = max(1, round(clauses_per_variable * n))
    rng = np.random.default_rng([trial.seed, n, m])
    formulas = random_formulas(n, m, count, rng, share_of_three=float(trial.arm == "3sat"))
    solved = [
        dpll_effort(clauses_of(formula), n) if n <= SMALL else cdcl_effort(clauses_of(formula))
        for formula in formulas
    ]
    efforts = [found.decisions if n <= SMALL else found.conflicts for found in solved]
    return {
        # One is added so that formulas that need no search stand on a log scale.
        "effort": 1.0 + float(np.mean(efforts) if n <= SMALL else np.median(efforts)),
        "decisions": 1.0 + float(np.mean([found.decisions for found in solved])),
        "satisfiable": float(np.mean([found.satisfiable for found in solved])),
    }


@derive("hard-region")
def hardness(seed: Table) -> dict[str, float]:
    """Where effort peaks and how steeply it falls, at large n (CDCL) and at small n (plain DPLL); how fast the
    transition narrows; and which share of naive formulas lies near the crossing at n = 8 (at the smallest n, if 8 is
    not measured).
    """
    sizes = sorted({int(row.point["n"]) for row in seed})
    large, small = [n for n in sizes if n > SMALL], [n for n in sizes if n <= SMALL]
    if not large or not small:
        raise LookupError(f"hardness needs variables on both sides of {SMALL}")
    curves = {n: _curve(seed, n) for n in sizes}
    widths = {n: curves[n][4] for n in sizes}
    naive = curves[8 if 8 in sizes else small[0]][0]
    near = max(0.0, min(12.4, naive + 0.7) - max(1.0, naive - 0.7)) / 11.4
    return {
        "peak_offset": max(abs(curves[n][1] - curves[n][0]) for n in large),
        "rise": min(curves[n][2] for n in large),
        "fall": min(curves[n][3] for n in large),
        "small_peak_offset": max(abs(curves[n][1] - curves[n][0]) for n in small),
        "small_rise": min(curves[n][2] for n in small),
        "small_fall": min(curves[n][3] for n in small),
        "narrowing": float(np.polyfit(np.log(sizes), np.log([widths[n] for n in sizes]), 1)[0]),
        "crossing_small": curves[small[0]][0],
        "crossing_large": curves[large[-1]][0],
        "naive_near": near,
    }


def _curve(seed: Table, n: int) -> tuple[float, float, float, float, float]:
    """Crossing, peak, effort at the peak over that at the smallest and at the largest alpha, and the width of the
    transition from 80 % to 20 % satisfiable.
    """
    effort = seed.series("effort", along="alpha", arm="3sat", n=n)
    share = seed.series("satisfiable", along="alpha", arm="3sat", n=n)
    alphas = np.array([float(value) for value in effort])
    found = np.array(list(effort.values()))
    top = int(np.argmax(found))
    shares = np.array(list(share.values()))
    width = crossing(alphas, shares, 0.2) - crossing(alphas, shares, 0.8)
    grid = float(np.diff(alphas).min())  # nothing narrower can be seen
    return (
        crossing(alphas, shares, 0.5),
        float(alphas[top]),
        float(found[top] / found[0]),
        float(found[top] / found[-1]),
        max(width, grid / 2),
    )


def crossing(
    alphas: Float[np.ndarray, " points"], shares: Float[np.ndarray, " points"], level: float
) -> float:
    """Where shares that fall with alpha cross a level, between points by a straight line; an end if they never do.

    Shares that rise by chance are made to fall (isotonic regression).
    """
    from sklearn.isotonic import IsotonicRegression

    smooth = IsotonicRegression(increasing=False).fit_transform(alphas, shares)
    below = np.flatnonzero(smooth <= level)
    if not len(below):
        return float(alphas[-1])
    last = int(below[0])
    if last == 0:
        return float(alphas[0])
    high, low = smooth[last - 1], smooth[last]
    return float(alphas[last - 1] + (high - level) / (high - low) * (alphas[last] - alphas[last - 1]))


# ---- samples ----


def draw(trial: Trial, sampling: str, n: int, count: int, purpose: int) -> Sample:
    """A sample of this seed. purpose: apart for training (0) and testing (1)."""
    rng = np.random.default_rng([trial.seed, n, purpose, *map(ord, sampling)])
    match sampling:
        case "naive":
            return naive_sample(n, count, rng)
        case "hard" | "hard-global":
            balance: Balance = "cell" if sampling == "hard" else "global"
            window = list(range(36, 47)) if n == 8 else None  # the brief's; measured for other n
            return hard_sample(n, count, rng, window, balance=balance)
        case _:
            raise UserError(f'no sampling "{sampling}"; there are naive, hard and hard-global')


def scores(predicted: np.ndarray, test: Sample) -> dict[str, float]:
    """Balanced accuracy, and accuracy above always saying the more frequent label (0: no better, 1: perfect)."""
    accuracy = float((predicted == test.labels).mean())
    return {
        "accuracy": balanced_accuracy(predicted, test.labels),
        "above_majority": (accuracy - test.majority) / (1 - test.majority),
    }


# ---- claim 2: shallow predictors on naive and on hard samples ----


@measure("naive-sampling-inflates")
def naive_sampling_inflates(trials: list[Trial]) -> list[dict[str, float]]:
    """Each predictor, trained and tested under one sampling."""
    first = trials[0]
    n, train_size = int(first.size["n"]), int(first.size["train"])
    whole = draw(first, str(first.point["sampling"]), n, train_size + int(first.size["tests"]), 0)
    train, test = whole.split(train_size)
    return [{**scores(_predicted(trial, train, test), test), "majority": test.majority} for trial in trials]


def _predicted(trial: Trial, train: Sample, test: Sample) -> np.ndarray:
    if trial.arm in PREDICTORS:
        return PREDICTORS[trial.arm](train, test, trial.seed)
    if trial.arm == "transformer":
        return _trained_transformer(trial, train, [test])[0]
    return text_predictions(trial.subject["classifier"], train, test)


def text_predictions(classifier: object, train: Sample, test: Sample) -> np.ndarray:
    """Labels by a function of theories in the grounded rule language. Raises UserError for answers of another shape."""
    if not callable(classifier):
        raise UserError("classifier: a function of (theories, labels, test theories) is needed")
    found = np.asarray(classifier(train.theories(), train.labels, test.theories()))
    if found.shape != test.labels.shape or not np.isin(found, (0, 1)).all():
        wanted = f"{len(test)} labels, each true or false"
        raise UserError(f"classifier: it must return {wanted}; its answer has shape {list(found.shape)}")
    return found.astype(bool)


def _trained_transformer(trial: Trial, train: Sample, tests: list[Sample]) -> list[np.ndarray]:
    from claimbench.papers.theory.nl_satisfiability.transformer import predict, train_encoder

    model = train_encoder(
        train,
        variables=max(train.n, *(test.n for test in tests)),
        clauses=max(train.formulas.shape[1], *(test.formulas.shape[1] for test in tests)),
        steps=int(trial.size["steps"]),
        batch=int(trial.size["batch"]),
        learning_rate=float(trial.size["learning_rate"]),
        layers=int(trial.size["layers"]),
        width=int(trial.size["width"]),
        heads=int(trial.size["heads"]),
        seed=trial.seed,
        device=trial.device,
    )
    return [predict(model, test) for test in tests]


@derive("naive-sampling-inflates")
def inflation(seed: Table) -> dict[str, float]:
    """What each shallow predictor loses from naive to hard samples, the smallest loss and the best that is left."""
    naive = {row.arm: row.metrics["accuracy"] for row in seed.where(sampling="naive")}
    hard = {row.arm: row.metrics["accuracy"] for row in seed.where(sampling="hard")}
    shallow = [arm for arm in naive if arm != "transformer"]
    return {
        "smallest_drop": min(naive[arm] - hard[arm] for arm in shallow),
        "best_on_hard": max(hard[arm] for arm in shallow),
    }


# ---- claim 3: what to train on ----


@measure("sampling-of-training-data")
def sampling_of_training_data(trial: Trial) -> dict[str, float]:
    """Train on one sampling, test on another; training and test formulas are disjoint."""
    n, count = int(trial.point["n"]), int(trial.size["train"])
    test = draw(trial, str(trial.point["test"]), n, int(trial.size["tests"]), 1)
    sampling = trial.arm.removeprefix("train-")
    if sampling == "mixed":
        naive, hard = (draw(trial, kind, n, count, 0) for kind in ("naive", "hard"))
        train = mixed(naive, hard, np.random.default_rng([trial.seed, 5]))
    else:
        train = draw(trial, sampling, n, count, 0)
    train = without(train, test)
    if trial.size["model"] == "transformer":
        found = _trained_transformer(trial, train, [test])[0]
    elif trial.size["model"] == "classifier":
        found = text_predictions(trial.subject["classifier"], train, test)
    else:
        found = gradient_boosting(train, test, trial.seed)
    return scores(found, test)


# ---- claim 4: more variables than in training ----


@measure("limited-scale-invariance")
def limited_scale_invariance(trials: list[Trial]) -> list[dict[str, float]]:
    """Train on hard formulas of at most 8 variables, test on hard formulas of each n, all at once."""
    first = trials[0]
    sizes = [int(n) for n in first.size["train_n"]]
    each = int(first.size["train"]) // len(sizes)
    tests = [draw(trial, "hard", int(trial.point["n"]), int(trial.size["tests"]), 1) for trial in trials]
    parts = [draw(first, "hard", n, each, 0) for n in sizes]
    order = np.random.default_rng([first.seed, 6]).permutation(sum(map(len, parts)))
    train = Sample(
        joined([part.formulas for part in parts])[order],
        np.concatenate([part.labels for part in parts])[order],
        max(sizes),
    )
    for test in tests:
        train = without(train, test)
    if first.arm == "transformer":
        found = _trained_transformer(first, train, tests)
    else:
        found = [gradient_boosting(train, test, first.seed) for test in tests]
    return [scores(predicted, test) for predicted, test in zip(found, tests, strict=True)]


@derive("limited-scale-invariance")
def scale_steps(seed: Table) -> dict[str, float]:
    """How accuracy falls beyond the largest n in training (8), and what is left above the shallow predictor."""
    accuracy = seed.series("accuracy", along="n", arm="transformer")
    shallow = seed.series("accuracy", along="n", arm="gradient-boosting")
    beyond = [accuracy[n] for n in sorted(accuracy) if n >= 8]
    last = max(accuracy)
    return {
        "largest_rise": max((b - a for a, b in pairwise(beyond)), default=0.0),
        "loss_at_last": accuracy[8] - accuracy[last],
        "above_shallow": accuracy[last] - shallow[last],
    }
