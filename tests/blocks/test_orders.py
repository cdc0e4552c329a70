"""Orders of data: every item once before any comes again."""

from __future__ import annotations

from itertools import islice

import numpy as np

from claimbench.blocks.orders import shuffled


def test_each_comes_once_before_any_comes_again_also_across_batches() -> None:
    drawn = np.concatenate(list(islice(shuffled(5, 3, np.random.default_rng(0)), 10)))
    rounds = drawn.reshape(6, 5)
    assert (np.sort(rounds, axis=1) == np.arange(5)).all()
    assert len({tuple(order) for order in rounds.tolist()}) > 1
    (more,) = islice(shuffled(2, 5, np.random.default_rng(0)), 1)  # a batch of more than there are
    assert sorted(more[:4].tolist()) == [0, 0, 1, 1]
