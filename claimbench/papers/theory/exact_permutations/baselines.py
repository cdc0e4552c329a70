"""Learners that see the same k examples as the networks: least squares, kernels, the nearest neighbour.

All predict at inputs scaled to unit norm, and are fitted on the basis vectors, which are. scikit-learn does
the fitting.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

BANDWIDTHS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""gamma of exp(-gamma |x - x~|^2). Unit inputs are at squared distances 2 (1 - c) in [0, 2]."""


def linear_map(
    inputs: Float[Tensor, "inputs k"], targets: Float[Tensor, "k outputs"]
) -> Float[Tensor, "inputs outputs"]:
    """Least squares without intercept: recovers the linear map from its images of the basis. (Ridge scales it
    only.)
    """
    return _predict(LinearRegression(fit_intercept=False), inputs, targets)


def rbf_regression(
    inputs: Float[Tensor, "inputs k"], targets: Float[Tensor, "k outputs"], bandwidth: float
) -> Float[Tensor, "inputs outputs"]:
    """Kernel interpolation with exp(-bandwidth |x - x~|^2)."""
    return _predict(KernelRidge(alpha=0.0, kernel="rbf", gamma=bandwidth), inputs, targets)


def nearest_neighbour(
    inputs: Float[Tensor, "inputs k"], targets: Float[Tensor, "k outputs"]
) -> Float[Tensor, "inputs outputs"]:
    """The target of one nearest basis vector. All n ones of an input are equally near: one of them is taken."""
    return _predict(KNeighborsRegressor(1), inputs, targets)


def _predict(
    model: LinearRegression | KernelRidge | KNeighborsRegressor, inputs: Tensor, targets: Tensor
) -> Tensor:
    basis = np.eye(targets.shape[0])
    model.fit(basis, targets.double().numpy())
    return torch.from_numpy(model.predict(torch.nn.functional.normalize(inputs.double(), dim=-1).numpy()))
