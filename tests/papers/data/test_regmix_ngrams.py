"""The n-gram proxies against counting in plain Python, a known source's entropy, and the rules of probability."""

from __future__ import annotations

from collections import Counter
from math import log

import numpy as np
import pytest

from claimbench.errors import UserError
from claimbench.papers.data.regmix.ngrams import NgramProxies, ngrams

RNG = np.random.default_rng(0)


def text(length: int, letters: int, seed: int) -> bytes:
    return bytes(np.random.default_rng(seed).integers(97, 97 + letters, length).astype(np.uint8))


def counted_loss(source: bytes, target: bytes, order: int, tokens: float, mass: float) -> float:
    """The loss by the recursion of the docstring, one byte at a time, from one domain's counts."""
    grams = [Counter(source[i : i + n] for i in range(len(source) - n + 1)) for n in range(order + 1)]
    total = 0.0
    for end in range(order, len(target) + 1):
        probability = 1 / 256
        for n in range(1, order + 1):
            gram = target[end - n : end]
            size = len(source) - n + 1
            seen = sum(c for g, c in grams[n].items() if g[:-1] == gram[:-1])
            probability = (tokens * grams[n][gram] / size + mass * probability) / (
                tokens * seen / size + mass
            )
        total -= log(probability)
    return total / (len(target) - order + 1)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_one_domain_alone_is_that_domains_model(order: int) -> None:
    domains = [text(300, 3, 1), text(200, 5, 2)]
    target = text(120, 4, 3)
    proxies = NgramProxies(domains, target, order=order, pseudocount=2.5)
    found = proxies.losses(np.eye(2), 1000.0)
    expected = [counted_loss(domain, target, order, 1000.0, 2.5) for domain in domains]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_mixtures_are_models_of_mixed_counts() -> None:
    """Half of each of two domains of equal length counts as their text end to end does, but for the seam."""
    first, second, target = text(20_000, 3, 4), text(20_000, 5, 5), text(500, 4, 6)
    mixed = NgramProxies([first, second], target, order=2).losses(np.array([[0.5, 0.5]]), 1e4)
    joined = NgramProxies([first + second], target, order=2).losses(np.ones((1, 1)), 1e4)
    np.testing.assert_allclose(mixed, joined, rtol=1e-3)


def test_probabilities_of_all_bytes_sum_to_one() -> None:
    target = b"".join(b"q" + bytes([byte]) for byte in range(256))
    proxies = NgramProxies([text(400, 20, 7), text(400, 20, 8)], target, order=2, pseudocount=3.0)
    events = np.unique(ngrams(target, 2))
    after_q = events >> np.uint64(8) == ord("q")
    assert after_q.sum() == 256
    sums = proxies.probabilities(np.array([[0.3, 0.7], [1.0, 0.0]]), 500.0)[:, after_q].sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=1e-12)


def test_a_loss_is_not_below_the_sources_entropy() -> None:
    chain = RNG.dirichlet(np.full(4, 0.3), size=4)

    def sample(length: int) -> bytes:
        draws, states = RNG.random(length), np.zeros(length, dtype=np.uint8)
        steps = chain.cumsum(axis=1)
        for place in range(1, length):  # a Markov chain is a recurrence
            states[place] = min(3, int(np.searchsorted(steps[states[place - 1]], draws[place])))
        return bytes(states + 97)

    train, target = sample(20_000), sample(20_000)
    states = np.frombuffer(target, dtype=np.uint8) - 97
    true = -np.log(chain[states[:-1], states[1:]])
    found = NgramProxies([train], target, order=2).losses(np.ones((1, 1)), 20_000.0)[0]
    unigram = NgramProxies([train], target, order=1).losses(np.ones((1, 1)), 20_000.0)[0]
    # the same bytes are scored by both, and the excess is a divergence: its own noise is far below the entropy's
    assert true.mean() - 1e-3 < found < true.mean() + 0.02 < unigram


def test_more_tokens_trust_the_counts_more() -> None:
    domain, target = text(5000, 3, 9), text(500, 3, 10)
    proxies = NgramProxies([domain], target, order=1)
    losses = [proxies.losses(np.ones((1, 1)), tokens)[0] for tokens in (0.0, 10.0, 1e9)]
    assert losses[0] == pytest.approx(log(256))
    assert losses[0] > losses[1] > losses[2] > log(3) - 0.01


def test_order_of_domains_does_not_matter() -> None:
    domains, target = [text(300, 3, 11), text(300, 5, 12), text(300, 7, 13)], text(200, 6, 14)
    mixtures = RNG.dirichlet(np.ones(3), 9)
    forward = NgramProxies(domains, target, order=3).losses(mixtures, 1e3)
    backward = NgramProxies(domains[::-1], target, order=3).losses(mixtures[:, ::-1], 1e3)
    np.testing.assert_allclose(forward, backward, rtol=1e-12)


def test_many_mixtures_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = NgramProxies([text(300, 3, 15), text(300, 5, 16)], text(200, 6, 17), order=3)
    mixtures = RNG.dirichlet(np.ones(2), 11)
    whole = proxies.losses(mixtures, 1e3)
    monkeypatch.setattr("claimbench.papers.data.regmix.ngrams.CELLS", 1)
    np.testing.assert_allclose(proxies.losses(mixtures, 1e3), whole, rtol=1e-12)


def test_bytes_are_packed_in_order() -> None:
    assert ngrams(b"abcd", 2).tolist() == [0x6162, 0x6263, 0x6364]
    assert ngrams(b"abcdefgh", 8).tolist() == [int.from_bytes(b"abcdefgh", "big")]


def test_wrong_orders_and_short_texts_are_named() -> None:
    with pytest.raises(UserError, match="order: 9"):
        NgramProxies([b"abc" * 9], b"abc" * 9, order=9)
    with pytest.raises(UserError, match="fewer than 3 bytes"):
        NgramProxies([b"ab"], b"abc", order=3)
