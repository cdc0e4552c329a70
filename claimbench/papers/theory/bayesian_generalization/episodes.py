"""Few-shot episodes judged by rules, by similarity, or by a probe (arXiv 2211.11033 at the computational level).

The paper's released code holds no such experiment in runnable form: this protocol is an interpretation. In an episode
several new concepts show some examples each, and queries are given to the concept with the largest score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from claimbench.errors import UserError
from claimbench.papers.theory.bayesian_generalization.attributes import EPSILON, Scores
from claimbench.papers.theory.bayesian_generalization.hypotheses import rule_scores

AT_ONCE = 100  # episodes: the arrays of rules grow with sets x images

Pool = Float[np.ndarray, "images attributes"]


@dataclass(frozen=True)
class Episodes:
    """Places of images in a pool, and the concepts that they show."""

    support: Int[np.ndarray, "episodes ways shots"]
    query: Int[np.ndarray, "episodes ways queries"]
    concepts: Int[np.ndarray, "episodes ways"]

    def part(self, first: int, count: int) -> Episodes:
        chosen = slice(first, first + count)
        return Episodes(self.support[chosen], self.query[chosen], self.concepts[chosen])


@dataclass(frozen=True)
class Base:
    """What is known before an episode: base concepts' images and attribute scores."""

    maximum: Pool
    average: Pool
    scores: Scores


Mode = Callable[[Episodes, Pool, Pool, Base, float], Float[np.ndarray, "episodes ways tested"]]
"""f(episodes, maximum, average, base, setting): the score of every way for every query of its episode."""


def draw_episodes(
    labels: Int[np.ndarray, " images"],
    *,
    ways: int,
    shots: int,
    queries: int,
    count: int,
    seed: int | list[int],
) -> Episodes:
    """`count` episodes of different concepts, with examples and queries that are different images.

    Raises UserError for too few concepts, or a concept with fewer than shots + queries images.
    """
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(labels == concept) for concept in np.unique(labels)]
    least = min(map(len, places))
    if len(places) < ways:
        raise UserError(
            f"{len(places)} new concepts for episodes of {ways}; give more classes or --size ways=N"
        )
    if least < shots + queries:
        raise UserError(
            f"a concept has {least} images for {shots} examples and {queries} queries; give more images"
        )
    concepts = np.argsort(rng.random((count, len(places))), axis=1)[:, :ways]
    drawn = np.stack(
        [
            np.stack([rng.permutation(places[concept])[: shots + queries] for concept in row])
            for row in concepts
        ]
    )
    return Episodes(drawn[..., :shots], drawn[..., shots:], np.unique(labels)[concepts])


def concept_accuracy(
    mode: Mode, episodes: Episodes, maximum: Pool, average: Pool, base: Base, setting: float
) -> dict[int, float]:
    """Share of each concept's queries given to it; a query for which several ways tie counts in parts."""
    right: dict[int, list[np.ndarray]] = {}
    ways, queries = episodes.concepts.shape[1], episodes.query.shape[2]
    own = np.arange(ways).repeat(queries)
    for first in range(0, len(episodes.concepts), AT_ONCE):
        part = episodes.part(first, AT_ONCE)
        scores = mode(part, maximum, average, base, setting)
        best = np.isclose(scores, scores.max(axis=1, keepdims=True), rtol=1e-9, atol=0)
        hit = (best / best.sum(axis=1, keepdims=True))[:, own, np.arange(len(own))]
        hit = hit.reshape(len(hit), ways, queries).mean(axis=2)
        for concept in np.unique(part.concepts):
            right.setdefault(int(concept), []).append(hit[part.concepts == concept])
    return {concept: float(np.concatenate(hits).mean()) for concept, hits in right.items()}


def few_shot_representativeness(
    support: Float[np.ndarray, "*sets shots attributes"], base: Base
) -> Float[np.ndarray, "*sets attributes"]:
    """R(a, c) of a new concept among the base ones, its raw scores taken over its examples."""
    score = np.maximum(support, 0).mean(axis=-2, dtype=np.float64)
    own = score / np.maximum(score.sum(axis=-1, keepdims=True), EPSILON)
    back = score / np.maximum(score + base.scores.sum(axis=0), EPSILON)
    return own / np.maximum(1.0 - back, EPSILON)


def by_rules(
    episodes: Episodes, maximum: Pool, average: Pool, base: Base, setting: float
) -> Float[np.ndarray, "episodes ways tested"]:
    """Bayesian average over conjunctions of each concept's `setting` most representative attributes, each on or off.

    An attribute is on where it exceeds its median over base images; a conjunction's size is the share of base images
    that satisfy it.
    """
    edge = np.median(base.maximum, axis=0)
    count, ways, shots = episodes.support.shape
    support = maximum[episodes.support].reshape(count * ways, shots, -1)
    ranked = np.argsort(-few_shot_representativeness(support, base), axis=1, kind="stable")
    chosen = ranked[:, : int(setting)]
    used, places = np.unique(episodes.query, return_inverse=True)
    scores = rule_scores(support > edge, maximum[used] > edge, base.maximum > edge, chosen)
    tested = places.reshape(count, 1, -1)
    return np.take_along_axis(
        scores.reshape(count, ways, -1), np.broadcast_to(tested, (count, ways, tested.shape[2])), 2
    )


def by_similarity(
    episodes: Episodes, maximum: Pool, average: Pool, base: Base, setting: float
) -> Float[np.ndarray, "episodes ways tested"]:
    """Cosine of a query to the mean of the examples, attributes weighted by R to the power `setting`."""
    count = len(episodes.concepts)
    weights = few_shot_representativeness(maximum[episodes.support], base)
    weights = (weights / np.maximum(weights.max(axis=-1, keepdims=True), EPSILON)) ** setting
    prototypes = average[episodes.support].mean(axis=2, dtype=np.float64)
    queries = average[episodes.query.reshape(count, -1)].astype(np.float64)
    squared = weights**2
    inner = np.einsum("ewa,eqa->ewq", squared * prototypes, queries)
    lengths = (
        np.einsum("ewa,eqa->ewq", squared, queries**2) * (squared * prototypes**2).sum(axis=2)[..., None]
    )
    return inner / np.sqrt(np.maximum(lengths, EPSILON))


def by_probe(
    episodes: Episodes, maximum: Pool, average: Pool, base: Base, setting: float
) -> Float[np.ndarray, "episodes ways tested"]:
    """Ridge regression on the examples, one against the rest, on features standardised over base images; the penalty is
    `setting` times the number of attributes.
    """
    count, ways, shots = episodes.support.shape
    centre, spread = base.average.mean(axis=0), np.maximum(base.average.std(axis=0), 1e-6)
    support = (average[episodes.support.reshape(count, -1)] - centre) / spread
    queries = (average[episodes.query.reshape(count, -1)] - centre) / spread
    mean = support.mean(axis=1, keepdims=True)
    support, queries = support - mean, queries - mean
    targets = np.eye(ways).repeat(shots, axis=0) - 1 / ways
    gram = support @ support.transpose(0, 2, 1) + setting * support.shape[2] * np.eye(ways * shots)
    scores = (
        queries
        @ support.transpose(0, 2, 1)
        @ np.linalg.solve(gram, np.broadcast_to(targets, (count, *targets.shape)))
    )
    return scores.transpose(0, 2, 1)


MODES: dict[str, tuple[Mode, tuple[float, ...]]] = {
    "rules": (by_rules, (4, 7, 10)),
    "similarity": (by_similarity, (0.0, 0.5, 1.0)),
    "linear-probe": (by_probe, (0.01, 0.1, 1.0)),
}
"""Each mode and the three settings that it may be tuned over."""
