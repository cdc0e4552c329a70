"""The S4 layer and the stacks around it: convolution against recurrence, causality, lengths, own kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from claimbench.blocks.sequence_model import Block, SequenceModel
from claimbench.blocks.training import fit, parameter_groups
from claimbench.papers.sequence.s4.layer import DPLR, S4, SequenceKernel, convolve, fft_size


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def stepped(mixer: Any, u: Tensor) -> Tensor:
    """The outputs of a mixer token by token."""
    state, out = mixer.init_state(len(u)), []
    for token in u.unbind(1):
        y, state = mixer.step(token, state)
        out.append(y)
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("initialisation", ["hippo", "s4d-lin", "random-dplr"])
@pytest.mark.parametrize("used", [50, 33])
def test_layer_gives_the_same_whole_or_token_by_token(
    initialisation: str, used: int, double_precision: None
) -> None:
    layer = S4(5, length=50, state_size=16, initialisation=initialisation)
    u = torch.randn(2, used, 5)
    assert torch.allclose(layer(u), stepped(layer, u), rtol=0, atol=1e-11)


@torch.no_grad()
def test_layer_gives_the_same_in_single_precision() -> None:
    layer, u = S4(8, length=200, state_size=64), torch.randn(2, 200, 8)
    whole = layer(u)
    assert float((whole - stepped(layer, u)).abs().max() / whole.abs().max()) < 1e-4


@pytest.mark.parametrize("length", [1, 2, 31, 32])
def test_output_does_not_see_the_future(length: int) -> None:
    layer = S4(3, length=length, state_size=8)
    u = torch.randn(1, length, 3)
    for t in range(0, length, 7):
        changed = u.clone()
        changed[:, t + 1 :] += 100
        # the transform mixes all positions, so equality is up to rounding of the disturbance
        assert torch.allclose(layer(u)[:, : t + 1], layer(changed)[:, : t + 1], rtol=0, atol=1e-3)
        assert fft_size(2 * length) >= 2 * length - 1


def test_convolution_is_numpys_and_its_gradient_that_of_finite_differences() -> None:
    u = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    y = convolve(u, kernel, fft_size(7 + 5 - 1)).detach()
    for b in range(2):
        for h in range(3):
            wanted = np.convolve(u[b, h].detach().numpy(), kernel[h].detach().numpy())[:7]
            assert np.allclose(y[b, h].numpy(), wanted, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x, k: convolve(x, k, 12), (u, kernel))


def test_bidirectional_layer_is_one_causal_and_one_anticausal_convolution(double_precision: None) -> None:
    length = 12
    layer = S4(2, length=length, state_size=8, bidirectional=True)
    u = torch.randn(1, length, 2)
    back, ahead = layer.convolution.kernel(length), layer.reversed.kernel(length)
    y = torch.zeros_like(u)
    for t in range(length):
        for s in range(length):
            y[:, t] += u[:, s] * (back[:, t - s] if s <= t else ahead[:, s - t - 1])
    wanted = layer._mix(y + layer.skip * u)
    assert torch.allclose(layer(u), wanted, rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match="future"):
        layer.init_state(1)


def test_extending_keeps_what_was_there(double_precision: None) -> None:
    kernel = DPLR(3, length=20, state_size=16)
    before = kernel.kernel(20).detach()
    with pytest.raises(ValueError, match=r"extend\(50\)"):
        kernel.kernel(50)
    kernel.extend(50)
    assert kernel.length == 80
    assert torch.allclose(kernel.kernel(50)[:, :20], before, rtol=0, atol=1e-11)
    impulse = torch.zeros(1, 50, 3)
    impulse[:, 0] = 1
    assert torch.allclose(stepped(kernel, impulse)[0].T, kernel.kernel(50), rtol=0, atol=1e-11)


def test_model_stays_stable_wherever_training_takes_it() -> None:
    kernel = DPLR(6, length=16, state_size=16)
    with torch.no_grad():
        for parameter in kernel.dynamics():
            parameter.add_(3 * torch.randn_like(parameter))
    assert float(kernel.spectral_radius().max()) < 1 + 1e-5


def test_state_is_as_large_as_it_says_and_does_not_grow() -> None:
    layer = S4(7, length=64, state_size=32)
    state = layer.init_state(batch=3)
    held = state.hidden.numel() * state.hidden.element_size()
    assert layer.state_bytes(3) == held
    _, after = layer.step(torch.randn(3, 7), state)
    assert after.hidden.shape == state.hidden.shape


def test_dynamics_are_trained_apart_slowly_and_without_decay() -> None:
    layer = S4(4, length=8, state_size=8)
    rest, dynamics = parameter_groups(layer, learning_rate=0.01, weight_decay=0.05)
    assert dynamics["lr"] == 1e-3
    assert dynamics["weight_decay"] == 0
    names = {id(p): n for n, p in layer.named_parameters()}
    assert {names[id(p)] for p in dynamics["params"]} == {
        "convolution.log_step",
        "convolution.log_decay",
        "convolution.frequency",
        "convolution.inputs",
        "convolution.low_rank",
    }
    assert len(rest["params"]) + len(dynamics["params"]) == len(list(layer.parameters()))
    assert parameter_groups(layer, learning_rate=1e-4)[1]["lr"] == 1e-4


class Average(nn.Module):
    """An own kernel: an exponential moving average with a trained rate for each feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(features))

    def kernel(self, length: int) -> Tensor:
        keep = torch.sigmoid(self.logit)[:, None]
        return (1 - keep) * keep ** torch.arange(length)

    def init_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, len(self.logit))

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        keep = torch.sigmoid(self.logit)
        state = keep * state + (1 - keep) * u
        return state, state

    def state_bytes(self, batch: int = 1) -> int:
        return 4 * batch * len(self.logit)


def test_a_kernel_of_ones_own_runs_in_the_same_layer_and_is_trained() -> None:
    own = Average(4)
    assert isinstance(own, SequenceKernel)
    layer, u = S4(4, kernel=own), torch.randn(2, 30, 4)
    assert torch.allclose(layer(u), stepped(layer, u), rtol=0, atol=1e-5)
    layer(u).sum().backward()
    assert own.logit.grad is not None
    assert float(own.logit.grad.abs().max()) > 0
    with pytest.raises(ValueError, match="own"):
        S4(4)
    with pytest.raises(ValueError, match="options"):
        S4(4, kernel=own, state_size=8)


def test_a_stack_gives_the_same_whole_or_token_by_token() -> None:
    blocks = [Block(8, S4(8, length=20, state_size=8), hidden=12) for _ in range(2)]
    model = SequenceModel(8, blocks, inputs=5, outputs=3, tokens=True, readout="all")
    tokens = torch.randint(0, 5, (2, 20))
    state, out = model.init_state(2), []
    for t in range(20):
        y, state = model.step(tokens[:, t], state, t)
        out.append(y)
    assert torch.allclose(model(tokens), torch.stack(out, dim=1), rtol=0, atol=1e-4)


def test_fit_learns_and_says_when_it_diverges() -> None:
    x = torch.randn(64, 9, 1)
    y = (x.mean(1) > 0).long()[:, 0]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield x, y

    model = SequenceModel(8, [Block(8, S4(8, length=9, state_size=8))], inputs=1, outputs=2)
    constant = float(torch.distributions.Bernoulli(y.double().mean()).entropy())
    assert fit(model, batches(), steps=40, learning_rate=0.03) < 0.8 * constant
    with torch.no_grad():
        model.head.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="loss became"):
        fit(model, batches(), steps=2, learning_rate=0.02)


def test_importing_the_paper_loads_no_torch() -> None:
    code = (
        "import sys, claimbench.papers.sequence.s4 as s4; assert 'torch' not in sys.modules; "
        "s4.S4; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
