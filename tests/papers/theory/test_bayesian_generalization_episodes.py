"""Rules by the size principle and few-shot episodes against closed forms, brute force and scikit-learn."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from claimbench.errors import UserError
from claimbench.papers.theory.bayesian_generalization import (
    draw_episodes,
    generalise,
    posterior,
    rule_scores,
)
from claimbench.papers.theory.bayesian_generalization.episodes import (
    MODES,
    Base,
    by_probe,
    by_similarity,
    concept_accuracy,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# ---- the size principle ----


def intervals(points: int) -> np.ndarray:
    place = np.arange(points)
    low, high = np.array([(a, b) for a in range(points) for b in range(a, points)]).T
    return (place >= low[:, None]) & (place <= high[:, None])


def test_nested_hypotheses_shrink_to_the_smallest_consistent_one() -> None:
    members = np.tri(6, 12, 5, dtype=bool)  # sizes 6 to 11, one in the other
    mass = []
    for examples in (1, 2, 5, 40):
        places = np.arange(examples) % 3
        mass.append(posterior(members[:, places].all(1), members.sum(1).astype(float), examples)[0])
    assert mass == sorted(mass)
    assert mass[-1] > 0.99
    sizes = np.arange(6, 12.0)
    np.testing.assert_allclose(mass[1], (sizes[0] ** -2) / (sizes**-2).sum())


@pytest.mark.parametrize(("power", "examples"), [(0, 6), (1, 5), (1, 7)])
def test_intervals_follow_the_closed_form(power: int, examples: int) -> None:
    # All intervals of a line, prior size^-power: P(y|X) = (1 + d/r)^-(n + power - 2) (Tenenbaum 1999), here on a grid.
    points, first, last = 400, 180, 220
    members = intervals(points)
    places = np.linspace(first, last, examples).round().astype(int)
    chance = generalise(members, places, prior=members.sum(1).astype(float) ** -power)
    assert np.allclose(chance[first : last + 1], 1)
    for distance in (10, 20, 40):
        wanted = (1 + distance / (last - first)) ** -(examples + power - 2)
        # The grid's spacing is 1/40 of the range, its ends are more than 4 ranges away.
        assert chance[last + distance] == pytest.approx(wanted, rel=0.08)
        assert chance[first - distance] == pytest.approx(chance[last + distance], rel=0.02)


def test_rules_are_the_bayesian_average_over_conjunctions(rng: np.random.Generator) -> None:
    background = rng.random((60, 5)) > 0.5
    support, queries = rng.random((2, 3, 5)) > 0.3, rng.random((7, 5)) > 0.4
    chosen = np.array([[0, 2, 3], [4, 1, 0]])
    own = rule_scores(support, queries, background, chosen)
    for index in range(2):
        things = np.concatenate([background, queries, support[index]])
        rules = [kept for size in range(4) for kept in combinations(chosen[index].tolist(), size)]
        holds = np.array(
            [things[:, list(kept)].all(1) if kept else np.ones(len(things), bool) for kept in rules]
        )
        sizes = (holds[:, :60].sum(1) + 0.5) / 61
        weights = sizes**-3.0 * holds[:, -3:].all(1)
        wanted = (weights[:, None] * holds[:, 60:67]).sum(0) / weights.sum()
        np.testing.assert_allclose(own[index], wanted)


# ---- episodes ----


def test_episodes_are_of_different_images() -> None:
    labels = np.repeat(np.arange(6), 9)
    episodes = draw_episodes(labels, ways=5, shots=2, queries=3, count=20, seed=1)
    for index in range(20):
        used = np.concatenate([episodes.support[index].ravel(), episodes.query[index].ravel()])
        assert len(set(used.tolist())) == 25
        assert (labels[episodes.support[index]] == episodes.concepts[index][:, None]).all()
        assert len(set(episodes.concepts[index].tolist())) == 5
    with pytest.raises(UserError, match="9 images for 8 examples and 3"):
        draw_episodes(labels, ways=5, shots=8, queries=3, count=1, seed=0)
    with pytest.raises(UserError, match="6 new concepts for episodes of 7"):
        draw_episodes(labels, ways=7, shots=1, queries=1, count=1, seed=0)


def test_every_mode_learns_separate_concepts_and_guesses_without_signal(rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(6), 12)
    bits = np.eye(6)[labels] + 0.05 * rng.random((72, 6))
    base = Base(*(np.concatenate([np.eye(6)] * 4) + 0.05,) * 2, scores=np.full((3, 6), 0.3))
    episodes = draw_episodes(labels, ways=3, shots=2, queries=4, count=60, seed=0)
    flat = np.full((72, 6), 0.5)
    for mode, settings in MODES.values():
        sharp = concept_accuracy(mode, episodes, bits, bits, base, settings[0])
        assert set(sharp) == set(range(6))
        assert min(sharp.values()) == 1.0
        blind = concept_accuracy(mode, episodes, flat, flat, base, settings[0])
        np.testing.assert_allclose(list(blind.values()), 1 / 3)


def test_similarity_is_a_cosine_and_the_probe_is_ridge(rng: np.random.Generator) -> None:
    from sklearn.linear_model import Ridge

    labels = np.repeat(np.arange(5), 8)
    average = rng.gamma(1.0, size=(40, 6))
    base = Base(average[:20], average[:20], np.ones((2, 6)))
    episodes = draw_episodes(labels, ways=3, shots=2, queries=2, count=2, seed=3)
    scores = by_similarity(episodes, average, average, base, 0.0)
    probe = by_probe(episodes, average, average, base, 0.1)
    standard = (average - average[:20].mean(0)) / average[:20].std(0)
    for index in range(2):
        query = average[episodes.query[index].ravel()]
        for way in range(3):
            centre = average[episodes.support[index, way]].mean(0)
            cosine = query @ centre / np.linalg.norm(centre) / np.linalg.norm(query, axis=1)
            np.testing.assert_allclose(scores[index, way], cosine)
        model = Ridge(alpha=0.1 * 6).fit(
            standard[episodes.support[index].ravel()], np.eye(3).repeat(2, axis=0)
        )
        wanted = model.predict(standard[episodes.query[index].ravel()]).T - 1 / 3
        np.testing.assert_allclose(probe[index], wanted, atol=1e-9)
