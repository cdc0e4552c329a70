"""Learners whose test errors are set against a hypothesis space: networks and other expressive classes.

All fit one-hot or real targets by squared error. Each has four settings, of which validation chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from claimbench.errors import UserError, nearest
from claimbench.papers.theory.inductive_bias.kernel_space import median_width, rbf_kernel
from claimbench.papers.theory.inductive_bias.problems import Problem

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]
SETTINGS: dict[str, tuple[float, ...]] = {
    "conv-net": (1e-3, 3e-3, 1e-2, 3e-2),  # Adam's learning rate
    "mlp": (1e-3, 3e-3, 1e-2, 3e-2),
    "kernel-ridge": (0.25, 0.5, 1.0, 2.0),  # width, in median distances; the penalty by leave-one-out
    "random-forest": (1, 2, 4, 8),  # fewest rows of a leaf
    "k-nearest": (1, 3, 5, 8),  # neighbours, weighted by 1 / distance
}
CHOICES = 4
EPOCHS, BATCH, HIDDEN, CHANNELS, TREES = 120, 32, 256, 32, 200
PENALTIES = np.logspace(-8, 2, 41)
HELD_BACK = 4  # one row in so many validates


def predict(
    learner: str,
    setting: int,
    problem: Problem,
    *,
    seed: int = 0,
    shape: Shape | None = None,
    epochs: int = EPOCHS,
    device: str = "cpu",
) -> Float[np.ndarray, "tests outputs"]:
    """Train on the problem's training set, predict its test set.

    setting: 0 to 3, a place in `SETTINGS`. shape: channels, height and width of a row, which the convolution needs.
    """
    if learner not in SETTINGS:
        raise UserError(f'learner "{learner}"{nearest(learner, SETTINGS)}')
    value = SETTINGS[learner][setting]
    if learner in ("conv-net", "mlp"):
        return _network(learner, value, problem, seed, shape, epochs, device)
    return _CLASSICAL[learner](value, problem, seed)


def tuned_predictions(
    learner: str, problem: Problem, *, seed: int = 0, shape: Shape | None = None
) -> Float[np.ndarray, "tests outputs"]:
    """The setting that is best on a quarter of the training rows, then trained on all of them."""
    held = np.arange(len(problem.X)) % HELD_BACK == HELD_BACK - 1
    inner = Problem(problem.X[~held], problem.Y[~held], problem.X[held], problem.Y[held])
    errors = [
        float(((predict(learner, place, inner, seed=seed, shape=shape) - inner.Y_test) ** 2).mean())
        for place in range(CHOICES)
    ]
    return predict(learner, int(np.argmin(errors)), problem, seed=seed, shape=shape)


def _nearest(value: float, problem: Problem, seed: int) -> Float[np.ndarray, "tests outputs"]:
    from sklearn.neighbors import KNeighborsRegressor

    model = KNeighborsRegressor(min(int(value), len(problem.X)), weights="distance")
    return model.fit(problem.X, problem.Y).predict(problem.X_test).reshape(problem.Y_test.shape)


def _forest(value: float, problem: Problem, seed: int) -> Float[np.ndarray, "tests outputs"]:
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(TREES, min_samples_leaf=int(value), max_features="sqrt", random_state=seed)
    targets = problem.Y if problem.Y.shape[1] > 1 else problem.Y[:, 0]
    return model.fit(problem.X, targets).predict(problem.X_test).reshape(problem.Y_test.shape)


def _ridge(value: float, problem: Problem, seed: int) -> Float[np.ndarray, "tests outputs"]:
    """Kernel ridge about the mean target, the penalty with the least leave-one-out error (closed form)."""
    kernel = rbf_kernel(value * median_width(problem.X))
    centre = problem.Y.mean(0)
    values, vectors = eigh(kernel(problem.X, problem.X))
    turned = vectors.T @ (problem.Y - centre)
    best, chosen = math.inf, np.zeros_like(turned)
    for penalty in PENALTIES * len(problem.X):
        inverse = 1 / (np.clip(values, 0, None) + penalty)
        dual = vectors @ (inverse[:, None] * turned)
        left_out = dual / ((vectors**2) @ inverse)[:, None]
        loss = float((left_out**2).mean())
        if loss < best:
            best, chosen = loss, dual
    return centre + kernel(problem.X_test, problem.X) @ chosen


_CLASSICAL: dict[str, Callable[[float, Problem, int], Float[np.ndarray, "tests outputs"]]] = {
    "k-nearest": _nearest,
    "random-forest": _forest,
    "kernel-ridge": _ridge,
}


def build_network(learner: str, shape: Shape, outputs: int) -> nn.Module:
    """Rectifiers, two hidden layers of 256; or two 3 x 3 convolutions (32 and 64 channels) with pooling."""
    from torch import nn

    channels, height, width = shape
    if learner == "mlp":
        size = channels * height * width
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(size, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, outputs),
        )
    return nn.Sequential(
        nn.Conv2d(channels, CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * CHANNELS * (height // 4) * (width // 4), outputs),
    )


def _network(
    learner: str,
    learning_rate: float,
    problem: Problem,
    seed: int,
    shape: Shape | None,
    epochs: int,
    device: str,
) -> Float[np.ndarray, "tests outputs"]:
    """Adam on the mean squared error, the rate falling to 0 along a cosine."""
    import torch

    columns, outputs = problem.X.shape[1], problem.Y.shape[1]
    if shape is None and learner == "conv-net":
        raise UserError("conv-net: needs images; rows of a table have no height and width")
    shape = shape or (columns, 1, 1)
    if learner == "conv-net" and min(shape[1:]) < 4:
        raise UserError(f"conv-net: images of {shape[1]} x {shape[2]}; at least 4 x 4 are needed")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(learner, shape, outputs).to(device)
    centre, spread = problem.X.mean(), problem.X.std() or 1.0

    def tensor(values: Float[np.ndarray, ...]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    inputs = tensor((problem.X - centre) / spread).view(-1, *shape)
    targets = tensor(problem.Y)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    steps = epochs * math.ceil(len(inputs) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=generator).to(device).split(BATCH):
            optimiser.zero_grad()
            (model(inputs[batch]) - targets[batch]).square().mean().backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        predictions = model(tensor((problem.X_test - centre) / spread).view(-1, *shape))
    return predictions.double().cpu().numpy()
