"""How the claims of EvoPress (arXiv 2410.14649) are measured. What is claimed and how it is judged stands in paper.toml.

Searches see calibration text (a share of the text's validation split); every number that a rule judges comes from held-out
text (a share of its test split). Shares are disjoint between seeds. The model is one and the same for all seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast, get_args

import numpy as np
import torch
from jaxtyping import Int
from scipy.stats import spearmanr
from torch import Tensor

from claimbench.errors import UserError
from claimbench.papers.compression.evopress import linear
from claimbench.papers.compression.evopress.baselines import (
    flip_and_repair,
    greedy_removal,
    random_search,
    random_selections,
    summed_errors,
)
from claimbench.papers.compression.evopress.database import (
    WeightDatabase,
    bits_database,
    owl_profile,
    search_levels,
    sparsity_database,
    start_bits,
)
from claimbench.papers.compression.evopress.decoder import SublayerSwitch
from claimbench.papers.compression.evopress.depth import ATTENTION_GROUP, MLP_GROUP, depth_space
from claimbench.papers.compression.evopress.fitness import Calibration, Judge
from claimbench.papers.compression.evopress.scores import Score, score_profile, single_drops
from claimbench.papers.compression.evopress.search import (
    Generation,
    Outcome,
    Profile,
    Space,
    Stage,
    evolve,
)
from claimbench.trial import Table, Trial, derive, measure

Sequences = Int[Tensor, "sequences tokens"]
SURE = 3.0  # standard errors by which a pair must violate monotonicity on held-out text


# ---- text, model, stages: what the trials' sizes say ----


def windows(trial: Trial, split: str, count: int) -> Sequences:
    """`count` sequences out of this seed's share of a split, at places drawn by the seed, none overlapping another."""
    lm, text = trial.subject["model"], getattr(trial.subject["text"], split)
    length = int(trial.size["sequence_length"])
    share = trial.block(range(len(text)))
    sample = text[share[0] : share[0] + 4096]
    width = math.ceil(1.3 * length * len(sample) / max(1, len(lm.encode(sample)))) + 16
    slots = np.random.default_rng([trial.seed, len(split)]).permutation(len(share) // width)
    rows: list[Tensor] = []
    for slot in slots:
        ids = lm.encode(text[share[0] + slot * width : share[0] + (slot + 1) * width])
        if len(ids) >= length:
            rows.append(ids[:length])
        if len(rows) == count:
            return torch.stack(rows).to(trial.device)
    raise UserError(
        f"text: this seed's share of its {split} split holds {len(rows)} sequences of {length} tokens and {count} are needed; "
        f"give about {math.ceil(12 * 10 * count * width * 1.1 / 1e6)} MB of text or a smaller sequence_length"
    )


def stages(trial: Trial) -> tuple[Stage, ...]:
    size = trial.size
    return (Stage(size["few_tokens"], size["survivors"]), Stage(size["many_tokens"], 1))


def search_tokens(trial: Trial) -> int:
    """Forward tokens of the whole EvoPress search: what random search and greedy removal may spend too."""
    size = trial.size
    generation = size["offspring"] * size["few_tokens"] + (size["survivors"] + 1) * size["many_tokens"]
    return int(size["starts"] * size["start_tokens"] + size["generations"] * generation)


@contextmanager
def droppable(trial: Trial) -> Iterator[Judge]:
    with SublayerSwitch(trial.subject["model"].model) as switch:
        yield Judge(switch, top_k=trial.size.get("top_k", 0), tokens_at_once=trial.size["tokens_at_once"])


def depth_problem(trial: Trial, judge: Judge, share: float) -> tuple[Space, dict[int, int]]:
    """Which sub-layers may go, and how many of each kind do: `share` of the layers."""
    layers = len(judge.decoder)
    count = round(share * layers)
    protected = tuple(range(trial.size.get("protect", 0)))
    if not 0 < count < layers - len(protected):
        raise UserError(f"remove: {share} of {layers} layers is {count}; it must be at least 1 and leave some")
    return depth_space(layers, protected), {ATTENTION_GROUP: count, MLP_GROUP: count}


def evopress_depth(
    trial: Trial, judge: Judge, space: Space, budget: dict[int, int], calibration: Sequences
) -> Outcome:
    rng = np.random.default_rng(trial.seed)
    size = trial.size
    return evolve(
        space,
        Calibration(judge, calibration),
        random_selections(space, budget, size["starts"], rng),
        generations=size["generations"],
        offspring=size["offspring"],
        stages=stages(trial),
        start_tokens=size["start_tokens"],
        seed=rng,
    )


def summed_depth(
    judge: Judge, space: Space, budget: dict[int, int], calibration: Sequences
) -> tuple[Profile, np.ndarray, int]:
    """The dynamic programme over single drops: its profile, the single drops' KL, the tokens spent."""
    singles = single_drops(judge, calibration)
    errors = np.stack([np.zeros_like(singles), singles], axis=1)
    return summed_errors(space, errors, budget), singles, (judge.units + 1) * calibration.numel()


def held_out(judge: Judge, profile: Profile, text: Sequences) -> dict[str, float]:
    """Perplexity, KL from the dense model in nats per token, and the dense model's perplexity."""
    found = judge.evaluate(profile, text)
    return {
        "perplexity": float(np.exp(found["loss"].mean())),
        "kl": float(found["kl"].mean()),
        "dense_perplexity": judge.dense_perplexity(text),
    }


# ---- claim 1: generations on linear problems ----


@measure("linear-generations")
def linear_generations(trial: Trial) -> dict[str, float]:
    """Median over `runs` of the generations and evaluations to the optimum of a linear problem with k = n/4 ones."""
    n, offspring = int(trial.point["n"]), int(trial.point["offspring"])
    runs = int(trial.size["runs"])
    if trial.arm == "random-search":
        evaluations = linear.random_search_evaluations(n, n // 4, runs, seed=trial.seed)
        generations = np.ceil(evaluations / offspring)
    else:
        mutate = {"evopress": None, "repair": flip_and_repair}[trial.arm]
        generations = linear.generations_to_optimum(n, n // 4, offspring, runs, mutate=mutate, seed=trial.seed)
        evaluations = generations * offspring
    return {"generations": float(np.median(generations)), "evaluations": float(np.median(evaluations))}


@derive("ea-generations-scale")
def scaling(seed: Table) -> dict[str, float]:
    """Least squares of log generations on log(k (n-k) / lambda) where lambda <= n / ln n, and what the baselines need."""
    own = [row for row in seed.where(arm="evopress")]
    fitted = [row for row in own if row.point["offspring"] <= row.point["n"] / math.log(row.point["n"])]
    if len(fitted) < 3:
        raise LookupError("fewer than three points with lambda <= n / ln n")
    x = np.log([(row.point["n"] // 4) * (row.point["n"] - row.point["n"] // 4) / row.point["offspring"] for row in fitted])
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
    """Find sub-layers to drop on calibration text; perplexity, and KL from the dense model in nats per token, on fresh text."""
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
    """Random removal sets B of `count` units and subsets A = B less one unit: how often B is the better model.

    A pair is found on a few calibration sequences and counts only if B is better on held-out text by more than three
    standard errors of the paired difference over sequences. `usable`: B's held-out perplexity is under twice the dense one's.
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
    """Violations of monotonicity, and EvoPress against the optimum of summed single-drop errors, on held-out text."""
    trial = trials[0]
    calibration = windows(trial, "validation", trial.size["calibration"])
    text = windows(trial, "test", trial.size["evaluation"])
    with droppable(trial) as judge:
        space, budget = depth_problem(trial, judge, float(trial.point["remove"]))
        summed, singles, spent = summed_depth(judge, space, budget, calibration)
        outcome = evopress_depth(trial, judge, space, budget, calibration)
        common = violations(trial, judge, sum(budget.values()), text[: trial.size["confirming_sequences"]])
        drawn = random_selections(space, budget, int(trial.size["profiles"]), np.random.default_rng(trial.seed))
        some = calibration[: trial.size["search_sequences"]]
        common["rank_correlation"] = float(spearmanr(drawn @ singles, judge(drawn, some).mean(axis=1)).statistic)
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
    """Per arm: tokens until the parent's true value is within `slack` of the single-stage search's last, and that value.

    run(stages, until) searches. The single-stage search evaluates every offspring on the last stage's tokens. A
    multi-stage search that spends as much as the single-stage one without reaching the target counts that much and stops.
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


def noisy_linear(trial: Trial) -> dict[str, tuple[float, float]]:
    """The synthetic task: geometric means over independent problems."""
    size = trial.size
    n, k = int(size["linear_units"]), int(size["linear_units"]) // 4
    space = linear.selection_space(n)
    results: list[dict[str, tuple[float, float]]] = []
    for problem in range(int(size["linear_problems"])):
        rng = np.random.default_rng([trial.seed, problem])
        fitness = linear.NoisyLinear(rng.random(n), float(size["linear_sigma"]))
        start = random_selections(space, {0: k}, 1, rng)[0]

        def run(chosen: tuple[Stage, ...], until: Callable[[Generation], bool] | None) -> Outcome:
            return evolve(
                space,
                fitness,  # noqa: B023 - called within this iteration
                start,  # noqa: B023
                generations=size["linear_generations"] * (1 if until is None else 20),
                offspring=size["linear_offspring"],
                stages=chosen,
                seed=trial.seed * 1000 + problem,  # noqa: B023
                until=until,
            )

        multi = (Stage(size["linear_few"], size["survivors"]), Stage(size["linear_many"], 1))
        results.append(tokens_to_target(run, lambda profile: float(fitness.true(profile)), multi))  # noqa: B023
    return {
        arm: tuple(float(np.exp(np.mean(np.log([r[arm][i] for r in results])))) for i in (0, 1))  # type: ignore[misc]  # a pair
        for arm in ("multi-stage", "single-stage")
    }


def staged_depth(trial: Trial) -> dict[str, tuple[float, float]]:
    """The model task: depth pruning; the true value is KL on held-out text, which no search sees."""
    calibration = windows(trial, "validation", trial.size["calibration"])
    text = windows(trial, "test", trial.size["evaluation"])
    size = trial.size
    with droppable(trial) as judge:
        space, budget = depth_problem(trial, judge, float(size["remove"]))
        starts = random_selections(space, budget, size["starts"], np.random.default_rng(trial.seed))

        def run(chosen: tuple[Stage, ...], until: Callable[[Generation], bool] | None) -> Outcome:
            return evolve(
                space,
                Calibration(judge, calibration),
                starts,
                generations=size["generations"] * (1 if until is None else 20),
                offspring=size["offspring"],
                stages=chosen,
                start_tokens=size["start_tokens"],
                seed=trial.seed,
                until=until,
            )

        return tokens_to_target(run, lambda profile: float(judge(profile, text).mean()), stages(trial))


@measure("selection-tokens")
def selection_tokens(trials: list[Trial]) -> list[dict[str, float]]:
    """Tokens that each kind of selection needs to the same held-out value, and the value that it ends at."""
    found = noisy_linear(trials[0]) if trials[0].point["task"] == "noisy-linear" else staged_depth(trials[0])
    return [{"tokens": found[each.arm][0], "final": found[each.arm][1]} for each in trials]


# ---- claims 5 and 6: levels of sparsity and of bits at equal size ----


def best_owl(database: WeightDatabase, judge: Judge, calibration: Sequences, trial: Trial) -> tuple[Profile, int]:
    """OWL with its range chosen on calibration text, which is how its authors set it."""
    spreads = trial.size["owl_spreads"]
    profiles = np.stack([owl_profile(database, trial.size["sparsity"], spread) for spread in spreads])
    return profiles[judge(profiles, calibration).mean(axis=1).argmin()], len(spreads) * calibration.numel()


def levels_at_equal_size(trials: list[Trial], build: Callable[[Trial, Sequences], WeightDatabase]) -> list[dict[str, float]]:
    trial = trials[0]
    calibration = windows(trial, "validation", trial.size["calibration"])
    text = windows(trial, "test", trial.size["evaluation"])
    database = build(trial, calibration)
    judge = Judge(database, top_k=trial.size.get("top_k", 0), tokens_at_once=trial.size["tokens_at_once"])
    space = database.space
    results = []
    for each in trials:
        spent = 0
        if each.arm == "uniform":
            profile = database.base
        elif each.arm == "owl":
            profile, spent = best_owl(database, judge, calibration, trial)
        elif each.arm == "summed-errors":
            budget = {
                int(group): int((database.base - space.lower)[space.group == group].sum()) for group in np.unique(space.group)
            }
            profile, spent = summed_errors(space, database.errors, budget), 0
        else:
            start = start_bits(database, trial.size["bits"], np.random.default_rng(trial.seed)) if database.kind == "bits" else None
            outcome = search_levels(
                database,
                calibration,
                start,
                generations=trial.size["generations"],
                offspring=trial.size["offspring"],
                stages=stages(trial),
                top_k=trial.size.get("top_k", 0),
                tokens_at_once=trial.size["tokens_at_once"],
                seed=trial.seed,
            )
            profile, spent = outcome.levels, outcome.tokens
        if float(space.sizes(profile)) != float(space.sizes(database.base)):
            raise AssertionError(f"{each.arm}: size {space.sizes(profile)} is not the budget {space.sizes(database.base)}")
        results.append({**held_out(judge, profile, text), "tokens": float(spent)})
    return results


@measure("sparsity-levels")
def sparsity_levels(trials: list[Trial]) -> list[dict[str, float]]:
    """SparseGPT levels of every linear, spread by each arm at the same number of non-zero weights."""
    return levels_at_equal_size(
        trials,
        lambda trial, ids: sparsity_database(
            trial.subject["model"].model, ids, trial.size["sparsity"], each_side=trial.size["each_side"]
        ),
    )


@measure("bit-levels")
def bit_widths(trials: list[Trial]) -> list[dict[str, float]]:
    """GPTQ levels of every linear, spread by each arm at the same number of bits."""
    return levels_at_equal_size(
        trials,
        lambda trial, ids: bits_database(
            trial.subject["model"].model, ids, base=int(trial.size["bits"]), group=trial.size["group"]
        ),
    )


