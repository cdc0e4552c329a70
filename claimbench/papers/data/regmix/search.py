"""RegMix: from random proxy runs through a regression to the mixture that is predicted best (Liu et al. 2024).

arXiv 2407.01492, section 3. `choose_mixture` works with any way to train proxies; `regmix` trains byte n-gram models,
which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from claimbench.errors import UserError
from claimbench.papers.data.regmix.mixtures import dirichlet, normalised, sample_mixtures
from claimbench.papers.data.regmix.ngrams import NgramProxies
from claimbench.papers.data.regmix.regressors import Losses, Mixtures, Regressor, regressor

DRAWS, BEST = 100_000, 128
"""Mixtures that the search predicts, and how many of the best it averages, as in the released notebook."""


def search_mixture(
    predict: Callable[[Mixtures], Losses],
    prior: Sequence[float] | Float[np.ndarray, " domains"],
    *,
    seed: int | Sequence[int],
    draws: int = DRAWS,
    best: int = BEST,
) -> Float[np.ndarray, " domains"]:
    """The mean of the `best` mixtures by predicted loss, of `draws` from Dirichlet(prior shares).

    The mean, because trees predict the same for all mixtures of a leaf, and a single one would be the luckiest of them.
    """
    shares = normalised(prior)
    rng = np.random.default_rng(seed)
    candidates = dirichlet(np.broadcast_to(shares, (draws, len(shares))), rng)
    predicted = predict(candidates)
    chosen = np.argsort(predicted, kind="stable")[:best]
    return candidates[chosen].mean(axis=0)


@dataclass(frozen=True)
class Choice:
    """The chosen mixture and what it rests on."""

    weights: dict[str, float]
    """Share of each domain."""
    correlation: float
    """Spearman correlation of predicted and true losses over the runs that the regression did not see."""
    mixtures: Float[np.ndarray, "runs domains"]
    losses: Float[np.ndarray, " runs"]
    model: Regressor
    tokens: float
    """What all proxies together were trained on; 0 if it is not known."""


def choose_mixture(
    prior: Mapping[str, float],
    train: Callable[[Mixtures], Losses],
    *,
    runs: int = 512,
    tests: int = 64,
    regression: str = "lightgbm",
    tokens_per_run: float = 0.0,
    threads: int = 1,
    seed: int = 0,
) -> Choice:
    """Train `runs` proxies on random mixtures, fit the regression, search the simplex.

    prior: size or share of each domain. train: the target loss of a proxy trained on each mixture [n, domains]; it is
    called once, with `runs + tests` of them. tests: runs that only `correlation` uses (NaN below 2).
    regression: a name of `REGRESSORS`. Raises UserError for unusable priors and names.
    """
    names, shares = list(prior), normalised(list(prior.values()))
    model = regressor(regression, threads=threads, seed=seed)
    mixtures = sample_mixtures(shares, runs + tests, seed=seed)
    losses = np.asarray(train(mixtures), dtype=float)
    if losses.shape != (runs + tests,) or not np.isfinite(losses).all():
        raise UserError(f"train: returned shape {losses.shape}; one finite loss for each mixture is needed")
    model.fit(mixtures[:runs], losses[:runs])
    correlation = float("nan")
    if tests >= 2:
        correlation = float(spearmanr(model.predict(mixtures[runs:]), losses[runs:]).statistic)
    found = search_mixture(model.predict, shares, seed=[seed, 1])
    return Choice(
        dict(zip(names, found.tolist(), strict=True)),
        correlation,
        mixtures,
        losses,
        model,
        tokens_per_run * (runs + tests),
    )


def regmix(
    domains: Mapping[str, str | bytes],
    target: str | bytes,
    *,
    runs: int = 512,
    tests: int = 64,
    order: int = 3,
    tokens: float = 200_000,
    pseudocount: float = 16.0,
    regression: str = "lightgbm",
    threads: int = 1,
    seed: int = 0,
) -> Choice:
    """The mixture of `domains` that should teach a language model most about `target`, by byte n-gram proxies.

    domains: text of each; their sizes are the prior. order, tokens, pseudocount: of the proxies, see `NgramProxies`.
    Raises UserError for texts that are too short and unknown regressions.
    """
    texts = {name: _bytes(text) for name, text in domains.items()}
    proxies = NgramProxies(list(texts.values()), _bytes(target), order=order, pseudocount=pseudocount)
    return choose_mixture(
        {name: len(text) for name, text in texts.items()},
        lambda mixtures: proxies.losses(mixtures, tokens),
        runs=runs,
        tests=tests,
        regression=regression,
        tokens_per_run=tokens,
        threads=threads,
        seed=seed,
    )


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
