"""The networks whose channels are read as attributes: a small convolutional one, ResNet-18, or a user's encoder.

A network is a feature map (images to activations, channels on axis 1, any spatial axes behind) and a linear head on its
spatial average. Trained as in arXiv 2211.11033's released code: SGD at 0.1 with momentum 0.9 and weight decay 1e-4, the
rate divided by ten after each third of the epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn
from torch.nn import functional

from claimbench.errors import UserError

Features = Callable[[Tensor], Tensor]


class SmallNetwork(nn.Module):
    """Three blocks of convolution, normalisation, ReLU and pooling; the last is the feature map, the head is linear."""

    def __init__(self, channels: int, classes: int, *, width: int, attributes: int) -> None:
        super().__init__()
        sizes = [channels, width, 2 * width, attributes]
        blocks: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(sizes)):
            blocks += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            if index < 2:
                blocks.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(attributes, classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.head(self.features(images).mean((2, 3)))


class ResidualNetwork(nn.Module):
    """transformers' ResNet-18 without pretraining, 512 attributes, and a linear head."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        try:
            from transformers import ResNetConfig, ResNetModel
        except ImportError:
            raise UserError('architecture = "resnet18" needs pip install "claimbench[compression]"') from None
        config = ResNetConfig(
            num_channels=channels, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
        )
        self.body = ResNetModel(config)
        self.head = nn.Linear(512, classes)

    def features(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 512 rows columns"]:
        return self.body(pixel_values=images).last_hidden_state

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.head(self.features(images).mean((2, 3)))


def build_network(
    architecture: str, channels: int, classes: int, *, width: int, attributes: int
) -> SmallNetwork | ResidualNetwork:
    """`small` or `resnet18`; width and attributes are the small one's. Raises UserError for another name."""
    if architecture == "small":
        return SmallNetwork(channels, classes, width=width, attributes=attributes)
    if architecture == "resnet18":
        return ResidualNetwork(channels, classes)
    raise UserError(f'architecture = "{architecture}": there are small and resnet18')


def train_network(
    network: nn.Module,
    pixels: Float32[np.ndarray, "images channels height width"],
    labels: Int[np.ndarray, " images"],
    *,
    epochs: int,
    batch: int,
    learning_rate: float = 0.1,
    seed: int,
    device: str = "cpu",
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    target: float = 1.0,
) -> float:
    """Train in place; the number of epochs done. The network is in eval mode afterwards.

    held_out, target: four times an epoch accuracy on these images and labels is looked at, and training stops once it
    is at least `target` (below 1), so that networks on easier and harder data can be compared at equal accuracy.
    """
    # Channels last: convolutions of few channels take a third of the time on CPUs.
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's overloads
    inputs = torch.tensor(pixels, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.tensor(labels, device=device)
    optimiser = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, -(-epochs // 3)))
    generator = torch.Generator().manual_seed(seed)
    stops = held_out is not None and target < 1
    for epoch in range(epochs):
        # Batch normalisation needs two images.
        parts = [
            part for part in torch.randperm(len(inputs), generator=generator).split(batch) if len(part) > 1
        ]
        looks = {round(len(parts) * quarter / 4) for quarter in (1, 2, 3, 4)}
        network.train()
        for step, part in enumerate(parts, start=1):
            chosen = part.to(device)
            loss = functional.cross_entropy(network(inputs[chosen]), targets[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if stops and held_out is not None and step in looks:
                if accuracy_on(network, *held_out, device=device) >= target:
                    return epoch + step / len(parts)
                network.train()
        schedule.step()
    network.eval()
    return float(epochs)


@torch.no_grad()
def accuracy_on(
    network: nn.Module,
    pixels: Float32[np.ndarray, "images channels height width"],
    labels: Int[np.ndarray, " images"],
    *,
    device: str = "cpu",
) -> float:
    """Top-1; the network is in eval mode afterwards."""
    network.eval()
    parts = torch.tensor(pixels).split(256)
    guesses = torch.cat([network(part.to(device)).argmax(1).cpu() for part in parts])
    return float((guesses.numpy() == labels).mean())


@torch.no_grad()
def pooled_features(
    features: Features,
    pixels: Float32[np.ndarray, "images channels height width"],
    *,
    device: str = "cpu",
    batch: int = 128,
) -> tuple[Float32[np.ndarray, "images attributes"], Float32[np.ndarray, "images attributes"]]:
    """Every channel's spatial maximum (what scores are made of) and average (what the head sees).

    Raises UserError where `features` returns no tensor with images on axis 0 and channels on axis 1.
    """
    maximum, average = [], []
    for first in range(0, len(pixels), batch):
        part = torch.tensor(pixels[first : first + batch], device=device)
        found: Any = features(part)
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(part):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"encoder: features gave {shape} for {len(part)} images; a tensor [images, channels, ...] is needed"
            )
        flat = found.flatten(2) if found.ndim > 2 else found[..., None]
        maximum.append(flat.amax(2).float().cpu())
        average.append(flat.mean(2).float().cpu())
    return torch.cat(maximum).numpy(), torch.cat(average).numpy()


def fit_head(
    average: Float[np.ndarray, "images attributes"], labels: Int[np.ndarray, " images"]
) -> tuple[Float[np.ndarray, "concepts attributes"], Float[np.ndarray, " concepts"]]:
    """A linear head for features that have none: multinomial logistic regression, in the features' own units."""
    from sklearn.linear_model import LogisticRegression

    centre = average.mean(axis=0)
    spread = np.maximum(average.std(axis=0), 1e-9 + 1e-3 * average.std())  # a dead channel has none
    model = LogisticRegression(C=1.0, max_iter=1000, tol=1e-3).fit((average - centre) / spread, labels)
    weight = model.coef_ / spread
    bias = model.intercept_ - weight @ centre
    if len(weight) == 1:  # two classes are one difference of logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
