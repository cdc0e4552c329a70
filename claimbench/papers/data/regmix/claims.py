"""How RegMix's claims (arXiv 2407.01492) are measured. What is claimed and how it is judged stands in paper.toml.

Arms of a seed see the same documents, mixtures and proxy runs, and have the same tokens to train on.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from claimbench.errors import NotApplicable
from claimbench.papers.data.regmix.flops import Decoder, doremi
from claimbench.papers.data.regmix.regressors import regressor
from claimbench.papers.data.regmix.runs import read_runs
from claimbench.papers.data.regmix.search import search_mixture
from claimbench.papers.data.regmix.setup import (
    TRAINING,
    TRANSFER,
    Domains,
    model_losses,
    model_of,
    overlap,
    shared_runs,
    trial_domains,
)
from claimbench.trial import Trial, measure

SEARCHES = {
    "regmix": "lightgbm",
    "gaussian-process": "gaussian-process",
    "log-ridge": "log-ridge",
    "linear": "linear",
}
"""Arms that search with a regression, and which."""


# ---- claim 1: regressions on unseen mixtures ----


def training_and_test_runs(
    trial: Trial,
) -> tuple[Float[np.ndarray, "n domains"], Float[np.ndarray, " n"], int]:
    """Mixtures and losses in this seed's order, and how many of the last are for testing."""
    size, tests = trial.size, int(trial.size["tests"])
    if "runs" not in trial.subject:
        runs = shared_runs(trial, model_of(trial, "proxy", size["models"]), size["runs"] + tests, TRAINING)
        return runs["mixtures"], runs["validation"], tests
    table = trial.subject["runs"]
    names = [*table.names, *([table.target.name] if table.target else [])]
    given = read_runs({name: table[name] for name in names}, size["target"])
    order = np.random.default_rng(trial.seed).permutation(len(given.losses))
    return given.mixtures[order], given.losses[order], tests


@measure("regression-ranks-unseen-mixtures")
def ranking(trial: Trial) -> dict[str, float]:
    """Fit the arm's regression to the first n runs; rank correlation and squared error on runs that it has not seen."""
    mixtures, losses, tests = training_and_test_runs(trial)
    n = int(trial.point["n"])
    if n + tests > len(losses):
        raise NotApplicable(f"{len(losses)} runs: too few for {n} to fit and {tests} to test")
    model = regressor(trial.arm, threads=trial.threads, seed=trial.seed).fit(mixtures[:n], losses[:n])
    predicted, true = model.predict(mixtures[-tests:]), losses[-tests:]
    return {
        "spearman": correlation(predicted, true),
        "error": float(np.sqrt(np.mean((predicted - true) ** 2)) / true.std()),
        "mse": float(np.mean((predicted - true) ** 2)),
    }


def correlation(predicted: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"]) -> float:
    """Spearman's; 0 for a prediction that is the same everywhere, which orders nothing."""
    if np.ptp(predicted) == 0:
        return 0.0
    return float(spearmanr(predicted, true).statistic)


# ---- claim 2: from small to large models ----


@measure("rank-invariance")
def transfer(trial: Trial) -> dict[str, float]:
    """Order the same mixtures by the arm's score and by the large model's loss, on the text that the score has seen (as
    the paper does) and on other documents of the target.
    """
    kind, count = str(trial.point["models"]), int(trial.size[f"{trial.point['models']}_mixtures"])
    large = shared_runs(trial, model_of(trial, "large", kind), count, TRANSFER)
    small = shared_runs(trial, model_of(trial, "proxy", kind), count, TRANSFER)
    if trial.arm == "proxy":
        score = small["validation"]
    elif trial.arm == "large-repeat":
        score = shared_runs(trial, model_of(trial, "large", kind), count, TRANSFER, repeat=True)["validation"]
    elif trial.arm == "bigram":
        bigram = {**model_of(trial, "proxy", "ngram"), "order": 2}
        score = shared_runs(trial, bigram, count, TRANSFER)["validation"]
    else:
        domains = trial_domains(trial)
        score = -small["mixtures"] @ overlap(list(domains.texts.values()), domains.validation)
    return {
        "spearman": correlation(score, large["validation"]),
        "held_out": correlation(score, large["test"]),
        "regret": float(large["test"][score.argmin()] - large["test"].min()),
        "spread": float(large["test"].std()),
        "gain": float((small["unigram"] - small["validation"]).mean()),
    }


# ---- claim 3: the large model on the chosen mixture ----


def chosen_mixture(trial: Trial, domains: Domains) -> tuple[Float[np.ndarray, " domains"], int]:
    """The arm's mixture, and how many proxies were trained to find it."""
    prior, count = domains.prior, len(domains.prior)
    if trial.arm == "natural":
        return prior, 0
    if trial.arm == "uniform":
        return np.full(count, 1 / count), 0
    proxy, size = model_of(trial, "proxy", trial.size["models"]), trial.size
    if trial.arm == "nearest-domain":
        losses = model_losses(proxy, domains, np.eye(count), seed=trial.seed, device=trial.device)[:, 0]
        return np.eye(count)[losses.argmin()], count
    runs = shared_runs(trial, proxy, size["runs"] + size["tests"], TRAINING)
    mixtures, losses = runs["mixtures"][: size["runs"]], runs["validation"][: size["runs"]]
    if trial.arm == "best-proxy":
        return mixtures[losses.argmin()], len(losses)
    model = regressor(SEARCHES[trial.arm], threads=trial.threads, seed=trial.seed).fit(mixtures, losses)
    return search_mixture(model.predict, prior, seed=[trial.seed, 2], draws=size["draws"]), len(losses)


@measure("chosen-mixture-beats-human")
def large_models(trials: list[Trial]) -> list[dict[str, float]]:
    """Train the large model on every arm's mixture with as many tokens; loss on target text that no search has seen."""
    trial = trials[0]
    domains = trial_domains(trial)
    found = [chosen_mixture(each, domains) for each in trials]
    mixtures = np.stack([mixture / mixture.sum() for mixture, _ in found])
    kind = trial.size["models"]
    large, proxy = model_of(trial, "large", kind), model_of(trial, "proxy", kind)
    losses = model_losses(large, domains, mixtures, seed=trial.seed, device=trial.device)[:, 1]
    grams = {"kind": "ngram", "order": 1, "tokens": large["tokens"], "pseudocount": 1.0}
    unigram = model_losses(grams, domains, mixtures, seed=trial.seed, device=trial.device)[:, 1]
    return [
        {
            "loss": float(loss),
            "gain": float(single - loss),
            "run_tokens": large["tokens"],
            "total_tokens": large["tokens"] + proxies * proxy["tokens"],
            "largest_share": float(mixture.max()),
        }
        for loss, single, mixture, (_, proxies) in zip(losses, unigram, mixtures, found, strict=True)
    ]


# ---- claim 4: floating-point operations ----


@measure("search-compute")
def search_compute(trial: Trial) -> dict[str, float]:
    """FLOPs of all proxies, of DoReMi, or of the final run: of the blocks alone, and with the language-model head."""
    size = trial.size
    shape = {"vocabulary": size["vocabulary"], "context": size["context"]}
    if trial.arm == "doremi":
        body, head = float(size["doremi_body"]), float(size["doremi_head"])
        tokens = float(size["doremi_tokens"])
        if trial.point["budget"] == "stated":
            tokens = float(size["doremi_stated"]) / doremi(body, head, 1.0)[0]
        alone, whole = doremi(body, head, tokens)
        return {"flops_blocks": alone, "flops_head": whole}
    if trial.arm == "final-run":
        model = Decoder(size["final_layers"], size["final_width"], size["final_hidden"], **shape)
        tokens, runs = float(size["final_tokens"]), 1
    else:
        model = Decoder(size["proxy_layers"], size["proxy_width"], size["proxy_hidden"], **shape)
        tokens, runs = float(size["proxy_tokens"]), int(size["runs"])
    return {
        name: runs * model.training(tokens, head=name == "flops_head")
        for name in ("flops_blocks", "flops_head")
    }
