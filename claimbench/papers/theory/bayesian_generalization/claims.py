"""How the claims of "On the Complexity of Bayesian Generalization" (arXiv 2211.11033) are measured.

Attributes are ordered and heads are fitted on training images; lengths of descriptions and accuracies are of others.
"""

from __future__ import annotations

import numpy as np

from claimbench.errors import UserError
from claimbench.papers.theory.bayesian_generalization.attributes import (
    ORDERINGS,
    Orders,
    attribute_scores,
    descending,
    description_entropy,
)
from claimbench.papers.theory.bayesian_generalization.complexity import (
    accuracy_curves,
    balanced_curves,
    greedy_orders,
    subjective_complexity,
)
from claimbench.papers.theory.bayesian_generalization.episodes import (
    MODES,
    Base,
    concept_accuracy,
    draw_episodes,
)
from claimbench.papers.theory.bayesian_generalization.setup import (
    build_episodes_pools,
    build_recognition,
    loaded,
    network_of,
    shape_of,
    subject_of,
)
from claimbench.trial import Table, Trial, derive, measure

RANDOM_ORDERS = 5


def _recognition(trial: Trial, data: str, target: float) -> dict[str, np.ndarray]:
    folder = trial.shared(
        build_recognition,
        data=data,
        images=subject_of(trial, "images") if data == "images" else None,
        encoder=subject_of(trial, "encoder"),
        shape=shape_of(trial),
        network=network_of(trial),
        target=target,
    )
    return loaded(folder, "recognition.npz")


def _orders(arm: str, found: dict[str, np.ndarray], seed: int) -> list[Orders]:
    """The orders of attributes that an arm stands for: one, or several drawn at random."""
    weight, labels, average = found["weight"], found["labels"], found["average"]
    if arm == "random":
        rng = np.random.default_rng(seed)
        return [np.argsort(rng.random(weight.shape), axis=1) for _ in range(RANDOM_ORDERS)]
    if arm == "greedy":
        return [greedy_orders(average, labels, weight, found["bias"])]
    if arm not in ORDERINGS:
        raise UserError(f'no ordering "{arm}"; there are random, greedy, {", ".join(ORDERINGS)}')
    scores = attribute_scores(found["maximum"], labels, len(weight))
    return [descending(ORDERINGS[arm](scores, average, labels, weight))]


def _lengths(trial: Trial, ordering: str, found: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over concepts, and over orders where there are several."""
    average, labels, weight, bias = (
        found[name] for name in ("test_average", "test_labels", "weight", "bias")
    )
    threshold, stay = float(trial.size["threshold"]), int(trial.size["stay"])
    rows = []
    for orders in _orders(ordering, found, trial.seed):
        curves = accuracy_curves(average, labels, orders, weight, bias)
        filled = accuracy_curves(average, labels, orders, weight, bias, fill=found["average"].mean(axis=0))
        lengths = subjective_complexity(curves, threshold=threshold, stay=stay)
        first = subjective_complexity(curves, threshold=threshold, stay=0)
        balanced = balanced_curves(average, labels, orders, weight, bias)
        telling = subjective_complexity(balanced, threshold=threshold, stay=stay)
        filled_lengths = subjective_complexity(filled, threshold=threshold, stay=stay)
        rows.append(
            [part.mean() for part in (lengths, curves[:, 1:], filled_lengths, first, telling, curves[:, -1])]
        )
    names = ("attributes", "area", "mean_filled", "first_crossing", "balanced", "accuracy")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


@measure("roa-shortest-description")
def shortest_description(trial: Trial) -> dict[str, float]:
    """Mean number of attributes until a concept is recognised, in the arm's order."""
    found = _recognition(trial, str(trial.point["data"]), 1.0)
    return _lengths(trial, trial.arm, found)


# Arms of the ladder: the ordering, and whether training stops at the common accuracy.
LADDER_ARMS = {
    "roa-matched": ("roa", True),
    "roa-trained": ("roa", False),
    "weight-activation-matched": ("weight-activation", True),
    "random-matched": ("random", True),
}


@measure("inverted-u")
def inverted_u(trial: Trial) -> dict[str, float]:
    """Mean length of a family's descriptions, and the family's visual entropy."""
    ordering, matched = LADDER_ARMS[trial.arm]
    found = _recognition(trial, str(trial.point["family"]), float(trial.size["target"]) if matched else 1.0)
    lengths = _lengths(trial, ordering, found)
    scores = attribute_scores(found["maximum"], found["labels"], len(found["weight"]))
    return {
        "attributes": lengths["attributes"],
        "balanced": lengths["balanced"],
        "accuracy": lengths["accuracy"],
        "entropy": float(found["entropy"]),
        "entropy_length": float(description_entropy(scores).mean()),
        "epochs": float(found["epochs"]),
    }


@derive("inverted-u")
def shape_of_ladder(seed: Table) -> dict[str, float]:
    """A quadratic through the families, and a line through each half of them, over entropy scaled to 0..1."""
    method = "roa-matched"
    entropy = seed.series("entropy", along="family", arm=method)
    if len(entropy) < 4:
        raise LookupError("a quadratic and two lines need four families or more")
    bits = np.array(list(entropy.values()))
    x = (bits - bits.min()) / (bits.max() - bits.min())
    order = np.argsort(x)

    def curve(metric: str, arm: str = method) -> np.ndarray:
        values = seed.series(metric, along="family", arm=arm)
        return np.array([values[family] for family in entropy])

    def quadratic(values: np.ndarray) -> np.ndarray:
        return np.polyfit(x, values, 2)

    own, accuracy = curve("attributes"), curve("accuracy")
    fit = quadratic(own)
    grid = np.linspace(0, 1, 201)
    half = len(order) // 2
    low, high = order[: len(order) - half], order[half:]
    return {
        "quadratic": float(fit[0]),
        "peak": float(grid[np.polyval(fit, grid).argmax()]),
        "rise": float(np.polyfit(x[low], own[low], 1)[0]),
        "fall": float(np.polyfit(x[high], own[high], 1)[0]),
        "accuracy_range": float(accuracy.max() - accuracy.min()),
        "quadratic_unmatched": float(quadratic(curve("attributes", "roa-trained"))[0]),
        "quadratic_weight_activation": float(quadratic(curve("attributes", "weight-activation-matched"))[0]),
        "quadratic_balanced": float(quadratic(curve("balanced"))[0]),
        "quadratic_random": float(quadratic(curve("attributes", "random-matched"))[0]),
        "quadratic_entropy_length": float(quadratic(curve("entropy_length"))[0]),
        "quadratic_epochs": float(quadratic(curve("epochs"))[0]),
    }


@measure("mode-shift")
def mode_shift(trial: Trial) -> dict[str, float]:
    """Few-shot accuracy on new concepts in one mode, and apart for those with long and with short descriptions."""
    size = trial.size
    pools = loaded(
        trial.shared(
            build_episodes_pools,
            images=subject_of(trial, "images"),
            encoder=subject_of(trial, "encoder"),
            shape=shape_of(trial),
            network=network_of(trial),
        ),
        "pools.npz",
    )
    mode, settings = MODES[trial.arm]
    base_labels = pools["base_labels"]
    scores = attribute_scores(pools["base_maximum"], base_labels, int(base_labels.max()) + 1)
    base = Base(pools["base_maximum"], pools["base_average"], scores)
    pool = "spare" if trial.tuning else "new"
    labels = pools[f"{pool}_labels"]
    shots = int(trial.point["shots"])
    episodes = draw_episodes(
        labels,
        ways=size["ways"],
        shots=shots,
        queries=size["queries"],
        count=size["episodes"],
        seed=[trial.seed, shots],
    )
    accuracy = concept_accuracy(
        mode,
        episodes,
        pools[f"{pool}_maximum"],
        pools[f"{pool}_average"],
        base,
        settings[int(trial.tuned("setting"))],
    )
    concepts = np.array(sorted(accuracy))
    found = np.array([accuracy[concept] for concept in concepts.tolist()])
    if trial.tuning:  # base concepts: no description is measured
        return dict.fromkeys(HALVES, float(found.mean()))
    learnt, average = pools["learnt_labels"], pools["learnt_average"]
    weight, bias = pools["learnt_weight"], pools["learnt_bias"]
    own = attribute_scores(pools["learnt_maximum"], learnt, len(weight))
    orders = descending(ORDERINGS["roa"](own, average, learnt, weight))
    curves = accuracy_curves(average, learnt, orders, weight, bias)
    length = subjective_complexity(curves, threshold=float(size["threshold"]), stay=int(size["stay"]))
    # Equally long descriptions are told apart by the area under their curves: slower recognition counts as longer.
    by_length = np.lexsort((-curves.mean(axis=1), length))
    by_entropy = np.argsort(description_entropy(own), kind="stable")
    separation = _separation(average, learnt)
    by_difficulty = np.argsort(-separation, kind="stable")

    def half(ranking: np.ndarray, long: bool) -> float:
        chosen = ranking[len(ranking) // 2 :] if long else ranking[: len(ranking) // 2]
        return float(found[np.isin(concepts, chosen)].mean())

    return {
        "accuracy": float(found.mean()),
        "long": half(by_length, True),
        "short": half(by_length, False),
        "high_entropy": half(by_entropy, True),
        "low_entropy": half(by_entropy, False),
        "hard": half(by_difficulty, True),
        "easy": half(by_difficulty, False),
        "attributes": float(length.mean()),
    }


HALVES = ("accuracy", "long", "short", "high_entropy", "low_entropy", "hard", "easy", "attributes")


def _separation(average: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How far each concept's mean lies from the nearest other one's, over the spread within concepts: ease."""
    concepts = int(labels.max()) + 1
    means = np.stack([average[labels == concept].mean(axis=0) for concept in range(concepts)])
    within = np.sqrt(np.mean([average[labels == concept].var(axis=0).sum() for concept in range(concepts)]))
    apart = np.linalg.norm(means[:, None] - means, axis=2)
    np.fill_diagonal(apart, np.inf)
    return apart.min(axis=1) / max(float(within), 1e-12)


@derive("mode-shift")
def interaction(seed: Table) -> dict[str, float]:
    """Contrasts of accuracies, averaged over the numbers of examples."""

    def mean(metric: str, arm: str) -> float:
        values = list(seed.series(metric, along="shots", arm=arm).values())
        if not values:
            raise LookupError(f"no {metric} of {arm}")
        return float(np.mean(values))

    def contrast(high: str, low: str, first: str = "rules", second: str = "similarity") -> float:
        return mean(high, first) - mean(low, first) - mean(high, second) + mean(low, second)

    return {
        "interaction": contrast("long", "short"),
        "rules_long_over_short": mean("long", "rules") - mean("short", "rules"),
        "similarity_short_over_long": mean("short", "similarity") - mean("long", "similarity"),
        "interaction_by_entropy": contrast("high_entropy", "low_entropy"),
        "interaction_by_difficulty": contrast("hard", "easy"),
        "interaction_with_probe": contrast("long", "short", second="linear-probe"),
    }
