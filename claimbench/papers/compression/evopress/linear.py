"""Linear budgeted problems with a known optimum: where EvoPress's convergence theorem and its tournament are
tested.

f(v) = w . v over 0/1 vectors with k ones among n, distinct random weights w: the optimum takes the k
smallest. The paper (arXiv 2410.14649, section 3) bounds the generations of the (1+lambda) algorithm with
single swaps by O(k (n-k) / lambda) for lambda = O(n / log n). Many independent runs go side by side as one
array. `NoisyLinear` is the same problem seen through minibatches: a value on t tokens has a standard error of
sigma / sqrt(t).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from claimbench.papers.compression.evopress.baselines import random_selections
from claimbench.papers.compression.evopress.search import Mutation, Profiles, Space, breed, level_switch


def selection_space(n: int) -> Space:
    """n units of one group, each 0 or 1."""
    return Space(np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64), np.zeros(n, dtype=np.int64))


def generations_to_optimum(
    n: int, k: int, offspring: int, runs: int, *, mutate: Mutation | None = None, seed: int = 0
) -> Int[np.ndarray, " runs"]:
    """How many generations each of `runs` independent (1+offspring) searches takes to the sorted optimum.

    Every run has its own weights and its own random start. mutate: default the level switch. An offspring as
    good as its parent replaces it, as in `search.tournament`.
    """
    rng = np.random.default_rng(seed)
    space = selection_space(n)
    change: Mutation = mutate or (lambda parents, draw: level_switch(space, parents, draw))
    weights = rng.random((runs, n))
    # the optimum is recognised by its set, so that no rounding of sums decides when a run ends
    best = np.argsort(np.argsort(weights, axis=1), axis=1) < k
    parents = random_selections(space, {0: k}, runs, rng)
    values = (parents * weights).sum(axis=1)
    taken = np.zeros(runs, dtype=np.int64)
    running = np.flatnonzero((parents != best).any(axis=1))
    generation = 0
    while len(running):
        generation += 1
        children = breed(parents[running], offspring, change, rng)
        scores = np.einsum("rcn,rn->rc", children, weights[running])
        first = scores.argmin(axis=1)
        rows = np.arange(len(running))
        better = scores[rows, first] <= values[running]
        parents[running[better]] = children[rows, first][better]
        values[running[better]] = scores[rows, first][better]
        done = (parents[running] == best[running]).all(axis=1)
        taken[running[done]] = generation
        running = running[~done]
    return taken


def random_search_evaluations(n: int, k: int, runs: int, *, seed: int = 0) -> Float[np.ndarray, " runs"]:
    """Evaluations until uniform random search first draws the optimum, drawn from their law instead of one by
    one.

    Each draw is the optimum with probability 1 / C(n, k), independently, so the number of draws is geometric.
    """
    uniform = 1.0 - np.random.default_rng(seed).random(runs)
    return np.ceil(np.log(uniform) / math.log1p(-1 / math.comb(n, k))).clip(min=1.0)


@dataclass
class NoisyLinear:
    """A linear fitness seen through minibatches (`search.Fitness`): the noise's variance is sigma^2 / tokens.

    The noise is drawn for each candidate on its own. Candidates on one minibatch of text share some of their
    noise, which makes ranking them easier than here.
    """

    weights: Float[np.ndarray, " units"]
    sigma: float

    def draw(self, tokens: int, rng: np.random.Generator) -> tuple[int, np.random.Generator]:
        return tokens, np.random.default_rng(rng.integers(2**63))

    def __call__(
        self, profiles: Profiles, minibatch: tuple[int, np.random.Generator]
    ) -> Float[np.ndarray, " candidates"]:
        tokens, noise = minibatch
        return self.true(profiles) + self.sigma / math.sqrt(tokens) * noise.standard_normal(len(profiles))

    def true(self, profiles: Int[np.ndarray, "... units"]) -> Float[np.ndarray, " ..."]:
        return np.asarray(profiles @ self.weights)
