"""How the claims of EvoPress (arXiv 2410.14649) are measured. What is claimed and how it is judged stands in
paper.toml.

Searches see calibration text (a share of the text's validation split); every number that a rule judges comes
from held-out text (a share of its test split). Shares are disjoint between seeds. The model is one and the
same for all seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast, get_args

import numpy as np
from scipy.stats import spearmanr

from claimbench.papers.compression.evopress import linear
from claimbench.papers.compression.evopress.baselines import (
    dynamic_programme,
    flip_and_repair,
    greedy_removal,
    random_search,
    random_selections,
)
from claimbench.papers.compression.evopress.database import (
    WeightDatabase,
    bits_database,
    owl_profile,
    sparsity_database,
    start_bits,
)
from claimbench.papers.compression.evopress.depth import MLP_GROUP
from claimbench.papers.compression.evopress.fitness import Calibration, Judge
from claimbench.papers.compression.evopress.scores import Score, score_profile
from claimbench.papers.compression.evopress.search import Generation, Outcome, Profile, Stage, evolve
from claimbench.papers.compression.evopress.setup import (
    Sequences,
    depth_problem,
    droppable,
    evopress_depth,
    held_out,
    judge_of,
    search_tokens,
    stages,
    summed_depth,
    windows,
)
from claimbench.trial import Table, Trial, derive, measure

# A tournament may take so many times the single-stage search's generations; its tokens are bounded anyway.
MORE_GENERATIONS = 20
SURE = 3.0  # standard errors by which a pair must violate monotonicity on held-out text


# ---- claim 1: generations on linear problems ----


@measure("linear-generations")
def linear_generations(trial: Trial) -> dict[str, float]:
    """Median over `runs` of the generations and evaluations to the optimum of a linear problem with k = n/4
    ones.
    """
    n, offspring = int(trial.point["n"]), int(trial.point["offspring"])
    runs = int(trial.size["runs"])
    if trial.arm == "random-search":
        evaluations = linear.random_search_evaluations(n, n // 4, runs, seed=trial.seed)
        generations = np.ceil(evaluations / offspring)
    else:
        mutate = {"evopress": None, "repair": flip_and_repair}[trial.arm]
        generations = linear.generations_to_optimum(
            n, n // 4, offspring, runs, mutate=mutate, seed=trial.seed
        )
        evaluations = generations * offspring
    return {"generations": float(np.median(generations)), "evaluations": float(np.median(evaluations))}


@derive("ea-generations-scale")
def scaling(seed: Table) -> dict[str, float]:
    """Least squares of log generations on log(k (n-k) / lambda) where lambda <= n / ln n, and what the
    baselines need.
    """
    own = list(seed.where(arm="evopress"))
    fitted = [row for row in own if row.point["offspring"] <= row.point["n"] / math.log(row.point["n"])]
    if len(fitted) < 3:
        raise LookupError("fewer than three points with lambda <= n / ln n")
    x = np.log(
        [
            (row.point["n"] // 4) * (row.point["n"] - row.point["n"] // 4) / row.point["offspring"]
            for row in fitted
        ]
    )
    y = np.log([row.metrics["generations"] for row in fitted])
    largest = max(row.point["n"] for row in own)

    def against(arm: str) -> dict[int, float]:
        """log10 of the baseline's evaluations over EvoPress's, by lambda, at the largest n."""
        theirs = seed.series("evaluations", along="offspring", arm=arm, n=largest)
        ours = seed.series("evaluations", along="offspring", arm="evopress", n=largest)
        return {offspring: math.log10(theirs[offspring] / ours[offspring]) for offspring in ours}

    return {
        "slope": float(np.polyfit(x, y, 1)[0]),
        "r_squared": float(np.corrcoef(x, y)[0, 1] ** 2),
        "random_excess": min(against("random-search").values()),
        "repair_excess": float(np.mean(list(against("repair").values()))),
    }


# ---- claim 2: depth pruning against scores ----


@measure("depth-pruning")
def depth_pruning(trial: Trial) -> dict[str, float]:
    """Find sub-layers to drop on calibration text; perplexity, and KL from the dense model in nats per token,
    on fresh text.
    """
    calibration = windows(trial, "validation", trial.size["calibration"])
    text = windows(trial, "test", trial.size["evaluation"])
    with droppable(trial) as judge:
        space, budget = depth_problem(trial, judge, float(trial.point["remove"]))
        if trial.arm == "evopress":
            outcome = evopress_depth(trial, judge, space, budget, calibration)
            profile, spent = outcome.levels, outcome.tokens
        elif trial.arm == "random-search":
            size = trial.size
            outcome = random_search(
                space,
                Calibration(judge, calibration),
                budget,
                generations=size["generations"],
                offspring=size["offspring"],
                stages=stages(trial),
                starts=size["starts"],
                start_tokens=size["start_tokens"],
                seed=trial.seed,
            )
            profile, spent = outcome.levels, outcome.tokens
        elif trial.arm == "greedy":
            fitness = Calibration(judge, calibration)
            outcome = greedy_removal(space, fitness, budget, tokens=search_tokens(trial), seed=trial.seed)
            profile, spent = outcome.levels, fitness.tokens
        elif trial.arm == "summed-errors":
            profile, _, spent = summed_depth(judge, space, budget, calibration)
        else:
            score = cast(Score, trial.arm.removesuffix("-score"))
            assert score in get_args(Score), trial.arm
            found, spent = score_profile(judge, calibration, score, budget[MLP_GROUP])
            profile = found.levels
        return {**held_out(judge, profile, text), "tokens": float(spent)}


# ---- claim 3: does removing more always hurt more? ----


def violations(trial: Trial, judge: Judge, count: int, text: Sequences) -> dict[str, float]:
    """Random removal sets B of `count` units and subsets A = B less one unit: how often B is the better
    model.

    A pair is found on a few calibration sequences and counts only if B is better on held-out text by more
    than three standard errors of the paired difference over sequences. `usable`: B's held-out perplexity is
    under twice the dense one's.
    """
    rng = np.random.default_rng([trial.seed, 7])
    units, many, subsets = judge.units, int(trial.size["sets"]), int(trial.size["subsets"])
    chosen = np.argsort(rng.random((many, units)), axis=1)[:, :count]
    whole = np.zeros((many, units), dtype=np.int64)
    np.put_along_axis(whole, chosen, 1, axis=1)
    parts = np.repeat(whole[:, None], subsets, axis=1)
    np.put_along_axis(parts, chosen[:, :subsets, None], 0, axis=2)
    seen = windows(trial, "validation", trial.size["search_sequences"])
    losses = judge(np.concatenate([whole, parts.reshape(-1, units)]), seen, "loss").mean(axis=1)
    better = losses[:many, None] < losses[many:].reshape(many, subsets)
    sets, which = np.nonzero(better)
    confirmed = usable = 0
    if len(sets):
        larger, of = np.unique(sets, return_inverse=True)
        fresh = judge(np.concatenate([whole[larger], parts[sets, which]]), text, "loss")
        large, small = fresh[: len(larger)][of], fresh[len(larger) :]
        gain = small - large
        sure = gain.mean(axis=1) > SURE * gain.std(axis=1, ddof=1) / math.sqrt(len(text))
        dense = judge(np.zeros(units, dtype=np.int64), text, "loss").mean()
        confirmed = int(sure.sum())
        usable = int((sure & (large.mean(axis=1) < dense + math.log(2))).sum())
    pairs = many * subsets
    return {
        "violation_rate": confirmed / pairs,
        "usable_violation_rate": usable / pairs,
        "found_rate": len(sets) / pairs,
    }


@measure("monotonicity")
def monotonicity(trials: list[Trial]) -> list[dict[str, float]]:
    """Violations of monotonicity, and EvoPress against the optimum of summed single-drop errors, on held-out
    text.
    """
    trial = trials[0]
    calibration = windows(trial, "validation", trial.size["calibration"])
    text = windows(trial, "test", trial.size["evaluation"])
    with droppable(trial) as judge:
        space, budget = depth_problem(trial, judge, float(trial.point["remove"]))
        summed, singles, spent = summed_depth(judge, space, budget, calibration)
        outcome = evopress_depth(trial, judge, space, budget, calibration)
        common = violations(trial, judge, sum(budget.values()), text[: trial.size["confirming_sequences"]])
        drawn = random_selections(
            space, budget, int(trial.size["profiles"]), np.random.default_rng(trial.seed)
        )
        some = calibration[: trial.size["search_sequences"]]
        common["rank_correlation"] = float(
            spearmanr(drawn @ singles, judge(drawn, some).mean(axis=1)).statistic
        )
        by_arm = {
            "evopress": {**held_out(judge, outcome.levels, text), "tokens": float(outcome.tokens)},
            "summed-errors": {**held_out(judge, summed, text), "tokens": float(spent)},
        }
    return [{**by_arm[each.arm], **common} for each in trials]


# ---- claim 4: tournament against evaluating everybody on all tokens ----


def tokens_to_target(
    run: Callable[[tuple[Stage, ...], Callable[[Generation], bool] | None], Outcome],
    true: Callable[[Profile], float],
    multi: tuple[Stage, ...],
    slack: float = 0.02,
) -> dict[str, tuple[float, float]]:
    """Per arm: tokens until the parent's true value is within `slack` of the single-stage search's last, and
    that value.

    run(stages, until) searches. The single-stage search evaluates every offspring on the last stage's tokens.
    A multi-stage search that spends as much as the single-stage one without reaching the target counts that
    much and stops.
    """
    known: dict[bytes, float] = {}

    def value(profile: Profile) -> float:
        key = profile.tobytes()
        if key not in known:
            known[key] = true(profile)
        return known[key]

    single = run((multi[-1],), None)
    target = (1 + slack) * value(single.levels)
    needed = next(float(g.tokens) for g in single.history if value(g.levels) <= target)
    limit = float(single.tokens)
    tournament = run(multi, lambda g: value(g.levels) <= target or g.tokens >= limit)
    last = tournament.history[-1]
    reached = [g for g in tournament.history if value(g.levels) <= target]
    spent = float(reached[0].tokens) if reached else max(limit, float(last.tokens))
    return {"multi-stage": (spent, value(last.levels)), "single-stage": (needed, value(single.levels))}


def geometric_means(results: list[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Over repetitions, by arm: of the tokens and of the values reached."""
    logs = {arm: np.log([result[arm] for result in results]).mean(axis=0) for arm in results[0]}
    return {arm: (float(np.exp(tokens)), float(np.exp(value))) for arm, (tokens, value) in logs.items()}


def noisy_linear(trial: Trial, repetition: int) -> dict[str, tuple[float, float]]:
    """The synthetic task: a linear problem with k = n/4, seen through noise of variance sigma^2 / tokens."""
    size = trial.size
    rng = np.random.default_rng([trial.seed, repetition])
    space = linear.selection_space(int(size["linear_units"]))
    fitness = linear.NoisyLinear(rng.random(space.units), float(size["linear_sigma"]))
    start = random_selections(space, {0: space.units // 4}, 1, rng)[0]

    def run(chosen: tuple[Stage, ...], until: Callable[[Generation], bool] | None) -> Outcome:
        return evolve(
            space,
            fitness,
            start,
            generations=size["linear_generations"] * (1 if until is None else MORE_GENERATIONS),
            offspring=size["linear_offspring"],
            stages=chosen,
            seed=np.random.default_rng([trial.seed, repetition, 1]),
            until=until,
        )

    multi = (Stage(size["linear_few"], size["survivors"]), Stage(size["linear_many"], 1))
    return tokens_to_target(run, lambda profile: float(fitness.true(profile)), multi)


def staged_depth(
    trial: Trial, repetition: int, judge: Judge, calibration: Sequences, text: Sequences
) -> dict[str, tuple[float, float]]:
    """The model task: depth pruning from a random start; the true value is KL on held-out text, which no
    search sees.
    """
    size = trial.size
    space, budget = depth_problem(trial, judge, float(size["remove"]))
    start = random_selections(space, budget, 1, np.random.default_rng([trial.seed, repetition]))[0]

    def run(chosen: tuple[Stage, ...], until: Callable[[Generation], bool] | None) -> Outcome:
        return evolve(
            space,
            Calibration(judge, calibration),
            start,
            generations=size["generations"] * (1 if until is None else MORE_GENERATIONS),
            offspring=size["offspring"],
            stages=chosen,
            seed=np.random.default_rng([trial.seed, repetition, 1]),
            until=until,
        )

    return tokens_to_target(run, lambda profile: float(judge(profile, text).mean()), stages(trial))


@measure("selection-tokens")
def selection_tokens(trials: list[Trial]) -> list[dict[str, float]]:
    """Tokens that each kind of selection needs to the same held-out value, and the value that it ends at."""
    trial = trials[0]
    if trial.point["task"] == "noisy-linear":
        results = [noisy_linear(trial, number) for number in range(trial.size["linear_problems"])]
    else:
        calibration = windows(trial, "validation", trial.size["calibration"])
        text = windows(trial, "test", trial.size["evaluation"])
        with droppable(trial) as judge:
            results = [
                staged_depth(trial, number, judge, calibration, text)
                for number in range(trial.size["repetitions"])
            ]
    found = geometric_means(results)
    return [{"tokens": found[each.arm][0], "final": found[each.arm][1]} for each in trials]


# ---- claims 5 and 6: levels of sparsity and of bits at equal size ----


def best_owl(
    database: WeightDatabase, judge: Judge, calibration: Sequences, trial: Trial
) -> tuple[Profile, int]:
    """OWL with its range chosen on calibration text, which is how its authors set it."""
    spreads = trial.size["owl_spreads"]
    profiles = np.stack([owl_profile(database, trial.size["sparsity"], spread) for spread in spreads])
    return profiles[judge(profiles, calibration).mean(axis=1).argmin()], len(spreads) * calibration.numel()


def summed_levels(database: WeightDatabase, start: Profile) -> Profile:
    """The dynamic programme over the linears' own output errors, at exactly the start's size, free to cross
    groups.
    """
    space, errors = database.space, database.errors
    assert space.cost is not None
    spans = [np.arange(upper - lower + 1) for lower, upper in zip(space.lower, space.upper, strict=True)]
    unit = np.gcd.reduce(space.cost)
    costs = [span * (cost // unit) for span, cost in zip(spans, space.cost, strict=True)]
    budget = int(((start - space.lower) * (space.cost // unit)).sum())
    return space.lower + dynamic_programme(
        [e[: len(span)] for e, span in zip(errors, spans, strict=True)], costs, budget
    )


def levels_at_equal_size(
    trials: list[Trial], build: Callable[[Trial, Sequences], WeightDatabase]
) -> list[dict[str, float]]:
    """All arms on one database, started from one profile: the uniform one, or for bits a random mix of the
    target's size.
    """
    trial = trials[0]
    size = trial.size
    calibration = windows(trial, "validation", size["calibration"])
    text = windows(trial, "test", size["evaluation"])
    database = build(trial, calibration)
    judge = judge_of(trial, database)
    space = database.space
    start = database.base
    if database.kind == "bits":
        start = start_bits(database, size["bits"], np.random.default_rng(trial.seed))

    def mixes(parents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.stack([start_bits(database, size["bits"], rng) for _ in parents])

    results = []
    for each in trials:
        profile, spent = start, 0
        if each.arm == "owl":
            profile, spent = best_owl(database, judge, calibration, trial)
        elif each.arm == "summed-errors":
            profile = summed_levels(database, start)
        elif each.arm in ("evopress", "random-search"):
            outcome = evolve(
                space,
                Calibration(judge, calibration),
                start,
                generations=size["generations"],
                offspring=size["offspring"],
                stages=stages(trial),
                mutate=mixes if each.arm == "random-search" else None,
                seed=trial.seed,
            )
            profile, spent = outcome.levels, outcome.tokens
        # a random mix may fall short of the target by less than one linear; nothing may exceed it
        allowed = max(
            float(space.sizes(start)), float(size.get("bits", 0)) * sum(unit.size for unit in database.units)
        )
        if float(space.sizes(profile)) > allowed or (
            database.kind == "sparsity" and profile.sum() != start.sum()
        ):
            raise AssertionError(
                f"{each.arm}: size {space.sizes(profile)} is not within the budget {allowed}"
            )
        results.append({**held_out(judge, profile, text), "tokens": float(spent)})
    return results


@measure("sparsity-levels")
def sparsity_levels(trials: list[Trial]) -> list[dict[str, float]]:
    """SparseGPT levels of every linear, spread by each arm at the same number of non-zero weights."""
    return levels_at_equal_size(
        trials,
        lambda trial, ids: sparsity_database(
            trial.subject["model"].model,
            ids,
            trial.size["sparsity"],
            steps_of_smallest=trial.size["steps_of_smallest"],
            each_side=trial.size["each_side"],
        ),
    )


@measure("bit-levels")
def bit_widths(trials: list[Trial]) -> list[dict[str, float]]:
    """GPTQ levels of every linear, spread by each arm at the same number of bits."""
    return levels_at_equal_size(
        trials,
        lambda trial, ids: bits_database(
            trial.subject["model"].model, ids, base=math.ceil(trial.size["bits"]), group=trial.size["group"]
        ),
    )
