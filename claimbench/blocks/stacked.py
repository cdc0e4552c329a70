"""Many small models of one architecture as one: parameters stacked, the forward pass batched over models.

A small model on a CPU spends its time starting operations, not computing. Here each operation starts once for all
models: `torch.func.vmap` over `functional_call` turns a linear layer into one batched matrix product, and its
gradients too, since autograd records the batched operations. Every model keeps its own parameters, and no value of one
model enters another's. Weights of linear layers lie transposed in memory, as autograd returns their gradients: else
every pass of an optimiser over both would read one of them across its rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class Stack:
    """Models of one architecture with their parameters and buffers stacked: each tensor is [models, ...].

    `parameters` and `buffers` map the module's own names to stacked tensors; writing into them trains or changes the
    models. Dropout draws a mask of its own for each model from torch's default generator: equal seeds and equal
    stacks repeat, but the masks are not those that a model would draw alone. A layer that vmap cannot batch (nn.GRU,
    nn.LSTM) raises vmap's own RuntimeError.
    """

    def __init__(
        self, template: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor], models: int
    ) -> None:
        self.template = template
        self.parameters = parameters
        self.buffers = buffers
        self.models = models

    @classmethod
    def of(cls, models: Sequence[nn.Module], *, device: str | torch.device | None = None) -> Self:
        """Copies of the models' parameters and buffers, stacked in order; the models stay as they are.

        Raises ValueError for no models, and where one differs from the first in its layers, shapes, dtypes or mode.
        """
        if not models:
            raise ValueError("a stack needs at least one model")
        first = _architecture(models[0])
        for index, model in enumerate(models):
            if _architecture(model) != first:
                raise ValueError(
                    f"model {index} differs from model 0 in layers, shapes, dtype or mode: a stack has one architecture"
                )
        parameters, buffers = stack_module_state(list(models))
        template = copy.deepcopy(models[0]).to(device)
        linear = {
            f"{name}.weight" for name, layer in template.named_modules() if isinstance(layer, nn.Linear)
        }

        def placed(name: str, value: Tensor) -> Tensor:
            moved = value.detach().to(device)
            laid = moved.mT.contiguous().mT if name in linear else moved
            return laid.requires_grad_(value.requires_grad)

        return cls(
            template,
            {name: placed(name, value) for name, value in parameters.items()},
            {name: value.to(device) for name, value in buffers.items()},
            len(models),
        )

    def __len__(self) -> int:
        return self.models

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.parameters.values())).device

    def train(self, mode: bool = True) -> Self:
        """Put the models into training mode, or into evaluation mode."""
        self.template.train(mode)
        return self

    def eval(self) -> Self:
        """Put the models into evaluation mode."""
        return self.train(False)

    def __call__(
        self, inputs: Shaped[Tensor, "*models batch ..."], *, shared: bool = False
    ) -> Shaped[Tensor, "models batch ..."]:
        """What each model makes of its own batch: [models, batch, ...] gives [models, batch, ...].

        shared: `inputs` is one batch [batch, ...] that every model is given; it is not copied.
        Raises ValueError if the first axis is not the models.
        """
        return self.map(lambda model, x: model(x), inputs, shared=shared)

    def map(
        self, function: Callable[..., Any], *tensors: Shaped[Tensor, "*models ..."], shared: bool = False
    ) -> Any:
        """`function(model, *its tensors)` for every model at once; results are stacked as [models, ...].

        `function` is written for one model, a callable, and its unstacked tensors: a loss, say. It may not branch on a
        tensor's values. shared, ValueError: as for a call.
        """
        if not shared:
            for tensor in tensors:
                check_models(tensor, self.models)

        def one(state: dict[str, Tensor], *own: Tensor) -> Any:
            return function(lambda *inputs: functional_call(self.template, state, inputs), *own)

        batched = vmap(one, in_dims=(0, *([None if shared else 0] * len(tensors))), randomness="different")
        return batched({**self.parameters, **self.buffers}, *tensors)

    def split(self, size: int) -> Iterator[Stack]:
        """Stacks of at most `size` models each, in order, that share this one's memory.

        Their parameters are leaves of their own for autograd: gradients with respect to this stack's do not see them.
        """
        for start in range(0, self.models, size):
            part = slice(start, start + size)
            yield Stack(
                self.template,
                {
                    name: value.detach()[part].requires_grad_(value.requires_grad)
                    for name, value in self.parameters.items()
                },
                {name: value[part] for name, value in self.buffers.items()},
                min(size, self.models - start),
            )

    def unstack(self) -> list[nn.Module]:
        """Ordinary modules, in order, each with a copy of its own parameters and buffers and the stack's mode."""
        models = []
        for index in range(self.models):
            model = copy.deepcopy(self.template)
            own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            with torch.no_grad():
                for name, value in {**self.parameters, **self.buffers}.items():
                    own[name].copy_(value[index])
            models.append(model)
        return models


def check_models(tensor: Shaped[Tensor, "models ..."], models: int) -> None:
    """Raise ValueError if the tensor's first axis is not `models` long."""
    if tensor.ndim == 0 or tensor.shape[0] != models:
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} for {models} models: its first axis must be the models, "
            "or pass shared=True to give every model the same batch"
        )


def _architecture(model: nn.Module) -> tuple[Any, ...]:
    """What must agree for models to share one forward pass."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return (
        type(model),
        repr(model),
        tuple(module.training for module in model.modules()),
        [(name, value.shape, value.dtype, value.requires_grad) for name, value in tensors],
    )
