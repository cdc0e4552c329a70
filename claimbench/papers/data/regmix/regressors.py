"""From mixture weights to a loss: RegMix's boosted trees, and the regressions that they are compared with.

All have `fit(mixtures, losses)` and `predict(mixtures)`, see training mixtures only, and choose what they leave open
(number of trees, penalty, kernel, start) among those. Trees and linear: Liu et al. 2024 (arXiv 2407.01492), section 3;
the exponential law: Ye et al. 2024 (arXiv 2403.16952).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol, Self

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from claimbench.errors import UserError

Mixtures = Float[np.ndarray, "n domains"]
Losses = Float[np.ndarray, " n"]

FOLDS = 5
OFFSETS = (1e-3, 1e-2, 1e-1)
"""What log(w + offset) may add to a share; chosen by cross-validation."""
PENALTIES = np.logspace(-8, 2, 21)


class Regressor(Protocol):
    """A map from mixtures to losses that is learnt from runs."""

    def fit(self, mixtures: Mixtures, losses: Losses) -> Self: ...

    def predict(self, mixtures: Mixtures) -> Losses: ...


def folds(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and validation rows of each of `FOLDS` parts. Raises UserError below two rows a part."""
    if count < 2 * FOLDS:
        raise UserError(f"{count} runs are too few to choose a regression on; give at least {2 * FOLDS}")
    parts = np.array_split(np.random.default_rng(seed).permutation(count), FOLDS)
    return [(np.concatenate(parts[:k] + parts[k + 1 :]), parts[k]) for k in range(FOLDS)]


class BoostedTrees:
    """LightGBM as the paper sets it: L2, learning rate 0.01, at most 1000 trees, all else at its default.

    The number of trees is the best of a cross-validation inside the training set (the official notebook stops early on
    the test mixtures). The least number of runs in a leaf, 20 by default, is n/25 below 500 runs: with 20, fewer than
    40 runs cannot be split at all. Deterministic.
    """

    def __init__(
        self, *, trees: int = 1000, learning_rate: float = 0.01, threads: int = 1, seed: int = 0
    ) -> None:
        self.trees, self.learning_rate, self.threads, self.seed = trees, learning_rate, threads, seed
        self.chosen = 0  # trees of the fitted model

    def _parameters(self, count: int) -> dict[str, Any]:
        return {
            "objective": "regression",
            "metric": "l2",
            "learning_rate": self.learning_rate,
            "min_child_samples": max(2, min(20, count // 25)),
            "num_threads": self.threads,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }

    def fit(self, mixtures: Mixtures, losses: Losses) -> Self:
        lightgbm = _lightgbm()
        parameters = self._parameters(len(losses))
        errors = np.zeros(self.trees)
        for train, held in folds(len(losses), self.seed):
            data = lightgbm.Dataset(mixtures[train], losses[train])
            record: dict[str, dict[str, list[float]]] = {}
            lightgbm.train(
                parameters,
                data,
                self.trees,
                valid_sets=[lightgbm.Dataset(mixtures[held], losses[held], reference=data)],
                valid_names=["held"],
                callbacks=[lightgbm.record_evaluation(record)],
            )
            curve = np.array(record["held"]["l2"])
            # boosting ends early once no leaf can be split: the error stays where it was
            errors += len(held) * np.pad(curve, (0, self.trees - len(curve)), mode="edge")
        self.chosen = int(errors.argmin()) + 1
        self._model = lightgbm.train(parameters, lightgbm.Dataset(mixtures, losses), self.chosen)
        return self

    def predict(self, mixtures: Mixtures) -> Losses:
        return np.asarray(self._model.predict(mixtures, num_threads=self.threads))


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise UserError("lightgbm is not installed; pip install claimbench[data]") from None
    return lightgbm


class Linear:
    """Least squares on the shares: the paper's other regression."""

    def fit(self, mixtures: Mixtures, losses: Losses) -> Self:
        from sklearn.linear_model import LinearRegression

        self._model = LinearRegression().fit(mixtures, losses)
        return self

    def predict(self, mixtures: Mixtures) -> Losses:
        return np.asarray(self._model.predict(mixtures))


class LogFeatures:
    """[w, log(w + offset)], standardised on the training mixtures. A share that never varies is left out."""

    def __init__(self, mixtures: Mixtures, offset: float) -> None:
        self.offset = offset
        raw = self._raw(mixtures)
        self._used = np.ptp(raw, axis=0) > 0
        self._mean, self._scale = raw[:, self._used].mean(axis=0), raw[:, self._used].std(axis=0)

    def _raw(self, mixtures: Mixtures) -> Float[np.ndarray, "n features"]:
        return np.concatenate([mixtures, np.log(mixtures + self.offset)], axis=1)

    def __call__(self, mixtures: Mixtures) -> Float[np.ndarray, "n features"]:
        return (self._raw(mixtures)[:, self._used] - self._mean) / self._scale


class LogRidge:
    """Ridge regression on [w, log(w + offset)]; offset and penalty by cross-validation."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, mixtures: Mixtures, losses: Losses) -> Self:
        errors = np.zeros((len(OFFSETS), len(PENALTIES)))
        for train, held in folds(len(losses), self.seed):
            for row, offset in enumerate(OFFSETS):
                features = LogFeatures(mixtures[train], offset)
                slopes = _ridge(features(mixtures[train]), losses[train], PENALTIES)
                found = losses[train].mean() + features(mixtures[held]) @ slopes
                errors[row] += np.square(found - losses[held, None]).sum(axis=0)
        offset, penalty = divmod(int(errors.argmin()), len(PENALTIES))
        self.offset, self.penalty = OFFSETS[offset], float(PENALTIES[penalty])
        self._features = LogFeatures(mixtures, self.offset)
        self._slopes = _ridge(self._features(mixtures), losses, np.array([self.penalty]))[:, 0]
        self._mean = float(losses.mean())
        return self

    def predict(self, mixtures: Mixtures) -> Losses:
        return np.asarray(self._mean + self._features(mixtures) @ self._slopes)


def _ridge(
    features: Float[np.ndarray, "n features"], losses: Losses, penalties: Float[np.ndarray, " penalties"]
) -> Float[np.ndarray, "features penalties"]:
    """Slopes that minimise the mean squared error plus penalty |slopes|^2, for all penalties from one decomposition.

    features: centred, so that the intercept is the mean loss.
    """
    left, spread, right = np.linalg.svd(features, full_matrices=False)
    shrunk = spread[:, None] / (spread[:, None] ** 2 + penalties * len(losses))
    return right.T @ (shrunk * (left.T @ (losses - losses.mean()))[:, None])


class GaussianProcess:
    """A Gaussian process on `LogRidge`'s features: squared exponential with a length for each feature, and noise.

    Lengths, amplitude and noise maximise the marginal likelihood of at most `likelihood_runs` training runs, whose cost
    grows with the cube; predictions rest on all.
    """

    def __init__(self, *, likelihood_runs: int = 256, seed: int = 0) -> None:
        self.likelihood_runs, self.seed = likelihood_runs, seed

    def fit(self, mixtures: Mixtures, losses: Losses) -> Self:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        self._features = LogFeatures(mixtures, LogRidge(seed=self.seed).fit(mixtures, losses).offset)
        features = self._features(mixtures)
        kernel = ConstantKernel(1.0, (1e-3, 1e5)) * RBF(
            np.full(features.shape[1], 3.0), (1e-1, 1e3)
        ) + WhiteKernel(1e-3, (1e-9, 1.0))
        part = np.random.default_rng(self.seed).permutation(len(losses))[: self.likelihood_runs]
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # a length at its bound: the feature is not used
            first = GaussianProcessRegressor(kernel, normalize_y=True).fit(features[part], losses[part])
        self._model = GaussianProcessRegressor(first.kernel_, optimizer=None, normalize_y=True)
        self._model.fit(features, losses)
        return self

    def predict(self, mixtures: Mixtures) -> Losses:
        step = 4096  # rows at once: the kernel has a column for each run
        features = self._features(mixtures)
        parts = [
            self._model.predict(features[start : start + step]) for start in range(0, len(features), step)
        ]
        return np.concatenate(parts)


class ExponentialLaw:
    """c + k exp(t . w), the data mixing law, by least squares from the best of several starts.

    With t free and the shares summing to 1, k is the exponential's value where t . w = 0; it is positive, as a loss
    above its floor c is.
    """

    def __init__(self, *, starts: int = 8, seed: int = 0) -> None:
        self.starts, self.seed = starts, seed

    def fit(self, mixtures: Mixtures, losses: Losses) -> Self:
        from scipy.optimize import least_squares

        rng = np.random.default_rng(self.seed)
        middle, spread = float(losses.mean()), max(float(losses.std()), 1e-12)
        scaled = (losses - middle) / spread

        def residual(theta: Float[np.ndarray, " parameters"]) -> Losses:
            return theta[0] + np.exp(np.clip(mixtures @ theta[1:], -50, 50)) - scaled

        def jacobian(theta: Float[np.ndarray, " parameters"]) -> Float[np.ndarray, "n parameters"]:
            grown = np.exp(np.clip(mixtures @ theta[1:], -50, 50))
            return np.concatenate([np.ones((len(grown), 1)), grown[:, None] * mixtures], axis=1)

        # sum_k w_k = 1, so that k = e^a is the same as a added to every t_k
        fits = [
            least_squares(
                residual, np.concatenate([[scaled.min() - 1], rng.normal(0, 1, mixtures.shape[1])]), jacobian
            )
            for _ in range(self.starts)
        ]
        best = min(fits, key=lambda fit: float(fit.cost)).x
        self._floor, self._slopes, self._middle, self._spread = best[0], best[1:], middle, spread
        return self

    def predict(self, mixtures: Mixtures) -> Losses:
        grown = np.exp(np.clip(mixtures @ self._slopes, -50, 50))
        return np.asarray(self._middle + self._spread * (self._floor + grown))


class OneDomain:
    """The rule "the more of one domain, the better": the domain whose share orders the training runs best.

    Predicts a line in that share alone, so that errors can be compared too.
    """

    def fit(self, mixtures: Mixtures, losses: Losses) -> Self:
        ranks, order = rankdata(mixtures, axis=0), rankdata(losses)
        ranks, order = ranks - ranks.mean(axis=0), order - order.mean()
        norms = np.sqrt((ranks**2).sum(axis=0) * (order**2).sum())
        correlations = np.divide(order @ ranks, norms, out=np.zeros(mixtures.shape[1]), where=norms > 0)
        self.domain = int(correlations.argmin())
        share = mixtures[:, self.domain]
        slope = np.polyfit(share, losses, 1)[0] if np.ptp(share) > 0 else 0.0
        # the rule says which way, whatever the line says
        self._slope = min(float(slope), -1e-6 * float(losses.std()))
        self._offset = float(losses.mean() - self._slope * share.mean())
        return self

    def predict(self, mixtures: Mixtures) -> Losses:
        return self._offset + self._slope * mixtures[:, self.domain]


REGRESSORS: dict[str, Callable[..., Regressor]] = {
    "lightgbm": lambda threads=1, seed=0: BoostedTrees(threads=threads, seed=seed),
    "linear": lambda threads=1, seed=0: Linear(),
    "log-ridge": lambda threads=1, seed=0: LogRidge(seed=seed),
    "exponential-law": lambda threads=1, seed=0: ExponentialLaw(seed=seed),
    "gaussian-process": lambda threads=1, seed=0: GaussianProcess(seed=seed),
    "one-domain": lambda threads=1, seed=0: OneDomain(),
}
"""Every regression by its arm's name; called with `threads` and `seed`."""


def regressor(name: str, *, threads: int = 1, seed: int = 0) -> Regressor:
    """A fresh regression by name. Raises UserError for an unknown one."""
    if name not in REGRESSORS:
        raise UserError(f'no regression "{name}"; there are {", ".join(REGRESSORS)}')
    return REGRESSORS[name](threads=threads, seed=seed)
