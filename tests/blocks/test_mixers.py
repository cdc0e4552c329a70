"""Mixers: their registry, and the properties that all share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from claimbench.blocks.mixers import MIXERS, Mixer, make_mixer
from claimbench.blocks.mixers.attention import Attention
from claimbench.errors import UserError

OPTIONS: dict[str, dict[str, Any]] = {
    "attention": {"heads": 2},
    "base-conv": {"inner": 12},
    "based": {"heads": 2, "key_width": 3, "window": 5},
    "gru": {"hidden": 6},
    "linear-attention": {"heads": 2, "key_width": 3, "chunk": 7},
    "lstm": {"hidden": 6},
    "mamba": {"state": 3},
    "sliding-window": {"heads": 2, "window": 5},
}
BATCHED = [
    name for name in MIXERS if name not in ("gru", "lstm")
]  # torch's recurrent kernels know no batch of models


def make(name: str) -> Any:
    torch.manual_seed(0)
    return make_mixer(name, 8, **OPTIONS[name])


def tensors(state: Any) -> Iterator[Tensor]:
    """All tensors of a state, whatever it is made of."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from tensors(part)


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_is_one_and_keeps_shape_and_causality(name: str) -> None:
    layer = make(name).eval()
    assert isinstance(layer, Mixer)
    x = torch.randn(2, 12, 8)
    changed = x.clone()
    changed[:, 7:] += 10
    assert layer(x).shape == x.shape
    assert torch.allclose(layer(x)[:, :7], layer(changed)[:, :7], rtol=0, atol=1e-5)
    assert not torch.allclose(layer(x)[:, 7:], layer(changed)[:, 7:], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", MIXERS)
def test_token_by_token_is_the_whole(name: str) -> None:
    layer = make(name).double().eval()
    x = torch.randn(3, 40, 8, dtype=torch.float64)
    state, out = layer.init_state(3), []
    for t in range(40):
        y, state = layer.step(x[:, t], state)
        out.append(y)
    assert torch.allclose(layer(x), torch.stack(out, 1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MIXERS)
def test_sequences_of_a_batch_do_not_meet(name: str) -> None:
    layer = make(name).double().eval()
    x = torch.randn(3, 15, 8, dtype=torch.float64)
    alone = torch.cat([layer(row[None]) for row in x])
    assert torch.allclose(layer(x), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MIXERS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    layer = make(name).double()
    names = [name for name, _ in layer.named_parameters()]
    x = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=True)

    def mixed(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    parameters = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(mixed, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_is_as_large_as_it_says(name: str, dtype: torch.dtype) -> None:
    layer = make(name).to(dtype).eval()
    state = layer.init_state(3)
    for x in torch.randn(
        16, 3, 8, dtype=dtype
    ):  # as many as attention's cache has room for without spare places
        _, state = layer.step(x, state)
    assert layer.state_bytes(3, 16) == sum(t.numel() * t.element_size() for t in tensors(state))


@pytest.mark.parametrize("name", MIXERS)
def test_half_precision_stays_finite_over_a_long_sequence(name: str) -> None:
    layer = make(name)
    x = torch.randn(1, 600, 8)
    expected = layer(x)
    y = layer.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert bool(y.isfinite().all())
    assert (y.float() - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("name", BATCHED)
def test_many_models_at_once_are_each_model_alone(name: str) -> None:
    layers = [make_mixer(name, 8, **OPTIONS[name]).double() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(3, 2, 10, 8, dtype=torch.float64)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        together = vmap(lambda own, x: functional_call(layers[0], own, (x,)))({**parameters, **buffers}, x)
        alone = torch.stack([layer(part) for layer, part in zip(layers, x, strict=True)])
        gradients = torch.autograd.grad(together.square().sum(), list(parameters.values()))
        expected = [
            torch.autograd.grad(y.square().sum(), list(layer.parameters()), retain_graph=True)
            for y, layer in zip(alone, layers, strict=True)
        ]
    assert torch.allclose(together, alone, rtol=1e-10, atol=1e-10)
    for gradient, parts in zip(gradients, zip(*expected, strict=True), strict=True):
        assert torch.allclose(gradient, torch.stack(parts), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in MIXERS if hasattr(make(name), "prefill")])
@pytest.mark.parametrize("length", [2, 23])
def test_generation_goes_on_from_a_prompt(name: str, length: int) -> None:
    layer = make(name).double().eval()
    x = torch.randn(2, length + 7, 8, dtype=torch.float64)
    y, state = layer.prefill(x[:, :length])
    assert torch.allclose(y, layer(x)[:, :length], rtol=1e-10, atol=1e-10)
    for t in range(length, length + 7):
        y, state = layer.step(x[:, t], state)
        assert torch.allclose(y, layer(x)[:, t], rtol=1e-10, atol=1e-10)


def test_an_unknown_mixer_names_the_nearest() -> None:
    with pytest.raises(UserError, match='no mixer "atention"; did you mean "attention"'):
        make_mixer("atention", 8)


def test_a_cache_grows_and_is_as_large_as_it_says() -> None:
    layer = Attention(8, 2, capacity=6)
    state = layer.init_state(3)
    assert state.keys.shape[2] == 6
    assert layer.state_bytes(3, 6) == sum(t.numel() * t.element_size() for t in state[:2])
    for x in torch.randn(7, 3, 8):
        _, state = layer.step(x, state)
    assert state.length == 7
    assert state.keys.shape[2] >= 7
