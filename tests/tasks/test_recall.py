"""Multi-query recall: what every sequence promises, the distribution of gaps, streams, and the user's own symbols."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from claimbench.tasks.recall import FILLER, IGNORED, Recall, recall_of, stream


def bindings(row: Tensor, pairs: int) -> dict[int, int]:
    return {int(row[2 * i]): int(row[2 * i + 1]) for i in range(pairs)}


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize(("vocabulary", "length", "pairs"), [(12, 8, 2), (64, 32, 8), (200, 100, 16)])
def test_every_query_asks_for_the_value_that_its_key_has(
    noise: bool, vocabulary: int, length: int, pairs: int
) -> None:
    task = Recall(vocabulary, length, pairs, random_non_queries=noise)
    inputs, labels = task.draw(200, stream(1, "train"))
    assert inputs.shape == labels.shape == (200, length)
    assert bool((labels[:, : 2 * pairs] == IGNORED).all())
    for row, answers in zip(inputs, labels, strict=True):
        bound = bindings(row, pairs)
        assert len(bound) == len(set(bound.values())) == pairs  # keys are unique, and so are values
        assert set(bound) <= set(range(1, vocabulary // 2))
        assert set(bound.values()) <= set(range(vocabulary // 2, vocabulary))
        places = (answers != IGNORED).nonzero()[:, 0]
        assert bool((places % 2 == 0).all())
        asked = {int(row[place]): int(answers[place]) for place in places}
        assert asked == bound  # each key once, with its own value
        rest = row.clone()
        rest[: 2 * pairs] = 1
        rest[places] = 1
        assert bool((rest == FILLER).any()) or noise or 4 * pairs == length
    if not noise:
        others = (labels == IGNORED)[:, 2 * pairs :]
        assert bool((inputs[:, 2 * pairs :][others] == FILLER).all())


def test_noise_is_any_symbol_and_leaves_queries_alone() -> None:
    quiet, noisy = (Recall(40, 24, 3, random_non_queries=noise) for noise in (False, True))
    still, labels = quiet.draw(500, stream(4, "train"))
    loud, same = noisy.draw(500, stream(4, "train"))
    assert torch.equal(labels, same)
    kept = still != FILLER
    assert torch.equal(still[kept], loud[kept])
    assert set(loud[~kept].tolist()) == set(range(40))


def test_gaps_follow_the_power_law_without_replacement() -> None:
    """Brute force: the chance of an ordered choice of 2 of 4 places is p_i p_j / (1 − p_i)."""
    task = Recall(20, 12, 2, power=0.01, random_non_queries=False)
    inputs, labels = task.draw(40_000, stream(0, "train"))
    keys = inputs[:, [0, 2]]
    places = torch.stack(
        [(inputs[:, 4:] == keys[:, i, None]).float().argmax(1) // 2 for i in range(2)], dim=1
    )
    weights = torch.arange(1, 5, dtype=torch.float64) ** -0.99
    p = (weights / weights.sum()).tolist()
    for i, j in permutations(range(4), 2):
        expected = p[i] * p[j] / (1 - p[i])
        found = float(((places[:, 0] == i) & (places[:, 1] == j)).double().mean())
        assert abs(found - expected) < 5 * (expected * (1 - expected) / 40_000) ** 0.5
    assert bool((labels != IGNORED).sum(1).eq(2).all())


def test_streams_repeat_and_share_nothing() -> None:
    task = Recall(64, 32, 8)
    drawn = {
        (seed, split): task.draw(50, stream(seed, split))[0]
        for seed in (0, 1, 1000)
        for split in ("train", "validation", "test")
    }
    assert torch.equal(drawn[0, "test"], task.draw(50, stream(0, "test"))[0])
    rows = torch.cat(list(drawn.values()))
    assert len(rows.unique(dim=0)) == len(rows) == 450


@pytest.mark.parametrize(
    ("vocabulary", "length", "pairs", "word"),
    [(64, 31, 4, "even"), (64, 30, 8, "4 tokens a pair"), (32, 32, 2, "exceed"), (64, 32, 0, "pairs")],
)
def test_what_does_not_fit_is_refused(vocabulary: int, length: int, pairs: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Recall(vocabulary, length, pairs)


def test_keys_and_values_of_ones_own_are_drawn_as_often_as_they_occur() -> None:
    table = [("cat", "miaow")] * 30 + [("dog", "woof"), ("cow", "moo"), ("hen", "cluck")]
    task, names = recall_of(table, length=8, pairs=1, random_non_queries=False)
    inputs, _ = task.draw(4000, stream(0, "train"))
    keys = [names[symbol] for symbol in inputs[:, 0].tolist()]
    values = [names[symbol] for symbol in inputs[:, 1].tolist()]
    assert set(keys) == {"cat", "dog", "cow", "hen"}
    assert set(values) == {"miaow", "woof", "moo", "cluck"}
    assert abs(keys.count("cat") / 4000 - 30 / 33) < 0.025
    assert any(
        k == "dog" and v == "miaow" for k, v in zip(keys, values, strict=True)
    )  # bindings are drawn anew
    with pytest.raises(ValueError, match="4 keys are too few for 5"):
        recall_of(table, length=20, pairs=5)
