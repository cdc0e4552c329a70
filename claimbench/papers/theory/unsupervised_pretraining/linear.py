"""Linear predictors that learn from labels, as baselines of the factor and the contrastive model.

None has an intercept: inputs and targets have mean 0 and all arms know it. Penalties, steps and numbers of components
are chosen on the labelled set alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from claimbench.papers.theory.unsupervised_pretraining.factor import Moments

PENALTIES = np.logspace(-5, 3, 49)
LASSO_PENALTIES, FOLDS = 30, 5
RATES = (0.03, 0.1, 0.3)  # of the composed model's gradient descent, over the largest eigenvalue of X'X/n
DESCENT_STEPS, CHECK_EVERY = 600, 10
INITIAL_SCALE = 0.1


def least_squares(X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " d"]:
    """The minimum-norm solution; below n = d it interpolates, and about n = d its variance has a pole."""
    return np.linalg.lstsq(X, y, rcond=None)[0]


def least_squares_of(labelled: Moments) -> Float[np.ndarray, " d"]:
    """The same from moments, where n > d."""
    return np.linalg.solve(labelled.gram, labelled.cross)


def ridge_of(labelled: Moments) -> Float[np.ndarray, " d"]:
    """Ridge regression from moments, with the penalty of least generalised cross-validation (Golub, Heath and Wahba,
    1979). For n well above d: below, some penalty always interpolates.
    """
    values, vectors = np.linalg.eigh(labelled.gram)
    values = np.clip(values, 0, None)
    turned = vectors.T @ labelled.cross
    # One column a penalty: residual n RSS / (n - trace)^2.
    penalties = PENALTIES * max(float(values.mean()), np.finfo(float).tiny)
    shrunk = 1 / (values[:, None] + penalties)
    fitted = turned[:, None] * shrunk
    residual = labelled.square - 2 * turned @ fitted + (values[:, None] * fitted**2).sum(0)
    freedom = 1 - (values[:, None] * shrunk).sum(0) / labelled.n
    scores = np.where(freedom > 1e-9, np.maximum(residual, 0) / np.maximum(freedom, 1e-9) ** 2, np.inf)
    return vectors @ fitted[:, int(np.argmin(scores))]


def ridge(X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " d"]:
    """Ridge regression with the penalty of least five-fold cross-validated error.

    About n = d, where generalised cross-validation is often taken in by interpolation, this is not.
    """
    penalties = PENALTIES * max(float((X**2).mean()), np.finfo(float).tiny)
    fold = np.arange(len(y)) % FOLDS
    errors = np.zeros(len(penalties))
    for held in range(FOLDS):
        fitted = _ridge_path(Moments.of(X[fold != held], y[fold != held]), penalties)
        errors += ((X[fold == held] @ fitted - y[fold == held, None]) ** 2).sum(0)
    return _ridge_path(Moments.of(X, y), penalties[[int(np.argmin(errors))]])[:, 0]


def _ridge_path(
    labelled: Moments, penalties: Float[np.ndarray, " penalties"]
) -> Float[np.ndarray, "d penalties"]:
    """(X'X/n + penalty)^-1 X'y/n, one column a penalty."""
    values, vectors = np.linalg.eigh(labelled.gram)
    shrunk = 1 / (np.clip(values, 0, None)[:, None] + penalties)
    return vectors @ ((vectors.T @ labelled.cross)[:, None] * shrunk)


def lasso(X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " d"]:
    """scikit-learn's, the penalty by five-fold cross-validation."""
    import warnings

    from sklearn.linear_model import LassoCV

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the smallest penalties of a path may not converge to the last digit
        model = LassoCV(alphas=LASSO_PENALTIES, cv=FOLDS, fit_intercept=False, tol=1e-3).fit(X, y)
    return model.coef_


def partial_least_squares(
    X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], components: int
) -> Float[np.ndarray, " d"]:
    """The least-squares predictor in the Krylov space of X'y and X'X, which is partial least squares of one target
    (Helland, 1988), without centring.
    """
    gram, direction = X.T @ X / len(y), X.T @ y / len(y)
    basis = np.zeros((len(direction), 0))
    for _ in range(min(components, len(direction), len(y))):
        direction = direction - basis @ (basis.T @ direction)
        direction = direction - basis @ (basis.T @ direction)
        norm = float(np.linalg.norm(direction))
        if norm < 1e-12:
            break
        basis = np.column_stack([basis, direction / norm])
        direction = gram @ basis[:, -1]
    return basis @ np.linalg.solve(basis.T @ gram @ basis, basis.T @ (X.T @ y / len(y)))


def composed(
    X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], r: int, rng: np.random.Generator
) -> Float[np.ndarray, " d"]:
    """The composed class trained on labels alone: c = W psi with W [d, r], by gradient descent from a small start.

    A fifth of the labels chooses the rate and when to stop. It is the paper's own comparison: Phi and Psi together,
    without pretraining.
    """
    held = rng.permutation(len(y)) < max(1, len(y) // 5)
    train, check = Moments.of(X[~held], y[~held]), Moments.of(X[held], y[held])
    largest = float(np.linalg.eigvalsh(train.gram)[-1])
    start = INITIAL_SCALE * rng.standard_normal((X.shape[1], r)) / math.sqrt(X.shape[1])
    best, chosen = math.inf, np.zeros(X.shape[1])
    for rate in RATES:
        W, psi = start.copy(), INITIAL_SCALE * np.ones(r) / math.sqrt(r)
        for step in range(DESCENT_STEPS):
            c = W @ psi
            slope = train.gram @ c - train.cross
            W, psi = W - rate / largest * np.outer(slope, psi), psi - rate / largest * (W.T @ slope)
            if step % CHECK_EVERY == 0:
                loss = check.square - 2 * float(check.cross @ c) + float(c @ check.gram @ c)
                if not math.isfinite(loss):
                    break
                if loss < best:
                    best, chosen = loss, c
    return chosen


SUPERVISED: dict[
    str,
    Callable[
        [Float[np.ndarray, "n d"], Float[np.ndarray, " n"], int, np.random.Generator],
        Float[np.ndarray, " d"],
    ],
] = {
    "ols": lambda X, y, r, rng: least_squares(X, y),
    "ridge": lambda X, y, r, rng: ridge(X, y),
    "lasso": lambda X, y, r, rng: lasso(X, y),
    "pls": lambda X, y, r, rng: partial_least_squares(X, y, r),
    "composed": composed,
}
"""Learners from labels alone, by name; r is the number of factors, which they are told."""
