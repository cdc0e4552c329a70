"""EvoPress's search: the budget never moves, the parent never worsens, the optimum is found, all is reproducible."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from claimbench.errors import UserError
from claimbench.papers.compression.evopress import linear
from claimbench.papers.compression.evopress.baselines import (
    dynamic_programme,
    flip_and_repair,
    greedy_removal,
    nearest_profile,
    owl_sparsities,
    random_search,
    random_selections,
    summed_errors,
)
from claimbench.papers.compression.evopress.search import (
    Exact,
    Space,
    Stage,
    breed,
    evolve,
    level_switch,
    swap_counts,
    tournament,
    ungrouped_switch,
)

MUTATIONS = 10_000


def depth_like() -> tuple[Space, np.ndarray]:
    """12 attention and 12 MLP units, one of each protected, 3 of each dropped."""
    upper = np.ones(24, dtype=np.int64)
    upper[[0, 12]] = 0
    space = Space(np.zeros(24, dtype=np.int64), upper, np.repeat([0, 1], 12))
    return space, random_selections(space, {0: 3, 1: 3}, 1, np.random.default_rng(0))[0]


def sparsity_like() -> tuple[Space, np.ndarray]:
    """28 linears of one group, levels around 0 with bounds of their own."""
    rng = np.random.default_rng(1)
    space = Space(
        -rng.integers(1, 9, 28), rng.integers(1, 9, 28), np.zeros(28, dtype=np.int64), np.full(28, 512)
    )
    return space, np.zeros(28, dtype=np.int64)


def bits_like() -> tuple[Space, np.ndarray]:
    """Linears of three sizes, 2 to 6 bits; only equal sizes may exchange."""
    sizes = np.repeat([4096, 8192, 12_000], [10, 6, 2])
    return Space(np.full(18, 2), np.full(18, 6), sizes, sizes), np.full(18, 3)


@pytest.mark.parametrize("problem", [depth_like, sparsity_like, bits_like])
def test_ten_thousand_mutations_keep_the_budget_and_the_bounds(problem) -> None:
    space, profile = problem()
    rng = np.random.default_rng(2)
    wanted = profile @ space.membership
    walk = np.tile(profile, (100, 1))
    for _ in range(MUTATIONS // len(walk)):
        before, walk = walk, level_switch(space, walk, rng)
        assert np.array_equal(walk @ space.membership, np.tile(wanted, (len(walk), 1)))
        assert np.array_equal(space.sizes(walk), np.full(len(walk), space.sizes(profile)))
        assert space.contains(walk).all()
        # at most three steps down and three up
        assert (np.abs(walk - before).sum(axis=1) <= 6).all()
    assert len(np.unique(walk, axis=0)) > 50


@given(
    st.lists(st.tuples(st.integers(-3, 0), st.integers(0, 3), st.integers(0, 2)), min_size=2, max_size=9),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_any_space_keeps_its_groups_sums(units, seed) -> None:
    lower, upper, group = (np.array(column) for column in zip(*units, strict=True))
    space = Space(lower, upper, group)
    start = np.zeros((5, len(units)), dtype=np.int64)
    try:
        children = level_switch(space, start, np.random.default_rng(seed))
    except UserError:
        movable = (start[0] > lower).astype(int) @ space.membership
        # refused only where no unit can fall while another of its group rises
        for index in range(space.membership.shape[1]):
            members = space.membership[:, index] > 0
            falling, rising = np.flatnonzero(members & (lower < 0)), np.flatnonzero(members & (upper > 0))
            assert not any(a != b for a in falling for b in rising), movable
        return
    assert np.array_equal(children @ space.membership, start @ space.membership)
    assert space.contains(children).all()


def test_numbers_of_swaps_have_the_papers_probabilities() -> None:
    counts = np.bincount(swap_counts(90_000, np.random.default_rng(3)), minlength=4)
    assert counts[0] == 0
    assert chisquare(counts[1:], np.array([5, 3, 1]) / 9 * 90_000).pvalue > 1e-4


def test_one_swap_is_uniform_over_pairs_and_types() -> None:
    space, profile = depth_like()
    rng = np.random.default_rng(4)
    children = level_switch(space, np.tile(profile, (20_000, 1)), rng)
    single = children[np.abs(children - profile).sum(axis=1) == 2]
    _, counts = np.unique(single, axis=0, return_counts=True)
    # 3 dropped times 8 kept and free, for each type; further swaps that undo each other leave few single ones more
    assert len(counts) == 2 * 3 * 8
    assert chisquare(counts).pvalue > 1e-4


def test_ungrouped_switch_never_exceeds_the_budget() -> None:
    space, profile = bits_like()
    budget = float(space.sizes(profile))
    rng = np.random.default_rng(5)
    walk = np.tile(profile, (20, 1))
    for _ in range(20):
        before, walk = walk, ungrouped_switch(space, walk, rng, budget=budget)
        assert (space.sizes(walk) <= budget).all()
        assert space.contains(walk).all()
        assert (np.abs(walk - before).sum(axis=1) <= 10).all()
    assert (walk != profile).any(axis=1).all()


def test_offspring_are_distinct_and_differ_from_their_parent() -> None:
    space = linear.selection_space(8)
    parents = random_selections(space, {0: 2}, 6, np.random.default_rng(6))
    children = breed(parents, 20, lambda rows, rng: level_switch(space, rows, rng), np.random.default_rng(7))
    for parent, family in zip(parents, children, strict=True):
        assert len(np.unique(np.concatenate([parent[None], family]), axis=0)) == 21


def test_a_neighbourhood_smaller_than_the_brood_is_searched_whole() -> None:
    space = linear.selection_space(3)
    weights = np.array([3.0, 1.0, 2.0])
    result = evolve(
        space,
        Exact(lambda p: p @ weights),
        np.array([1, 0, 0]),
        generations=1,
        offspring=8,
        stages=[Stage(1, 1)],
    )
    assert result.levels.tolist() == [0, 1, 0]


class Recorded:
    """A fitness that notes its minibatches: value of a profile on minibatch m is weights[m] . profile."""

    def __init__(self, units: int, fixed: bool = False) -> None:
        self.rng = np.random.default_rng(8)
        self.units, self.fixed = units, fixed
        self.calls: list[tuple[int, int, int]] = []
        self.drawn = 0

    def draw(self, tokens, rng):
        self.drawn += 1
        noise = np.zeros(self.units) if self.fixed else rng.random(self.units)
        return self.drawn, tokens, np.arange(self.units) / self.units + noise

    def __call__(self, profiles, minibatch):
        number, tokens, weights = minibatch
        self.calls.append((number, tokens, len(profiles)))
        return profiles @ weights


def test_a_stage_is_one_draw_for_all_and_the_next_stage_draws_again() -> None:
    space = linear.selection_space(12)
    fitness = Recorded(12)
    start = random_selections(space, {0: 3}, 5, np.random.default_rng(9))
    stages = [Stage(10, 4), Stage(50, 2), Stage(200, 1)]
    result = evolve(space, fitness, start, generations=2, offspring=9, stages=stages, start_tokens=7, seed=0)
    # parents join before the last stage: 2 survivors and 1 parent
    assert [call[1:] for call in fitness.calls] == [(7, 5), *[(10, 9), (50, 4), (200, 3)] * 2]
    assert [call[0] for call in fitness.calls] == list(range(1, 8)), "one fresh draw a stage"
    assert result.tokens == 7 * 5 + 2 * (10 * 9 + 50 * 4 + 200 * 3)


def test_fitness_never_worsens_on_a_fixed_last_minibatch() -> None:
    space, profile = sparsity_like()

    class NoisyThenExact(Recorded):
        def draw(self, tokens, rng):
            # whole numbers, so that no rounding of sums hides or feigns a rise
            return (
                0,
                tokens,
                np.arange(self.units) * 37 % 23 + (rng.normal(size=self.units) if tokens == 1 else 0),
            )

    result = evolve(
        space,
        NoisyThenExact(28),
        profile,
        generations=60,
        offspring=6,
        stages=[Stage(1, 2), Stage(2, 1)],
        seed=1,
    )
    values = [generation.fitness for generation in result.history[1:]]
    assert all(after <= before for before, after in itertools.pairwise(values))
    assert values[-1] < values[0]


def test_ties_go_to_the_offspring_and_failures_never_win() -> None:
    flat = Exact(lambda p: np.where(p[:, 0] == 1, np.nan, 1.0))
    candidates = np.array([[1, 0, 0], [0, 1, 0]])
    best, values, _ = tournament(
        candidates, np.array([0, 0, 1]), flat, [Stage(1, 1)], np.random.default_rng(0)
    )
    assert best.tolist() == [[0, 1, 0]]
    assert values.tolist() == [1.0]


def test_finds_the_sorted_optimum_of_a_linear_fitness() -> None:
    rng = np.random.default_rng(10)
    for _ in range(3):
        weights = rng.random(20)
        space = linear.selection_space(20)
        start = random_selections(space, {0: 5}, 1, rng)[0]
        result = evolve(
            space,
            Exact(lambda p, w=weights: p @ w),
            start,
            generations=300,
            offspring=8,
            stages=[Stage(1, 1)],
            seed=rng,
        )
        assert set(np.flatnonzero(result.levels)) == set(np.argsort(weights)[:5])


def test_finds_the_brute_force_optimum_of_a_quadratic_fitness() -> None:
    """n = 12, k = 3, with interactions between units: 220 profiles, enumerated."""
    n, k = 12, 3
    rng = np.random.default_rng(11)
    space = linear.selection_space(n)
    every = np.array([[int(i in chosen) for i in range(n)] for chosen in itertools.combinations(range(n), k)])
    for _ in range(5):
        matrix = rng.normal(size=(n, n))
        fitness = Exact(lambda p, m=matrix: np.einsum("ci,ij,cj->c", p, m, p))
        start = random_selections(space, {0: k}, 1, rng)[0]
        result = evolve(space, fitness, start, generations=60, offspring=8, stages=[Stage(1, 1)], seed=rng)
        assert np.array_equal(result.levels, every[fitness(every, None).argmin()])


def test_is_reproducible_bit_for_bit_under_a_seed() -> None:
    space, profile = bits_like()

    def run(seed):
        fitness = linear.NoisyLinear(np.sin(np.arange(18)), 0.3)
        stages = [Stage(1, 3), Stage(4, 1)]
        return evolve(space, fitness, profile, generations=25, offspring=7, stages=stages, seed=seed).history

    first, again, other = run(5), run(5), run(6)
    assert [(g.levels.tolist(), g.tokens) for g in first] == [(g.levels.tolist(), g.tokens) for g in again]
    assert [g.fitness for g in first][1:] == [g.fitness for g in again][1:]
    assert [g.levels.tolist() for g in first] != [g.levels.tolist() for g in other]


def test_the_users_mistakes_are_named() -> None:
    space = linear.selection_space(4)
    flat = Exact(lambda p: p.sum(axis=1).astype(float))
    with pytest.raises(UserError, match="start: a level lies outside"):
        evolve(space, flat, np.array([2, 0, 0, 0]), generations=1, offspring=1, stages=[Stage(1, 1)])
    with pytest.raises(UserError, match="stages: the last stage must keep 1"):
        evolve(space, flat, np.array([1, 0, 0, 0]), generations=1, offspring=1, stages=[Stage(1, 2)])
    with pytest.raises(UserError, match="no level can be switched"):
        level_switch(space, np.zeros((1, 4), dtype=np.int64), np.random.default_rng(0))
    with pytest.raises(UserError, match="different costs"):
        Space(np.zeros(2, int), np.ones(2, int), np.zeros(2, int), np.array([1, 2]))


# ---- baselines ----


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_dynamic_programme_equals_exhaustive_search(units, seed) -> None:
    rng = np.random.default_rng(seed)
    errors = [rng.random(rng.integers(1, 5)) for _ in range(units)]
    costs = [rng.integers(-2, 4, len(error)) for error in errors]
    choices = list(itertools.product(*(range(len(error)) for error in errors)))
    total = np.array([sum(int(cost[j]) for cost, j in zip(costs, choice, strict=True)) for choice in choices])
    value = np.array([sum(error[j] for error, j in zip(errors, choice, strict=True)) for choice in choices])
    for budget in range(int(total.min()) - 1, int(total.max()) + 2):
        if budget not in total:
            with pytest.raises(UserError, match="budget"):
                dynamic_programme(errors, costs, budget)
            continue
        levels = dynamic_programme(errors, costs, budget)
        assert sum(int(cost[j]) for cost, j in zip(costs, levels, strict=True)) == budget
        found = sum(error[j] for error, j in zip(errors, levels, strict=True))
        assert found == pytest.approx(value[total == budget].min())


def test_summed_errors_drop_the_cheapest_of_each_group() -> None:
    space, _ = depth_like()
    errors = np.random.default_rng(12).random(24)
    profile = summed_errors(space, np.stack([np.zeros(24), errors], axis=1), {0: 3, 1: 2})
    assert set(np.flatnonzero(profile[:12])) == set(1 + np.argsort(errors[1:12])[:3])
    assert set(np.flatnonzero(profile[12:])) == set(1 + np.argsort(errors[13:])[:2])


def test_greedy_is_the_sorted_choice_on_additive_fitness_and_spends_the_budget() -> None:
    space, _ = depth_like()
    weights = np.random.default_rng(13).random(24)
    result = greedy_removal(space, Exact(lambda p: p @ weights), {0: 3, 1: 3}, tokens=100_000)
    assert set(np.flatnonzero(result.levels[:12])) == set(1 + np.argsort(weights[1:12])[:3])
    assert 0.95 * 100_000 < result.tokens <= 100_000


def test_random_search_spends_what_evopress_spends() -> None:
    space, start = depth_like()
    arguments = {"generations": 4, "offspring": 6, "stages": [Stage(10, 2), Stage(40, 1)]}
    fitness = linear.NoisyLinear(np.arange(24.0), 0.1)
    ours = evolve(
        space,
        fitness,
        random_selections(space, {0: 3, 1: 3}, 8, np.random.default_rng(0)),
        start_tokens=5,
        **arguments,
    )
    theirs = random_search(space, fitness, {0: 3, 1: 3}, starts=8, start_tokens=5, **arguments)
    assert theirs.tokens == ours.tokens
    assert np.array_equal(theirs.levels @ space.membership, start @ space.membership)


def test_repair_restores_the_number_of_ones_and_moves() -> None:
    parents = random_selections(linear.selection_space(16), {0: 4}, 2000, np.random.default_rng(14))
    children = flip_and_repair(parents, np.random.default_rng(15))
    assert (children.sum(axis=1) == 4).all()
    assert set(np.unique(children)) == {0, 1}
    assert 0.3 < (children != parents).any(axis=1).mean() < 1


def test_owl_keeps_the_mean_and_favours_outliers() -> None:
    outliers = np.array([0.1, 0.5, 0.3])
    sparsities = owl_sparsities(outliers, 0.6, 0.05)
    assert sparsities.mean() == pytest.approx(0.6)
    assert np.ptp(sparsities) == pytest.approx(0.1)
    assert np.array_equal(np.argsort(sparsities), np.argsort(-outliers))
    assert owl_sparsities(np.ones(3), 0.6).tolist() == [0.6] * 3


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_nearest_profile_has_the_sum_and_stays_near(seed) -> None:
    rng = np.random.default_rng(seed)
    space, _ = sparsity_like()
    wanted = rng.normal(scale=3, size=28).clip(space.lower, space.upper)
    profile = nearest_profile(wanted, space, 0)
    assert profile.sum() == 0
    assert space.contains(profile)
    if abs(wanted.sum()) < 1:
        assert np.abs(profile - wanted).max() < 2


# ---- linear problems ----


def test_random_searchs_law_is_what_drawing_gives() -> None:
    n, k, runs = 8, 2, 400
    rng = np.random.default_rng(16)
    space = linear.selection_space(n)
    draws = random_selections(space, {0: k}, runs * 400, rng).reshape(runs, 400, n)
    hit = draws[:, :, :k].all(axis=2)
    assert hit.any(axis=1).mean() > 0.99
    seen = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 400)
    law = linear.random_search_evaluations(n, k, 4000, seed=1)
    assert law.mean() == pytest.approx(28, rel=0.1)  # C(8, 2); the standard error is 1.6 %
    assert kstest(seen, law).pvalue > 1e-4


def test_generations_agree_with_the_searchs_own_loop() -> None:
    """The side-by-side runs and `evolve` are the same algorithm: equal distributions of the generations needed."""
    n, k, offspring = 10, 3, 1
    many = linear.generations_to_optimum(n, k, offspring, 300, seed=0)
    rng = np.random.default_rng(17)
    space = linear.selection_space(n)
    one_by_one = []
    for _ in range(60):
        weights = rng.random(n)
        best = np.sort(weights)[:k].sum() + 1e-12
        start = random_selections(space, {0: k}, 1, rng)[0]
        result = evolve(
            space,
            Exact(lambda p, w=weights: p @ w),
            start,
            generations=10_000,
            offspring=offspring,
            stages=[Stage(1, 1)],
            seed=rng,
            until=lambda g, b=best: g.fitness <= b,
        )
        one_by_one.append(len(result.history) - 1)
    assert kstest(many[many > 0], one_by_one).pvalue > 1e-4


def test_noise_shrinks_with_tokens() -> None:
    fitness = linear.NoisyLinear(np.zeros(3), sigma=2.0)
    rng = np.random.default_rng(18)
    profiles = np.zeros((4000, 3), dtype=np.int64)
    for tokens in (4, 400):
        assert np.std(fitness(profiles, fitness.draw(tokens, rng))) == pytest.approx(
            2 / tokens**0.5, rel=0.06
        )
