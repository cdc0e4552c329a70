"""How the claims of "Investigating the Impact of Model Complexity in LLMs" (arXiv 2410.00699) are measured.

The set-up beyond the abstract is a reconstruction: filter features of random hidden Markov models, a linear truth of
fixed norm at every size, heads fitted on independent prefixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.errors import UserError
from claimbench.papers.theory.hmm_complexity.curve import risk_curve
from claimbench.papers.theory.hmm_complexity.hidden_markov import filter_features, random_model
from claimbench.papers.theory.hmm_complexity.problem import Standard, Task, head_risks, standardise
from claimbench.papers.theory.hmm_complexity.setup import prefix_features
from claimbench.papers.theory.hmm_complexity.theory import (
    gaussian_risk,
    isotropic_risk,
    misspecified_risk,
    optimal_penalty,
    spectral_risk,
)
from claimbench.trial import Table, Trial, derive, measure

INFINITE = 1e12  # stands for the limit at p = n

Pools = tuple[Float[Tensor, "draws samples rank"], Float[Tensor, "1 count rank"], Standard]


def _generator(trial: Trial, *stream: int) -> torch.Generator:
    words = np.random.SeedSequence([trial.seed, *stream]).generate_state(2, np.uint64)
    return torch.Generator(device=trial.device).manual_seed(int(words[0] >> np.uint64(1)))


def _counts(trial: Trial, features: int) -> tuple[int, int, int]:
    """How many examples make the covariance, judge, and train."""
    size = trial.size
    fresh, judged = (max(int(size[name]) * features, 1000) for name in ("fresh", "judged"))
    return fresh, judged, size["draws"] * size["samples"]


def _hmm_draws(trial: Trial, features: int, model: int) -> Float[Tensor, "count states"]:
    """Filters of one random model with `features` + 1 states: for the covariance, for judging, and for training."""
    made = random_model(features + 1, seed=[trial.seed, features, model], device=trial.device)
    count = sum(_counts(trial, features))
    return filter_features(made, count, int(trial.size["length"]), _generator(trial, features, model))


def _hmm_pools(trial: Trial, features: int, drawn: Float[Tensor, "count states"], *, whiten: bool) -> Pools:
    """Training and test features; the covariance is of yet others."""
    size = trial.size
    first, test, train = drawn.split(_counts(trial, features))
    standard = standardise(first, whiten=whiten)
    return standard(train).view(size["draws"], size["samples"], -1), standard(test)[None], standard


def _gaussian_pools(trial: Trial, standard: Standard, features: int, model: int) -> Pools:
    """Gaussian features of the same spectrum."""
    size, generator = trial.size, _generator(trial, features, model, 7)
    rank = len(standard.spectrum)
    _, judged, trained = _counts(trial, features)
    shape = (judged + trained, rank)
    drawn = torch.randn(shape, dtype=torch.float64, device=trial.device, generator=generator)
    test, train = (drawn * standard.spectrum.sqrt()).split([judged, trained])
    train = train.view(size["draws"], size["samples"], rank)
    return train, test[None], standard


def _task(trial: Trial, **changes: object) -> Task:
    size = trial.size
    given = {name: size[name] for name in ("outputs", "signal", "noise")}
    return Task(**{**given, "shape": size.get("noise_shape", "isotropic"), **changes})


def _features(trial: Trial) -> int:
    return max(1, round(float(trial.point["ratio"]) * int(trial.size["samples"])))


class Shared:
    """What the arms of one model share, made once: raw filters, and features by kind."""

    def __init__(self, model: int) -> None:
        self.model, self._pools, self._drawn = model, dict[str, Pools](), dict[int, Tensor]()

    def drawn(self, trial: Trial, features: int) -> Float[Tensor, "count states"]:
        if features not in self._drawn:
            self._drawn[features] = _hmm_draws(trial, features, self.model)
        return self._drawn[features]

    def pools(self, trial: Trial, kind: str) -> Pools:
        """`hmm-whitened`, `hmm-raw`, `gaussian-whitened` or `gaussian-raw`."""
        if kind not in self._pools:
            family, _, scaling = kind.partition("-")
            features = _features(trial)
            if family == "gaussian":
                standard = self.pools(trial, f"hmm-{scaling}")[2]
                self._pools[kind] = _gaussian_pools(trial, standard, features, self.model)
            else:
                drawn = self.drawn(trial, features)
                self._pools[kind] = _hmm_pools(trial, features, drawn, whiten=scaling == "whitened")
        return self._pools[kind]


def _over_models(
    trials: list[Trial], measured: Callable[[Trial, Shared], Tensor]
) -> dict[str, Float[np.ndarray, " draws"]]:
    """Risks of every arm in all draws of all models."""
    risks: dict[str, list[Tensor]] = {trial.arm: [] for trial in trials}
    for model in range(int(trials[0].size["models"])):
        shared = Shared(model)
        for trial in trials:
            risks[trial.arm].append(measured(trial, shared))
    return {arm: torch.cat(parts).cpu().numpy() for arm, parts in risks.items()}


# Arms of the first claim: which features, which head.
DESCENT: Mapping[str, tuple[str, str]] = {
    "least-squares": ("hmm-whitened", "least-squares"),
    "gaussian": ("gaussian-whitened", "least-squares"),
    "unwhitened": ("hmm-raw", "least-squares"),
    "ridge": ("hmm-whitened", "ridge"),
    "early-stopping": ("hmm-whitened", "early-stopping"),
    "components": ("hmm-whitened", "components"),
    "null": ("hmm-whitened", "null"),
}


@measure("double-descent")
def double_descent(trials: list[Trial]) -> list[dict[str, float]]:
    """Median risk of every arm at one size."""

    def measured(trial: Trial, shared: Shared) -> Tensor:
        kind, head = DESCENT[trial.arm]
        train, test, _ = shared.pools(trial, kind)
        # One stream for all arms: the same truths and noise where the features are the same.
        return head_risks(head, train, test, _task(trial), _generator(trial, shared.model, 3))

    risks = _over_models(trials, measured)
    return [{"risk": float(np.median(risks[trial.arm]))} for trial in trials]


@derive("double-descent")
def descent(seed: Table) -> dict[str, float]:
    """The curve's rise, peak and fall, as decimal logarithms of ratios of risks."""

    def shape(arm: str) -> tuple[float, float, float, float]:
        risk = seed.series("risk", along="ratio", arm=arm)
        rise = math.log10(risk[0.25] / risk[0.07])
        height = math.log10(risk[1.0] / max(risk[0.25], risk[3.0]))
        fall = math.log10(risk[1.2] / risk[3.0])
        return rise, height, fall, float(max(risk, key=lambda ratio: risk[ratio]))

    rise, height, fall, peak = shape("least-squares")
    null, ridge = (seed.series("risk", along="ratio", arm=arm) for arm in ("null", "ridge"))
    return {
        "rise": rise,
        "height": height,
        "fall": fall,
        "peak": peak,
        "gaussian_height": shape("gaussian")[1],
        "unwhitened_height": shape("unwhitened")[1],
        "ridge_height": shape("ridge")[1],
        "early_stopping_height": shape("early-stopping")[1],
        "components_height": shape("components")[1],
        "ridge_over_null": math.log10(max(ridge[ratio] / null[ratio] for ratio in ridge)),
    }


def _misspecified(trial: Trial, shared: Shared) -> tuple[Pools, Task, int]:
    """A world of more states than any model resolves; the signal lies equally on its leading directions."""
    samples, used = int(trial.size["samples"]), _features(trial)
    largest = round(float(trial.size["world"]) * samples)
    dimensions = round(float(trial.size["task"]) * samples)
    pools = _hmm_pools(trial, largest, shared.drawn(trial, largest), whiten=True)
    return pools, _task(trial, dimensions=dimensions), used


@measure("no-interior-sweet-spot")
def no_interior_sweet_spot(trials: list[Trial]) -> list[dict[str, float]]:
    """Median risk of every arm at one size below the number of examples, and its limit (ridge: at the best penalty)."""

    def measured(trial: Trial, shared: Shared) -> Tensor:
        generator = _generator(trial, shared.model, 3)
        if trial.arm == "misspecified":
            (train, test, _), task, used = _misspecified(trial, shared)
            return head_risks("least-squares", train, test, task, generator, resolved=used)
        kind, head = DESCENT[trial.arm]
        train, test, _ = shared.pools(trial, kind)
        return head_risks(head, train, test, _task(trial), generator)

    risks = _over_models(trials, measured)
    found = []
    for trial in trials:
        size, features = trial.size, _features(trial)
        signal, noise = float(size["signal"]), float(size["noise"])
        if trial.arm == "misspecified":
            dimensions = round(float(size["task"]) * size["samples"])
            predicted = misspecified_risk(features, dimensions, size["samples"], signal, noise)
        elif trial.arm == "null":
            predicted = signal
        elif trial.arm == "ridge":
            penalty = optimal_penalty(features, signal, noise)
            predicted = spectral_risk(np.ones(features), size["samples"], signal, noise, penalty)
        else:
            predicted = isotropic_risk(features / size["samples"], signal, noise)
        found.append({"risk": float(np.median(risks[trial.arm])), "predicted": predicted})
    return found


@derive("no-interior-sweet-spot")
def steps(seed: Table) -> dict[str, float]:
    """The smallest rise from one size to the next, and how far the curve first falls, as decimal logarithms."""

    def logs(arm: str) -> tuple[list[float], np.ndarray]:
        risk = seed.series("risk", along="ratio", arm=arm)
        if len(risk) < 2:
            raise LookupError(f"fewer than two sizes of {arm}")
        return list(risk), np.log10(list(risk.values()))

    _, own = logs("least-squares")
    ratios, other = logs("misspecified")
    return {
        "smallest_step": float(np.diff(own).min()),
        "gaussian_smallest_step": float(np.diff(logs("gaussian")[1]).min()),
        "first_descent": float(other[0] - other.min()),
        "sweet_spot": float(ratios[int(other.argmin())]),
    }


# Arms of the third claim: which features, and the noise's shape.
MATCH: Mapping[str, tuple[str, str]] = {
    "hmm": ("hmm-whitened", "isotropic"),
    "gaussian": ("gaussian-whitened", "isotropic"),
    "hmm-rank-one-noise": ("hmm-whitened", "rank-one"),
    "hmm-unwhitened": ("hmm-raw", "isotropic"),
    "gaussian-unwhitened": ("gaussian-raw", "isotropic"),
}


@measure("theory-match")
def theory_match(trials: list[Trial]) -> list[dict[str, float]]:
    """Mean risk over draws, and its relative distance from the limits and from the exact Gaussian mean."""
    spectra: dict[str, list[float]] = {trial.arm: [] for trial in trials}

    def measured(trial: Trial, shared: Shared) -> Tensor:
        kind, shape = MATCH[trial.arm]
        train, test, standard = shared.pools(trial, kind)
        task = _task(trial, shape=shape)
        spectra[trial.arm].append(
            spectral_risk(standard.spectrum.cpu().numpy(), train.shape[1], task.signal, task.noise)
        )
        return head_risks("least-squares", train, test, task, _generator(trial, shared.model, 3))

    risks = _over_models(trials, measured)
    found = []
    for trial in trials:
        size, features = trial.size, _features(trial)
        risk, signal, noise = float(risks[trial.arm].mean()), float(size["signal"]), float(size["noise"])
        limit = isotropic_risk(features / size["samples"], signal, noise)
        found.append(
            {
                "risk": risk,
                "error": abs(risk / limit - 1),
                "spectral_error": abs(risk / float(np.mean(spectra[trial.arm])) - 1),
                "limit_ratio": risk / limit,
                "exact_ratio": risk / gaussian_risk(features, size["samples"], signal, noise),
            }
        )
    return found


# Arms of the fourth claim: how the features are made narrower, and the head.
REAL: Mapping[str, tuple[str, str]] = {
    "least-squares": ("random", "least-squares"),
    "leading-components": ("leading", "least-squares"),
    "ridge": ("random", "ridge"),
    "early-stopping": ("random", "early-stopping"),
    "components": ("random", "components"),
    "gaussian": ("random", "least-squares"),
    "null": ("random", "null"),
}


@measure("real-lm-head")
def real_lm_head(trial: Trial) -> dict[str, float]:
    """Median risk of a head on p dimensions of a language model's frozen features."""
    size, samples = trial.size, int(trial.size["samples"])
    features = prefix_features(trial)
    if trial.arm == "gaussian":
        features = np.random.default_rng([trial.seed, 7]).normal(size=features.shape)
    how, head = REAL[trial.arm]
    if len(features) < 2 * samples:
        raise UserError(
            f"features: {len(features)} rows; {2 * samples} are needed: {samples} to fit on, others to judge"
        )
    (row,) = risk_curve(
        features,
        samples=samples,
        sizes=[_features(trial)],
        head=head,
        how=how,
        task=_task(trial),
        draws=size["draws"],
        seed=trial.seed,
    )
    return {"risk": row.risk, "predicted": min(row.predicted, INFINITE)}


@derive("real-lm-head")
def real_descent(seed: Table) -> dict[str, float]:
    """As for hidden Markov models."""

    def height(arm: str) -> float:
        risk = seed.series("risk", along="ratio", arm=arm)
        return math.log10(risk[1.0] / max(risk[0.25], risk[3.0]))

    risk = seed.series("risk", along="ratio", arm="least-squares")
    return {
        "rise": math.log10(risk[0.25] / risk[0.1]),
        "height": height("least-squares"),
        "fall": math.log10(risk[1.2] / risk[3.0]),
        "peak": float(max(risk, key=lambda ratio: risk[ratio])),
        "ridge_height": height("ridge"),
        "early_stopping_height": height("early-stopping"),
        "leading_height": height("leading-components"),
        "gaussian_height": height("gaussian"),
    }
