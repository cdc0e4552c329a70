"""What EvoPress is compared with: random search, greedy removal, dynamic programming on summed errors,
repair.

Random search and greedy removal get EvoPress's own token budget; the dynamic programme minimises the *sum* of
per-unit errors exactly (Frantar & Alistarh 2022, "SPDY", arXiv 2201.13096, Algorithm 1): where it loses,
additivity is what fails. The repairing mutation is the textbook alternative to the level switch (bit flips
that break the budget, then random flips that restore it). OWL (Yin et al. 2024, arXiv 2310.05175) spreads
sparsity by outlier share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from claimbench.errors import UserError
from claimbench.papers.compression.evopress.search import (
    Fitness,
    Outcome,
    Profile,
    Profiles,
    Space,
    Stage,
    evolve,
)


def random_selections(
    space: Space, budget: dict[int, int], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "count units"]:
    """`count` profiles that raise `budget[group]` units of each group by one above `lower`, uniformly at
    random.

    For spaces of two levels (dropped or kept). Raises UserError if a group has fewer free units than it must
    raise.
    """
    profiles = np.tile(space.lower, (count, 1))
    free = space.upper > space.lower
    for group, wanted in budget.items():
        members = np.flatnonzero((space.group == group) & free)
        if len(members) < wanted:
            raise UserError(f"budget: group {group} has {len(members)} free units, {wanted} must be taken")
        keys = rng.random((count, len(members)))
        chosen = members[np.argsort(keys, axis=1)[:, :wanted]]
        np.put_along_axis(profiles, chosen, space.lower[chosen] + 1, axis=1)
    return profiles


def random_search(
    space: Space,
    fitness: Fitness,
    budget: dict[int, int],
    *,
    generations: int,
    offspring: int,
    stages: Sequence[Stage],
    starts: int = 64,
    start_tokens: int = 2048,
    seed: int = 0,
) -> Outcome:
    """EvoPress with uniform draws in place of mutants: the same tournament and tokens, no inheritance."""
    rng = np.random.default_rng(seed)
    return evolve(
        space,
        fitness,
        random_selections(space, budget, starts, rng),
        generations=generations,
        offspring=offspring,
        stages=stages,
        start_tokens=start_tokens,
        mutate=lambda parents, draw: random_selections(space, budget, len(parents), draw),
        seed=rng,
    )


def greedy_removal(
    space: Space, fitness: Fitness, budget: dict[int, int], *, tokens: int, seed: int = 0
) -> Outcome:
    """Forward greedy: raise the one unit that hurts least, on one fresh minibatch a step, until the budget is
    met.

    tokens: the total to spend, shared evenly by the evaluations still to come; what one step leaves over (a
    group that is full needs no more evaluations) goes to the next.
    """
    rng = np.random.default_rng(seed)
    left = dict(budget)
    profile = space.lower.copy()
    steps = sum(budget.values())
    free = {group: int(((space.group == group) & (space.upper > space.lower)).sum()) for group in budget}
    if any(free[group] < wanted for group, wanted in budget.items()):
        raise UserError(f"budget: {budget} exceeds the free units {free}")
    spent, value = 0, float("nan")
    for step in range(steps):
        open_groups = [group for group, wanted in left.items() if wanted > 0]
        units = np.flatnonzero(np.isin(space.group, open_groups) & (profile < space.upper))
        candidates = np.tile(profile, (len(units), 1))
        candidates[np.arange(len(units)), units] += 1
        to_come = sum(max(1, len(units) - later) for later in range(steps - step))
        each = max(1, (tokens - spent) // to_come)
        values = fitness(candidates, fitness.draw(each, rng))
        spent += each * len(units)
        best = int(np.argmin(values))
        profile, value = candidates[best], float(values[best])
        left[int(space.group[units[best]])] -= 1
    return Outcome(profile, value, spent)


def dynamic_programme(
    errors: Sequence[Float[np.ndarray, " levels"]], costs: Sequence[Int[np.ndarray, " levels"]], budget: int
) -> Int[np.ndarray, " units"]:
    """The levels that minimise the sum of `errors` with total cost of exactly `budget`.

    errors, costs: per unit and level; costs are whole numbers, possibly negative. O(units * levels * range of
    costs), vectorised over the range. Raises UserError if no choice meets the budget exactly.
    """
    lowest = [int(cost.min()) for cost in costs]
    shifted = [np.asarray(cost) - low for cost, low in zip(costs, lowest, strict=True)]
    target = int(budget) - sum(lowest)
    if target < 0:
        raise UserError(f"budget: {budget} lies below the smallest possible cost {sum(lowest)}")
    best = np.full(target + 1, np.inf)
    best[0] = 0.0
    choice = np.zeros((len(errors), target + 1), dtype=np.int64)
    for unit, (error, cost) in enumerate(zip(errors, shifted, strict=True)):
        reached = np.full((len(error), target + 1), np.inf)
        for level, step in enumerate(cost):
            if step <= target:
                reached[level, step:] = best[: target + 1 - step] + error[level]
        choice[unit] = reached.argmin(axis=0)
        best = reached.min(axis=0)
    if not np.isfinite(best[target]):
        raise UserError(f"budget: no choice of levels costs exactly {budget}")
    levels = np.zeros(len(errors), dtype=np.int64)
    for unit in range(len(errors) - 1, -1, -1):
        levels[unit] = choice[unit, target]
        target -= int(shifted[unit][levels[unit]])
    return levels


def summed_errors(space: Space, errors: Float[np.ndarray, "units levels"], budget: dict[int, int]) -> Profile:
    """The optimum of the summed errors within each group: `errors[u, j]` is unit u's error j steps above
    `lower`.

    budget: per group, how many steps above `lower` in all.
    """
    profile = space.lower.copy()
    for group, steps in budget.items():
        units = np.flatnonzero(space.group == group)
        spans = space.upper[units] - space.lower[units]
        chosen = dynamic_programme(
            [errors[unit, : span + 1] for unit, span in zip(units, spans, strict=True)],
            [np.arange(span + 1) for span in spans],
            steps,
        )
        profile[units] += chosen
    return profile


def flip_and_repair(
    parents: Int[np.ndarray, "rows units"], rng: np.random.Generator
) -> Int[np.ndarray, "rows units"]:
    """Standard bit mutation (each bit flips with probability 1/n) that breaks the number of ones, then its
    repair.

    The repair flips uniformly random ones (or zeros) back until every row has its parent's number of ones. A
    row in which nothing changed is mutated again by the caller's demand for distinct offspring.
    """
    units = parents.shape[1]
    flipped = parents ^ (rng.random(parents.shape) < 1.0 / units)
    excess = flipped.sum(axis=1) - parents.sum(axis=1)
    keys = rng.random(parents.shape)
    for sign, value in ((1, 1), (-1, 0)):
        # rank the candidates for flipping back; the first |excess| of them are
        ranks = np.where(flipped == value, keys, 2.0).argsort(axis=1).argsort(axis=1)
        surplus = np.maximum(sign * excess, 0)
        flipped = np.where(ranks < surplus[:, None], 1 - value, flipped)
    return flipped.astype(parents.dtype)


def owl_sparsities(
    outliers: Float[np.ndarray, " blocks"], sparsity: float, spread: float = 0.08
) -> Float[np.ndarray, " blocks"]:
    """OWL's sparsity per block: less where more activations-times-weights are outliers, within a range of 2
    `spread`.

    outliers: share of entries of |W| * ||X|| above M times their mean, per block (`levels.outlier_shares`).
    The mean of the result is `sparsity`.
    """
    span = float(np.ptp(outliers))
    scaled = np.zeros_like(outliers) if span == 0 else (outliers - outliers.min()) / span * 2 * spread
    return np.clip(sparsity - (scaled - scaled.mean()), 0.0, 1.0)


def nearest_profile(wanted: Float[np.ndarray, " units"], space: Space, total: int) -> Profile:
    """The whole-numbered profile with sum `total` that is nearest to `wanted` (largest remainders), within
    bounds.
    """
    profile = np.clip(np.floor(wanted).astype(np.int64), space.lower, space.upper)
    if not int(space.lower.sum()) <= total <= int(space.upper.sum()):
        raise UserError(f"total: {total} lies outside what the levels allow")
    while (missing := total - int(profile.sum())) != 0:
        step = 1 if missing > 0 else -1
        room = profile < space.upper if step > 0 else profile > space.lower
        gain = np.where(room, step * (wanted - profile), -np.inf)
        profile[np.argsort(-gain, kind="stable")[: min(abs(missing), int(room.sum()))]] += step
    return profile


__all__ = [
    "Profiles",
    "dynamic_programme",
    "flip_and_repair",
    "greedy_removal",
    "nearest_profile",
    "owl_sparsities",
    "random_search",
    "random_selections",
    "summed_errors",
]
