"""EvoPress's search: a (1+lambda) evolutionary algorithm over level profiles whose mutation keeps the budget
exact.

Sieberling, Kuznedelev, Kurtic, Alistarh 2024, "EvoPress" (arXiv 2410.14649), Algorithm 1. A profile `v` gives
every unit one level. Mutation is the *level switch*: one unit goes a step down, another of the same group a
step up, so the budget (the sum of levels in every group) never changes. Selection is a tournament in stages:
all offspring see few tokens, the best of them more, and the parent joins the last stage. Nothing here knows
what a level means: the same code drops sub-layers, moves sparsity between linears and moves bits between
linears.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from claimbench.errors import UserError

Profile = Int[np.ndarray, " units"]
Profiles = Int[np.ndarray, "candidates units"]
Mutation = Callable[[Int[np.ndarray, "rows units"], np.random.Generator], Int[np.ndarray, "rows units"]]

MOST_SWAPS = 3  # a mutation makes min(U{1..3}, U{1..3}) swaps
_REDRAWS = 64  # how often a repeated offspring is drawn again before none is taken to be left


class Fitness(Protocol):
    """What is minimised. A minibatch is drawn once a stage; all candidates of that stage are judged on it."""

    def draw(self, tokens: int, rng: np.random.Generator) -> Any:
        """A fresh minibatch of `tokens` calibration tokens."""

    def __call__(self, profiles: Profiles, minibatch: Any) -> Float[np.ndarray, " candidates"]:
        """One value per candidate, lower is better, all on the same minibatch."""


@dataclass(frozen=True)
class Exact:
    """A fitness without noise: a function of profiles alone, minibatches play no part."""

    function: Callable[[Profiles], Float[np.ndarray, " candidates"]]

    def draw(self, tokens: int, rng: np.random.Generator) -> None:
        return None

    def __call__(self, profiles: Profiles, minibatch: None) -> Float[np.ndarray, " candidates"]:
        return self.function(profiles)


@dataclass(frozen=True)
class Space:
    """The levels that each unit may take, and which units may exchange a step.

    lower, upper: smallest and largest level of each unit. group: units of equal number may exchange a step.
    cost: what one step of a unit is worth (parameters, bits); it must be the same within a group, because a
    switch moves one step down and one step up and must leave the size as it was.
    """

    lower: Profile
    upper: Profile
    group: Profile
    cost: Profile | None = None

    def __post_init__(self) -> None:
        shapes = {np.shape(a) for a in (self.lower, self.upper, self.group)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise UserError(
                f"Space: lower, upper and group must be vectors of one length; their shapes are {shapes}"
            )
        if np.any(self.lower > self.upper):
            raise UserError("Space: a unit's lower level exceeds its upper level; swap them")
        if self.cost is not None:
            for group in np.unique(self.group):
                if len(np.unique(self.cost[self.group == group])) != 1:
                    raise UserError(
                        f"Space: units of group {group} have different costs a step, so a switch would "
                        "change the size; give them different groups"
                    )

    @property
    def units(self) -> int:
        return len(self.lower)

    @cached_property
    def membership(self) -> Float[np.ndarray, "units groups"]:
        """1 where the unit is of the group: groups are numbered in the order of `numpy.unique`."""
        return (self.group[:, None] == np.unique(self.group)[None, :]).astype(np.float64)

    @cached_property
    def group_index(self) -> Int[np.ndarray, " units"]:
        return np.searchsorted(np.unique(self.group), self.group)

    def sizes(self, profiles: Int[np.ndarray, "... units"]) -> Float[np.ndarray, " ..."]:
        """Total cost of each profile."""
        return profiles @ (np.ones(self.units) if self.cost is None else self.cost.astype(np.float64))

    def contains(self, profiles: Int[np.ndarray, "... units"]) -> Bool[np.ndarray, " ..."]:
        return np.all((profiles >= self.lower) & (profiles <= self.upper), axis=-1)


def swap_counts(rows: int, rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """How many swaps each mutation makes: min(U{1..3}, U{1..3}), that is 1, 2, 3 with probability 5/9, 3/9,
    1/9.
    """
    return rng.integers(1, MOST_SWAPS + 1, size=(2, rows)).min(axis=0)


def _pick(allowed: Bool[np.ndarray, "rows units"], rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """One allowed unit per row, uniformly."""
    return np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)


def _switch_once(space: Space, levels: Int[np.ndarray, "rows units"], rng: np.random.Generator) -> None:
    """In place: in each row one unit goes a step down and another of its group a step up."""
    rows = np.arange(len(levels))
    rising = levels < space.upper
    partners = (rising @ space.membership)[:, space.group_index] - rising
    falling = (levels > space.lower) & (partners > 0)
    down = _pick(falling, rng)
    if not falling[rows, down].all():
        raise UserError(
            "Space: no level can be switched (every unit stands at its bound); widen the levels or free units"
        )
    rising &= space.group_index[None, :] == space.group_index[down][:, None]
    rising[rows, down] = False
    up = _pick(rising, rng)
    levels[rows, down] -= 1
    levels[rows, up] += 1


def level_switch(
    space: Space, parents: Int[np.ndarray, "rows units"], rng: np.random.Generator
) -> Int[np.ndarray, "rows units"]:
    """The paper's mutation, for many parents at once: `swap_counts` swaps each, every one within a group.

    The unit that goes down is uniform over those that can; its partner is uniform over those of its group
    that can go up. With as many removed attention as MLP sub-layers this is a fair coin for the type.
    """
    children = parents.copy()
    swaps = swap_counts(len(parents), rng)
    for done in range(MOST_SWAPS):
        rows = np.flatnonzero(swaps > done)
        if len(rows):
            moved = children[rows]
            _switch_once(space, moved, rng)
            children[rows] = moved
    return children


def ungrouped_switch(
    space: Space, parents: Int[np.ndarray, "rows units"], rng: np.random.Generator, *, budget: float
) -> Int[np.ndarray, "rows units"]:
    """Mutation between units of different size (bit widths without grouping): raise, then lower until
    `budget` holds.

    `swap_counts` random units rise a step, then random units fall a step until the size is at most `budget`.
    A child with more than 10 changes, or whose rises are worth under 0.8 of its falls, is drawn again. The
    size may end a little below the budget, never above. Levels must cost something positive (bits, not
    sparsity).
    """
    if space.cost is None:
        raise UserError("ungrouped_switch: the space needs cost = what a step of each unit is worth")

    def one(parent: Profile) -> Profile:
        for _ in range(1000):
            child, added, removed, changes = parent.copy(), 0.0, 0.0, int(swap_counts(1, rng)[0])
            for _ in range(changes):
                unit = rng.choice(np.flatnonzero(child < space.upper))
                child[unit] += 1
                added += float(costs[unit])
            while float(space.sizes(child)) > budget:
                unit = rng.choice(np.flatnonzero(child > space.lower))
                child[unit] -= 1
                removed += float(costs[unit])
                changes += 1
            if changes <= 10 and added >= 0.8 * removed:
                return child
        raise UserError(
            "ungrouped_switch: no mutation within 10 changes keeps the budget; group units by size instead"
        )

    costs = space.cost
    return np.stack([one(parent) for parent in parents])


_hash_weights: dict[int, np.ndarray] = {}


def _hashes(profiles: Int[np.ndarray, "... units"]) -> np.ndarray:
    """A 64-bit fingerprint per profile. A collision costs one needless redraw and nothing else."""
    units = profiles.shape[-1]
    if units not in _hash_weights:
        random_bits = np.random.default_rng(units).integers(1, 2**63, size=(units,), dtype=np.uint64)
        _hash_weights[units] = np.asarray(random_bits)
    return profiles.astype(np.uint64) @ _hash_weights[units]


def _repeated(parents: np.ndarray, children: np.ndarray) -> Bool[np.ndarray, "parents count"]:
    """Which children equal their parent or an earlier sibling."""
    marks = np.concatenate([_hashes(parents)[:, None], _hashes(children)], axis=1)
    order = np.argsort(marks, axis=1, kind="stable")
    ordered = np.take_along_axis(marks, order, axis=1)
    same = np.zeros_like(marks, dtype=bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.zeros_like(same)
    np.put_along_axis(repeated, order, same, axis=1)
    return repeated[:, 1:]


def breed(
    parents: Int[np.ndarray, "parents units"], count: int, mutate: Mutation, rng: np.random.Generator
) -> Int[np.ndarray, "parents count units"]:
    """`count` offspring of each parent, distinct from each other and from it.

    Where the neighbourhood holds fewer than `count` profiles, repeats remain; `evolve` leaves them out.
    """
    many, units = parents.shape
    children = mutate(np.repeat(parents, count, axis=0), rng).reshape(many, count, units)
    for _ in range(_REDRAWS):
        owner, place = np.nonzero(_repeated(parents, children))
        if not len(owner):
            break
        children[owner, place] = mutate(parents[owner], rng)
    return children


@dataclass(frozen=True)
class Stage:
    """One round of the tournament: all remaining candidates see the same `tokens` tokens, `survivors` of them
    stay.
    """

    tokens: int
    survivors: int


@dataclass(frozen=True)
class Generation:
    """The parent after a generation, its value in the last stage (optimistic: it won there), and the tokens
    so far.
    """

    levels: Profile
    fitness: float
    tokens: int


@dataclass
class Outcome:
    """levels: the last parent. fitness: its value in the last stage it won: biased low, judge it on fresh
    text.

    tokens: forward tokens spent, candidates times minibatch. history: one entry a generation, after the
    start's.
    """

    levels: Profile
    fitness: float
    tokens: int
    history: list[Generation] = field(default_factory=list)


def tournament(
    candidates: Profiles,
    parent: Profile | None,
    fitness: Fitness,
    stages: Sequence[Stage],
    rng: np.random.Generator,
) -> tuple[Profiles, Float[np.ndarray, " survivors"], int]:
    """Survivors of all stages, best first, their values in the last stage, and the tokens that it took.

    Every stage draws one fresh minibatch for all its candidates. `parent` joins before the last stage
    (elitism); an offspring as good as the parent replaces it, so that the search can cross plateaus.
    """
    spent = 0
    values = np.zeros(0)
    for number, stage in enumerate(stages):
        if number == len(stages) - 1 and parent is not None:
            candidates = np.concatenate([candidates, parent[None]])
        minibatch = fitness.draw(stage.tokens, rng)
        values = np.asarray(fitness(candidates, minibatch), dtype=np.float64)
        spent += stage.tokens * len(candidates)
        best = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")[: stage.survivors]
        candidates, values = candidates[best], values[best]
    return candidates, values, spent


def check_stages(stages: Sequence[Stage]) -> None:
    """Raise UserError unless the last stage keeps one."""
    if not stages or stages[-1].survivors != 1:
        raise UserError("stages: the last stage must keep 1 survivor (the next parent)")


def evolve(
    space: Space,
    fitness: Fitness,
    start: Profile | Profiles,
    *,
    generations: int,
    offspring: int,
    stages: Sequence[Stage],
    start_tokens: int = 2048,
    mutate: Mutation | None = None,
    seed: int | np.random.Generator = 0,
    until: Callable[[Generation], bool] | None = None,
) -> Outcome:
    """Algorithm 1: `generations` rounds of `offspring` mutants of the parent and a tournament among them.

    start: a profile, or several of which the fittest on `start_tokens` tokens is taken. mutate: default the
    level switch in `space`. until: ends the search early when it returns True for a generation's parent.
    Raises UserError for a start outside the space, or stages that do not end with one survivor.
    """
    rng = np.random.default_rng(seed)
    check_stages(stages)
    starts = np.atleast_2d(np.asarray(start))
    if not space.contains(starts).all():
        raise UserError("start: a level lies outside the space's bounds")
    change: Mutation = mutate or (lambda parents, draw: level_switch(space, parents, draw))
    spent, value = 0, float("nan")
    parent = starts[0]
    if len(starts) > 1:
        best, values, spent = tournament(starts, None, fitness, [Stage(start_tokens, 1)], rng)
        parent, value = best[0], float(values[0])
    history = [Generation(parent, value, spent)]
    for _ in range(generations):
        children = breed(parent[None], offspring, change, rng)[0]
        children = children[~_repeated(parent[None], children[None])[0]]
        best, values, cost = tournament(children, parent, fitness, stages, rng)
        parent, value, spent = best[0], float(values[0]), spent + cost
        history.append(Generation(parent, value, spent))
        if until is not None and until(history[-1]):
            break
    return Outcome(parent, value, spent, history)
