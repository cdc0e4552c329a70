"""Representativeness, descriptions, entropy and the size principle against closed forms, brute force and libraries."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import entropy as shannon
from sklearn.feature_selection import f_classif
from sklearn.metrics import mutual_info_score
from torch import nn

from claimbench.errors import UserError
from claimbench.papers.theory.bayesian_generalization import (
    accuracy_curves,
    attribute_scores,
    balanced_curves,
    description_entropy,
    greedy_orders,
    render_concepts,
    render_family,
    representativeness,
    smallest_description,
    subjective_complexity,
    visual_entropy,
)
from claimbench.papers.theory.bayesian_generalization.attributes import (
    ORDERINGS,
    analysis_of_variance,
    attribute_given_concept,
    concept_given_attribute,
    descending,
    mutual_information,
    weight_times_activation,
)
from claimbench.papers.theory.bayesian_generalization.complexity import masked_logits
from claimbench.papers.theory.bayesian_generalization.scenes import LADDER, concept_space


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# ---- representativeness ----


def test_shares_sum_to_one_and_scale_does_not_matter(rng: np.random.Generator) -> None:
    scores = rng.gamma(1.0, size=(5, 9))
    np.testing.assert_allclose(attribute_given_concept(scores).sum(1), 1)
    np.testing.assert_allclose(concept_given_attribute(scores).sum(0), 1)
    ratio = representativeness(scores)
    assert (ratio >= 0).all()
    np.testing.assert_allclose(representativeness(3.7 * scores), ratio)
    # the definition: likelihood over the average alternative
    back = concept_given_attribute(scores)
    others = back.sum(0) - back
    np.testing.assert_allclose(ratio, attribute_given_concept(scores) / others)


def test_equal_scores_have_the_closed_form() -> None:
    concepts, attributes = 4, 7
    np.testing.assert_allclose(
        representativeness(np.full((concepts, attributes), 0.3)), (1 / attributes) / (1 - 1 / concepts)
    )


def test_an_attribute_of_one_concept_comes_first_and_a_dead_one_last(rng: np.random.Generator) -> None:
    scores = rng.gamma(1.0, size=(3, 6))
    scores[:, 2] = 0
    scores[:, 4] = [0, 1e-3, 0]
    ratio = representativeness(scores)
    assert np.isfinite(ratio).all()
    assert ratio.max() <= 1e12
    assert descending(ratio)[1, 0] == 4
    assert (ratio[:, 2] == 0).all()
    assert descending(ratio)[0, -2:].tolist() == [
        2,
        4,
    ]  # both 0 for the first concept, in the channels' order


def test_permutations_and_duplicates(rng: np.random.Generator) -> None:
    scores = rng.gamma(1.0, size=(4, 6))
    rows, columns = rng.permutation(4), rng.permutation(6)
    np.testing.assert_allclose(
        representativeness(scores[rows][:, columns]), representativeness(scores)[rows][:, columns]
    )
    alone = np.concatenate([np.zeros((1, 6)), scores[:1]])  # the other concept has none of it
    np.testing.assert_allclose(concept_given_attribute(np.concatenate([alone, scores[:1]]))[1:], 0.5)
    twice = concept_given_attribute(np.concatenate([scores, scores[:1]]))
    np.testing.assert_allclose(twice[0], twice[-1])
    np.testing.assert_allclose(1 / twice[0], 1 / concept_given_attribute(scores)[0] + 1)


def test_scores_are_means_of_the_first_images_and_negatives_count_as_nothing() -> None:
    maximum = np.array([[1.0, -2.0], [3.0, -1.0], [9.0, 9.0], [5.0, 1.0]], dtype=np.float32)
    labels = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(attribute_scores(maximum, labels, 2, images=2), [[2, 0], [5, 1]])
    with pytest.raises(UserError, match="concept 2 has no image"):
        attribute_scores(maximum, labels, 3)


def test_orderings_agree_with_libraries(rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(3), 40)
    average = rng.normal(size=(120, 5)) + 0.7 * rng.normal(size=(3, 5))[labels]
    own = analysis_of_variance(average, labels, 3)
    bins = 8
    edges = np.quantile(average, np.linspace(0, 1, bins + 1)[1:-1], axis=0)
    codes = np.stack([np.searchsorted(edges[:, a], average[:, a]) for a in range(5)], axis=1)
    information = mutual_information(average, labels, 3, bins=bins)
    for concept in range(3):
        member = labels == concept
        reference, _ = f_classif(average, member)
        higher = average[member].mean(0) > average[~member].mean(0)
        np.testing.assert_allclose(own[concept], np.where(higher, reference, 0.0))
        nats = [mutual_info_score(member, codes[:, a]) for a in range(5)]
        np.testing.assert_allclose(information[concept], np.array(nats) / np.log(2), atol=1e-12)
    weight = rng.normal(size=(3, 5))
    added = weight_times_activation(average, labels, weight)
    logits = average @ weight.T
    margin = [(logits - logits.mean(1, keepdims=True))[labels == c, c].mean() for c in range(3)]
    np.testing.assert_allclose(added.sum(1), margin)


def test_description_entropy_is_shannons(rng: np.random.Generator) -> None:
    scores = rng.gamma(0.5, size=(4, 8))
    np.testing.assert_allclose(description_entropy(scores), shannon(scores, base=2, axis=1))


# ---- descriptions ----


def toy(
    rng: np.random.Generator, attributes: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(4), 30)
    centres = rng.gamma(0.5, size=(4, attributes))
    average = np.maximum(centres[labels] + 0.4 * rng.normal(size=(120, attributes)), 0)
    return average, labels, centres - centres.mean(0), rng.normal(scale=0.1, size=4)


def test_masks_end_in_the_bias_and_in_the_unmasked_head(rng: np.random.Generator) -> None:
    average, _, weight, bias = toy(rng)
    order = rng.permutation(8)
    logits = masked_logits(average, order, weight, bias)
    np.testing.assert_allclose(logits[:, 0], np.broadcast_to(bias, (120, 4)))
    np.testing.assert_allclose(logits[:, -1], average @ weight.T + bias, rtol=0, atol=1e-12)
    kept = np.zeros(8)
    kept[order[:3]] = 1
    np.testing.assert_allclose(logits[:, 3], (average * kept) @ weight.T + bias, rtol=0, atol=1e-12)
    mean = average.mean(0)
    filled = masked_logits(average, order, weight, bias, fill=mean)
    np.testing.assert_allclose(
        filled[:, 3], (average * kept + mean * (1 - kept)) @ weight.T + bias, rtol=0, atol=1e-12
    )


def test_masking_the_feature_map_of_a_network_is_the_same() -> None:
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Linear(6, 4)
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        found = body(images)
        keep = torch.tensor([1.0, 0, 0, 1, 0, 0])[:, None, None]
        wanted = head((found * keep).mean((2, 3)))
        own = masked_logits(
            found.mean((2, 3)).numpy(),
            np.array([3, 0, 1, 2, 4, 5]),
            head.weight.double().numpy(),
            head.bias.double().numpy(),
        )[:, 2]
    np.testing.assert_allclose(own, wanted.numpy(), atol=1e-6)


def test_complexity_is_monotone_in_the_threshold_and_waits_for_a_lasting_crossing(
    rng: np.random.Generator,
) -> None:
    average, labels, weight, bias = toy(rng)
    orders = descending(rng.random((4, 8)))
    curves = accuracy_curves(average, labels, orders, weight, bias)
    lengths = [subjective_complexity(curves, threshold=t, stay=0) for t in (0.3, 0.6, 0.9, 1.0)]
    assert (np.diff(lengths, axis=0) >= 0).all()
    lucky = np.array([[0.0, 0.95, 0.2, 0.9, 0.92, 0.95, 1.0]])
    assert subjective_complexity(lucky, threshold=0.9, stay=0).tolist() == [1]
    assert subjective_complexity(lucky, threshold=0.9, stay=1).tolist() == [3]
    assert subjective_complexity(np.array([[0.0, 0.1, 0.2, 1.0]]), threshold=0.9).tolist() == [3]
    with pytest.raises(UserError, match="threshold = 1.2"):
        subjective_complexity(lucky, threshold=1.2)


def test_balanced_curves_also_count_what_is_wrongly_called(rng: np.random.Generator) -> None:
    average, labels, weight, bias = toy(rng)
    orders = descending(rng.random((4, 8)))
    curves = balanced_curves(average, labels, orders, weight, bias)
    for concept in range(4):
        kept = np.zeros(8)
        kept[orders[concept, :2]] = 1
        called = ((average * kept) @ weight.T + bias).argmax(1) == concept
        own = labels == concept
        np.testing.assert_allclose(curves[concept, 2], (called[own].mean() + (~called[~own]).mean()) / 2)
    np.testing.assert_allclose(curves[:, 0], 0.5)  # the bias alone calls everything by one name


def test_exhaustive_search_bounds_greedy_and_representative_orders() -> None:
    shorter = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        average, labels, weight, bias = toy(rng)
        scores = attribute_scores(average, labels, 4)
        lengths = {}
        for name, orders in (
            ("roa", descending(representativeness(scores))),
            ("greedy", greedy_orders(average, labels, weight, bias)),
        ):
            curves = accuracy_curves(average, labels, orders, weight, bias)
            lengths[name] = subjective_complexity(curves, threshold=0.9, stay=0)
        least = np.array([smallest_description(average[labels == c], c, weight, bias) for c in range(4)])
        assert (least <= lengths["roa"]).all()
        assert (least <= lengths["greedy"]).all()
        shorter.append(lengths["roa"].mean() - lengths["greedy"].mean())
    assert min(shorter) >= 0
    assert max(shorter) > 0


def test_the_smallest_description_is_that_of_an_independent_search(rng: np.random.Generator) -> None:
    average, labels, weight, bias = toy(rng, attributes=5)
    own = average[labels == 2]
    full = ((own @ weight.T + bias).argmax(1) == 2).mean()
    sizes = [
        len(kept)
        for size in range(1, 6)
        for kept in combinations(range(5), size)
        if ((sum(np.outer(own[:, a], weight[:, a]) for a in kept) + bias).argmax(1) == 2).mean() >= 0.9 * full
    ]
    assert smallest_description(own, 2, weight, bias) == min(sizes)
    with pytest.raises(UserError, match="17 attributes"):
        smallest_description(np.ones((2, 17)), 0, np.ones((2, 17)), np.zeros(2))


# ---- visual entropy ----


def test_entropies_of_known_images(rng: np.random.Generator) -> None:
    assert visual_entropy(np.full((1, 3, 32, 32), 0.4)) == 0
    board = np.indices((34, 34)).sum(0) % 2
    # Black and white with the neighbours' mean one half each: two pairs, equally frequent.
    np.testing.assert_allclose(visual_entropy(board[None, None].astype(float), side=None), 1.0)
    noise = rng.random((2, 1, 130, 130))
    bits = visual_entropy(noise, side=None)
    # As many independent pairs have the same expected entropy; neighbouring pairs of an image share pixels.
    draws = np.round(np.stack([rng.random(128 * 128), rng.random((128 * 128, 8)).mean(1)], axis=1) * 255)
    _, counts = np.unique(draws, axis=0, return_counts=True)
    np.testing.assert_allclose(bits, shannon(counts, base=2), atol=0.03)
    assert (bits > 0.95 * np.log2(128 * 128)).all()
    turned = np.rot90(noise, axes=(2, 3))
    np.testing.assert_allclose(visual_entropy(turned, side=None), bits, atol=1e-3)


def test_entropy_is_that_of_a_direct_count(rng: np.random.Generator) -> None:
    picture = rng.integers(0, 4, (12, 12)) / 3
    level = np.round(picture * 255)
    pairs = [
        (level[i, j], int((picture[i - 1 : i + 2, j - 1 : j + 2].sum() - picture[i, j]) / 8 * 255 + 0.501))
        for i in range(1, 11)
        for j in range(1, 11)
    ]
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    np.testing.assert_allclose(
        visual_entropy(picture[None, None], side=None), shannon(counts, base=2), atol=1e-9
    )
    with pytest.raises(UserError, match="3 x 3"):
        visual_entropy(np.zeros((1, 1, 2, 2)), side=None)


def test_families_differ_in_entropy_and_not_in_number() -> None:
    bits = {}
    for family in LADDER:
        pixels, labels = render_family(family, classes=10, count=3, side=24, seed=1)
        assert pixels.shape == (30, 3, 24, 24)
        assert pixels.dtype == np.float32
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert np.bincount(labels).tolist() == [3] * 10
        assert np.array_equal(render_family(family, classes=10, count=3, side=24, seed=1)[0], pixels)
        bits[family] = visual_entropy(pixels[::3], side=None).mean()
    assert bits["silhouettes"] < bits["shaded"] < bits["camouflage"] < bits["stripes"]
    with pytest.raises(UserError, match="no family"):
        render_family("outline", classes=4, count=1, side=8, seed=0)
    pixels, labels = render_concepts(concept_space()[:7], count=2, side=16, seed=2)
    assert pixels.shape == (14, 3, 16, 16)
    assert len(set(concept_space())) == 432


def test_orderings_take_the_same_arguments(rng: np.random.Generator) -> None:
    average, labels, weight, _ = toy(rng)
    scores = attribute_scores(average, labels, 4)
    for ordering in ORDERINGS.values():
        assert ordering(scores, average, labels, weight).shape == (4, 8)
