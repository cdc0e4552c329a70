"""How the Rashomon ratio's claims (arXiv 1908.01755) are measured. What is claimed and how it is judged: paper.toml."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from claimbench.errors import NotApplicable, UserError
from claimbench.papers.theory.rashomon.bounds import (
    least_training_losses,
    simple_class_interval,
    stump_mistakes,
)
from claimbench.papers.theory.rashomon.curve import (
    accuracies_by_depth,
    cross_validated_depth,
    distances,
    rashomon_curve,
)
from claimbench.papers.theory.rashomon.depth_two import DepthTwo, depth_two_class, sub_class_size
from claimbench.papers.theory.rashomon.learners import agreement
from claimbench.papers.theory.rashomon.problems import MOST_ROWS, Problem, load_problem, problem_of
from claimbench.papers.theory.rashomon.ridge import log_rashomon_volume, sampled_log_volume
from claimbench.papers.theory.rashomon.splits import all_splits, quantile_splits
from claimbench.papers.theory.rashomon.volume import (
    Sampling,
    best_tree_errors,
    rashomon_ratio,
    structure_ratio,
)
from claimbench.trial import Table, Trial, derive, measure

TRAINING_SHARE = 0.7  # of each class' rows
FLOOR = -300.0  # log10 of a ratio that no sampled tree could tell: below all that are known


def problem_at(trial: Trial) -> Problem:
    """The point's problem, or the user's own table whatever the point: then points differ in the rows they draw."""
    if "table" not in trial.subject:
        return load_problem(str(trial.point["data"]), trial.seed)
    found = problem_of(trial.subject["table"])
    rng = np.random.default_rng([trial.seed, *map(ord, str(trial.point["data"]))])
    return found.take(np.sort(rng.permutation(len(found.y))[:MOST_ROWS]))


def halves_at(trial: Trial) -> tuple[Problem, Problem]:
    """Training and test rows of this seed. A class that has no training row is no problem of its own."""
    words = map(ord, str(trial.point["data"]))
    return problem_at(trial).halves(TRAINING_SHARE, np.random.default_rng([trial.seed, 1, *words]))


# ---- claim 1: a simple class that holds a good model ----


@measure("simple-class-exists")
def simple_class_exists(trials: list[Trial]) -> list[dict[str, float]]:
    """Random sub-classes of all trees of depth 2, of the sizes at which the theorem promises a member."""
    drawn: dict[tuple[str, int, str], tuple[DepthTwo, np.ndarray]] = {}
    found = []
    for trial in trials:
        key = (str(trial.point["data"]), trial.seed, trial.arm)
        if key not in drawn:
            drawn[key] = _growing_classes(trial)
        found.append(_promise(trial, *drawn[key]))
    return found


def _growing_classes(trial: Trial) -> tuple[DepthTwo, np.ndarray]:
    train, _ = halves_at(trial)
    rng = np.random.default_rng([trial.seed, 2])
    y = rng.permutation(train.y) if trial.arm == "permuted-labels" else train.y
    trees = depth_two_class(train.X, y, int(trial.size["thresholds"]))
    return trees, trees.first_hits(int(trial.size["draws"]), float(trial.size["theta"]), rng)


def _promise(trial: Trial, trees: DepthTwo, first: np.ndarray) -> dict[str, float]:
    theta, failure = float(trial.size["theta"]), float(trial.point["failure"])
    ratio = trees.ratio(theta)
    size = sub_class_size(ratio, failure)
    chance, hit = trees.chance(size, theta), float((first <= size).mean())
    budget = trees.best + math.floor(theta * trees.rows + 1e-9)
    splits, classes = len(trees.splits), trees.classes
    stumps = float(trees.least_with_one_split() <= budget)
    tables = float(trees.least_with_two_splits() <= budget)
    return {
        "hit": hit,
        "deviation": hit - chance,
        "margin": chance - (1 - failure),
        "log10_ratio": math.log10(ratio),
        "sub_class": float(size),
        "stump_hit": stumps,
        "stump_advantage": stumps - trees.chance(splits * classes**2, theta),
        "table_hit": tables,
        "table_advantage": tables - trees.chance(splits**2 * classes**4, theta),
    }


@derive("simple-class-exists")
def structured(seed: Table) -> dict[str, float]:
    """On how many data sets a structured class holds a member at least as surely as a random one of its size."""
    rows = {str(row.point["data"]): row.metrics for row in seed.where(arm="random-class")}
    return {
        "stump_sets": float(np.mean([metrics["stump_advantage"] >= 0 for metrics in rows.values()])),
        "table_sets": float(np.mean([metrics["table_advantage"] >= 0 for metrics in rows.values()])),
    }


@measure("simple-class-bounds")
def simple_class_bounds(trial: Trial) -> dict[str, float]:
    """How often the training loss of the best stump lies between the theorem's two ends, the rows being the
    population.
    """
    problem = problem_at(trial)
    splits = quantile_splits(problem.X, int(trial.size["thresholds"]))
    mistakes = stump_mistakes(splits, problem.y)
    risk = DepthTwo.of(splits, problem.y).best / len(problem.y)
    gamma = float(mistakes.mean(axis=1).min()) - risk
    n, eps = int(trial.point["n"]), float(trial.size["failure"])
    low, high = simple_class_interval(risk, gamma, len(mistakes), n, eps)
    losses = least_training_losses(
        mistakes, n, int(trial.size["draws"]), np.random.default_rng([trial.seed, 3])
    )
    return {
        "coverage": float(((low <= losses) & (losses <= high)).mean()),
        "width": high - low,
        "used": float(np.quantile(losses, 0.95) - np.quantile(losses, 0.05)) / (high - low),
        "gamma": gamma,
    }


# ---- claim 2: ridge regression ----


@measure("ridge-volume")
def ridge_volume(trial: Trial) -> dict[str, float]:
    """The volume of the Rashomon set of ridge regression, by the formula or by sampling models."""
    p, n = int(trial.point["p"]), int(trial.point["n"])
    rng = np.random.default_rng([trial.seed, p, n])
    X, y = _regression(trial, p, n, rng)
    theta, C = float(trial.size["theta"]), float(trial.size["C"])
    match trial.arm:
        case "closed-form":
            log_volume = log_rashomon_volume(X, theta, C)
        case "monte-carlo":
            log_volume = sampled_log_volume(X, y, theta, int(trial.size["draws"]), rng, C)
        case "mean-loss":
            # theta of the loss per row is n theta of the sum, with the penalty per row as well.
            log_volume = log_rashomon_volume(X, n * theta, n * C)
        case _:
            raise UserError(f"ridge-volume has no arm {trial.arm}")
    return {"volume": math.exp(log_volume)}


def _regression(
    trial: Trial, p: int, n: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, " n"]]:
    """Rows of a correlated normal distribution that is the seed's, or of the user's table, standardised."""
    if "table" in trial.subject:
        table = trial.subject["table"]
        columns = table.numeric[~np.isnan(table.numeric).any(axis=1)]
        columns = columns[:, columns.std(axis=0) > 0] if len(columns) else columns
        if columns.shape[1] < p:
            raise NotApplicable(f"the table has {columns.shape[1]} numeric columns that vary; {p} are needed")
        columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
        X = columns[rng.integers(len(columns), size=n), :p]
    else:
        mixing = np.eye(p) + 0.3 * np.random.default_rng([trial.seed, p]).standard_normal((p, p))
        X = rng.standard_normal((n, p)) @ mixing
    return X, X @ np.ones(p) + rng.standard_normal(n)


# ---- claim 3: do learners that agree mean a large ratio? ----


def sampling_of(trial: Trial) -> Sampling:
    """The sizes of a scale as the sampler's."""
    return Sampling(
        branches=tuple(trial.size["branches"]),
        candidates=int(trial.size["candidates"]),
        tilts=tuple(trial.size["tilts"]),
        passes=int(trial.size["passes"]),
    )


@measure("agreement-signals-ratio")
def agreement_signals_ratio(trials: list[Trial]) -> list[dict[str, float]]:
    """How far five tuned learners end apart, and each arm's score of how well they should agree."""
    first = trials[0]
    train, test = halves_at(first)
    ended = agreement(train, test, first.seed)
    depth = int(first.size["depth"])
    splits, best = all_splits(train.X), best_tree_errors(train.X, train.y, depth)
    found = rashomon_ratio(
        train.X,
        train.y,
        depth=depth,
        theta=float(first.size["theta"]),
        sampling=sampling_of(first),
        seed=first.seed,
        splits=splits,
        best=best,
    )
    best = found.best
    same = {"spread": ended.spread, "gap": ended.gap, "lift": ended.lift}
    scores = {
        "ratio": lambda: found.log10,
        "structures": lambda: (
            structure_ratio(
                train.X,
                train.y,
                depth=depth,
                theta=float(first.size["theta"]),
                structures=int(first.size["structures"]),
                seed=first.seed,
                splits=splits,
                best=best,
            ).log10
        ),
        "depth-two-ratio": lambda: math.log10(
            depth_two_class(train.X, train.y, int(first.size["thresholds"])).ratio(float(first.size["theta"]))
        ),
        "rows": lambda: float(len(train.y)),
        "columns": lambda: -float(train.X.shape[1]),
        "imbalance": lambda: train.majority,
        "best-accuracy": lambda: 1 - best / len(train.y),
        "noise": lambda: -_noise(train, first.seed),
    }
    return [{"score": max(FLOOR, float(scores[trial.arm]())), **same} for trial in trials]


def _noise(train: Problem, seed: int) -> float:
    """Cross-validated error of a random forest: what is left to noise."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import KFold, cross_val_score

    forest = RandomForestClassifier(30, random_state=seed)
    folds = KFold(3, shuffle=True, random_state=seed)
    return 1 - float(cross_val_score(forest, np.nan_to_num(train.X), train.y, cv=folds).mean())


@derive("agreement-signals-ratio")
def signals(seed: Table) -> dict[str, float]:
    """Rank correlations over data sets of each arm's score with the spread; how the third with the largest ratios
    does.

    `spearman_high` is the upper 97.5 % point when whole parents (data sets with common rows) are drawn with
    repetition.
    """
    spread = seed.series("spread", along="data", arm="ratio")
    gap = seed.series("gap", along="data", arm="ratio")
    names = list(spread)
    scores = {row.arm: seed.series("score", along="data", arm=row.arm) for row in seed}
    ratio = np.array([scores["ratio"][name] for name in names])
    wide = np.array([spread[name] for name in names])
    third = np.argsort(-ratio, kind="stable")[: max(1, len(names) // 3)]
    parents = np.unique([name.split("+")[0].split("-")[0] for name in names], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(parents == parent) for parent in range(parents.max() + 1)]
    drawn = [
        np.concatenate([members[parent] for parent in rng.integers(len(members), size=len(members))])
        for _ in range(400)
    ]
    return {
        "spearman": correlation(ratio, wide),
        "spearman_high": float(np.quantile([correlation(ratio[rows], wide[rows]) for rows in drawn], 0.975)),
        "gap_spearman": correlation(ratio, np.array([gap[name] for name in names])),
        "close_third": float((wide[third] <= 0.05).mean()),
        "close_all": float((wide <= 0.05).mean()),
        **{
            f"spearman_{arm.replace('-', '_')}": correlation(np.array([score[name] for name in names]), wide)
            for arm, score in scores.items()
            if arm != "ratio"
        },
    }


def correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Spearman's; 0 where one of them is the same everywhere, which orders nothing."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(spearmanr(x, y).statistic)


# ---- claim 4: the curve's elbow ----


@measure("gamma-curve")
def gamma_curve(trials: list[Trial]) -> list[dict[str, float]]:
    """Choose the depth of a tree by each arm; what it loses on test rows against the best depth."""
    first = trials[0]
    train, test = halves_at(first)
    depths = list(range(1, int(first.size["depth"]) + 1))
    curve = rashomon_curve(
        train, depths, theta=float(first.size["theta"]), sampling=sampling_of(first), seed=first.seed
    )
    accuracy = accuracies_by_depth(train, test, depths, first.seed)
    # Minus the number of leaves stands for the log-ratio: it knows the class and nothing of the data.
    leaves = -(2.0 ** np.array(depths))
    by_leaves = distances(leaves, curve.risk)
    choices = {
        "ratio-elbow": lambda: curve.elbow,
        "leaves-elbow": lambda: depths[int(np.argmax(by_leaves))],
        "cross-validation": lambda: cross_validated_depth(train.X, train.y, depths, first.seed),
        "least-training-risk": lambda: depths[int(np.argmin(curve.risk))],
        "deepest": lambda: depths[-1],
    }
    found = []
    for trial in trials:
        depth = choices[trial.arm]()
        found.append(
            {
                "loss": float(accuracy.max() - accuracy[depths.index(depth)]),
                "depth": float(depth),
                "gamma": float(by_leaves.max()) if trial.arm == "leaves-elbow" else curve.gamma,
                "known": float(np.isfinite(curve.log10_ratio).mean()),
            }
        )
    return found


@derive("gamma-curve")
def near_the_best(seed: Table) -> dict[str, float]:
    """Share of data sets on which each arm's depth is within two accuracy points of the best."""
    shares = {}
    for arm in dict.fromkeys(row.arm for row in seed):
        losses = list(seed.series("loss", along="data", arm=arm).values())
        shares["near_" + arm.replace("-", "_")] = float(np.mean(np.array(losses) <= 0.02 + 1e-12))
    return shares
