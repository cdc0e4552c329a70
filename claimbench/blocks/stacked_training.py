"""Training a stack of small models in one loop, each exactly as if it were trained alone.

It pays while a model's own step is too small to fill a processor: a few thousand weights on tens of rows, or a few ten
thousand on a hundred tokens. Beyond, both ways wait for arithmetic and memory (benchmarks/stacked.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from claimbench.blocks.schedules import warm_cosine
from claimbench.blocks.stacked import Stack, check_models

Loss = Callable[[Tensor, Tensor], Tensor]


def train_stack(
    stack: Stack,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    steps: int,
    learning_rate: float | Float[Tensor, " models"],
    weight_decay: float | Float[Tensor, " models"] = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    clip: float | None = 1.0,
    schedule: Callable[[int, int], float] = warm_cosine,
    loss: Loss = nn.functional.cross_entropy,
    decay_vectors: bool = True,
    shared: bool = False,
    chunk: int | None = None,
    progress: Callable[[int, int, Float[Tensor, " models"]], None] | None = None,
) -> Float[Tensor, " models"]:
    """Train every model in place with AdamW; each one's mean loss over the last tenth of the steps.

    The result is that of training each model alone on its batches with torch.optim.AdamW, clip_grad_norm_ and the
    schedule, up to rounding. A model whose loss is not finite stays alone in that: its mean is NaN, the others are
    untouched.

    batches: (inputs, targets), each [models, batch, ...], or [batch, ...] if `shared`: then every model sees the same.
    learning_rate, weight_decay: one for all, or one for each model. clip: the largest gradient norm of one model.
    schedule: a factor on the rate for step 0, 1, ... of `steps`. loss: of one model's outputs and targets, a scalar.
    decay_vectors: whether parameters of fewer than two axes decay as well. chunk: how many models go through a step
    together (all): fewer need less memory for activations. progress: called after every step with the step, the number
    of steps and the losses.
    Raises ValueError if a tensor's first axis is not the models, or the batches end early.
    """
    stack.train()
    size = chunk or stack.models
    rates = _per_model(learning_rate, stack, "learning_rate").split(size)
    decays = _per_model(weight_decay, stack, "weight_decay").split(size)
    learners = [
        _Learner(part, rate, decay, betas, clip, loss, decay_vectors)
        for part, rate, decay in zip(stack.split(size), rates, decays, strict=True)
    ]
    source = iter(batches)
    tail: list[Tensor] = []
    for step in range(steps):
        batch = next(source, None)
        if batch is None:
            raise ValueError(f"the batches ended after {step} of {steps} steps")
        inputs, targets = (tensor.to(stack.device) for tensor in batch)
        if not shared:
            check_models(inputs, stack.models)
            check_models(targets, stack.models)
        factor = schedule(step, steps)
        losses = torch.cat(
            [
                learner.step(part_inputs, part_targets, factor, shared)
                for learner, part_inputs, part_targets in zip(
                    learners,
                    [inputs] * len(learners) if shared else inputs.split(size),
                    [targets] * len(learners) if shared else targets.split(size),
                    strict=True,
                )
            ]
        )
        if step >= steps - max(steps // 10, 1):
            tail.append(losses)
        if progress is not None:
            progress(step + 1, steps, losses)
    mean = torch.stack(tail).mean(0)
    return torch.where(mean.isfinite(), mean, torch.nan)


class _Learner:
    """AdamW with a rate for each model, on a stack's parameters.

    AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101, algorithm 2) is p <- (1 - rate x decay) p - rate x u, where the
    direction u depends on the gradients alone. torch's fused kernel, which knows one rate, is run at rate 1 and decay
    1 on a tensor of its own: it leaves (1 - 1) x itself - u there in one pass over memory. Two more passes apply it.
    """

    def __init__(
        self,
        stack: Stack,
        rates: Float[Tensor, " models"],
        decays: Float[Tensor, " models"],
        betas: tuple[float, float],
        clip: float | None,
        loss: Loss,
        decay_vectors: bool,
    ) -> None:
        self.stack, self.rates, self.clip, self.loss = stack, rates, clip, loss
        self.trained = [value for value in stack.parameters.values() if value.requires_grad]
        if not self.trained:
            raise ValueError("no parameter of the stack requires a gradient")
        self.decays = [
            decays if decay_vectors or value.ndim > 2 else torch.zeros_like(decays) for value in self.trained
        ]
        self.directions = [torch.zeros_like(value, requires_grad=False) for value in self.trained]
        for direction in self.directions:
            direction.grad = torch.empty_like(direction)
        self.optimiser = torch.optim.AdamW(self.directions, lr=1.0, weight_decay=1.0, betas=betas, fused=True)

    def step(
        self,
        inputs: Shaped[Tensor, "*models batch ..."],
        targets: Shaped[Tensor, "*models ..."],
        factor: float,
        shared: bool,
    ) -> Float[Tensor, " models"]:
        """One step on one batch for every model; the losses before it."""
        losses = self.stack.map(lambda model, x, y: self.loss(model(x), y), inputs, targets, shared=shared)
        if losses.shape != (self.stack.models,):
            raise ValueError(
                f"the loss of one model must be a scalar, not of shape {tuple(losses.shape[1:])}"
            )
        gradients = torch.autograd.grad(losses.sum(), self.trained)
        with torch.no_grad():
            scales = torch.ones_like(self.rates) if self.clip is None else _clip_scales(gradients, self.clip)
            for direction, gradient in zip(self.directions, gradients, strict=True):
                # Into a buffer of the parameter's own layout: the fused kernel reads memory in order, whatever the
                # strides, and autograd returns some gradients transposed.
                torch.mul(gradient, _column(scales, gradient), out=direction.grad)
            self.optimiser.step()
            rates = factor * self.rates
            for value, direction, decay in zip(self.trained, self.directions, self.decays, strict=True):
                value.mul_(_column(1 - rates * decay, value)).addcmul_(direction, _column(rates, value))
        return losses.detach()


def _clip_scales(gradients: tuple[Tensor, ...], largest: float) -> Float[Tensor, " models"]:
    """The factor that brings each model's gradient norm to at most `largest`, as clip_grad_norm_ does for one model."""
    norms = [  # over all axes but the models', without a copy where a gradient lies transposed
        torch.linalg.vector_norm(gradient[..., None], dim=tuple(range(1, gradient.ndim + 1)))
        for gradient in gradients
    ]
    return (largest / (torch.linalg.vector_norm(torch.stack(norms), dim=0) + 1e-6)).clamp(max=1.0)


def _column(values: Float[Tensor, " models"], like: Tensor) -> Tensor:
    """One number for each model, in the dtype of its stacked parameter and shaped to broadcast over it."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def _per_model(value: float | Tensor, stack: Stack, field: str) -> Float[Tensor, " models"]:
    """A number for each model, on the parameters' device; double, as 1 - rate x decay is off by much in single."""
    numbers = torch.as_tensor(value, dtype=torch.float64, device=stack.device)
    if numbers.ndim == 0:
        return numbers.expand(stack.models)
    if numbers.shape != (stack.models,):
        raise ValueError(
            f"{field} of shape {tuple(numbers.shape)} for {stack.models} models: give a number, or one for each model"
        )
    return numbers
