"""Linear attention against its sums, feature maps against the kernels they stand for, Mamba against transformers."""

from __future__ import annotations

import math

import pytest
import torch

from claimbench.blocks.mixers.feature_maps import FEATURE_MAPS, Performer, make_feature_map
from claimbench.blocks.mixers.linear_attention import LinearAttention, linear_attention
from claimbench.blocks.mixers.mamba import Mamba
from claimbench.blocks.mixers.selective_scan import linear_scan, selective_scan
from claimbench.errors import UserError

DOUBLE = torch.float64
MAPS = {"elu": {}, "performer": {"dimension": 11, "seed": 0}, "taylor": {}}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("chunk", [1, 4, 13, 64])
def test_chunks_are_the_quadratic_form_and_the_recurrence(name: str, chunk: int) -> None:
    feature_map = make_feature_map(name, 5, **MAPS[name]).double()
    q, k, v = (torch.randn(2, 3, 13, width, dtype=DOUBLE) for width in (5, 5, 4))
    weights = (feature_map(q) @ feature_map(k).transpose(-1, -2)).tril()
    quadratic = weights / weights.sum(-1, keepdim=True) @ v
    s, z, rows = torch.zeros(2, 3, feature_map.dimension, 4, dtype=DOUBLE), 0, []
    for t in range(13):
        key = feature_map(k[:, :, t])
        s, z = s + key[..., None] * v[:, :, t, None], z + key
        query = feature_map(q[:, :, t])
        rows.append((query[..., None] * s).sum(-2) / (query * z).sum(-1, keepdim=True))
    recurrent = torch.stack(rows, dim=2)
    y = linear_attention(q, k, v, feature_map, chunk=chunk)
    assert torch.allclose(y, quadratic, rtol=1e-10, atol=1e-10)
    assert torch.allclose(y, recurrent, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MAPS)
def test_weights_are_an_average(name: str) -> None:
    feature_map = make_feature_map(name, 5, **MAPS[name]).double()
    q, k = torch.randn(2, 1, 1, 30, 5, dtype=DOUBLE)
    v = torch.full((1, 1, 30, 2), 3.25, dtype=DOUBLE)
    assert torch.allclose(linear_attention(q, k, v, feature_map, chunk=8), v, rtol=1e-9, atol=0)
    assert bool((feature_map.kernel(q, k) > 0).all())


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_a_maps_kernel_is_the_product_of_its_features(name: str) -> None:
    feature_map = make_feature_map(name, 6, **MAPS[name]).double()
    q, k = torch.randn(2, 4, 9, 6, dtype=DOUBLE)
    assert feature_map(q).shape[-1] == feature_map.dimension
    assert torch.allclose(
        feature_map.kernel(q, k), feature_map(q) @ feature_map(k).transpose(-1, -2), rtol=1e-10
    )


def test_performers_features_estimate_the_exponential() -> None:
    q, k = torch.randn(2, 50, 8, dtype=DOUBLE) / 2
    exact = (q @ k.T / math.sqrt(8)).exp()
    estimates = torch.stack([Performer(8, 64, seed=seed).double().kernel(q, k) for seed in range(400)])
    error = (estimates.mean(0) - exact).abs() / (estimates.std(0) / 20)
    assert float(error.max()) < 5.5  # standard errors, over 2,500 pairs: 4e-8 each, below 1e-4 together
    single = (estimates / exact - 1).square().mean((1, 2)).sqrt()
    wide = Performer(8, 4096, seed=1).double().kernel(q, k) / exact - 1
    assert float(wide.square().mean().sqrt()) < 0.3 * float(
        single.median()
    )  # 64 times the features: an eighth


def test_sums_are_held_in_float32_in_half_precision() -> None:
    """600 equal keys: in bfloat16 a running sum would stop at 256, where adding 1 changes nothing."""
    layer = LinearAttention(4, key_width=2).to(torch.bfloat16)
    state = layer.init_state(1)
    x = torch.ones(1, 4, dtype=torch.bfloat16)
    first, state = layer.step(x, state)
    expected = state.sums.clone()
    for _ in range(599):
        y, state = layer.step(x, state)
    assert torch.allclose(state.sums, 600 * expected, rtol=1e-4)
    assert torch.allclose(y, first, rtol=0, atol=0)


def test_unknown_maps_name_the_nearest() -> None:
    with pytest.raises(UserError, match='no feature map "tailor"; did you mean "taylor"'):
        make_feature_map("tailor", 4)


@pytest.mark.parametrize("length", [1, 5, 64, 65, 100])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("chunk", [0, 7])
def test_scans_are_the_recurrence(length: int, backward: bool, chunk: int) -> None:
    a, b = torch.rand(2, 2, length, 3, 4, dtype=DOUBLE)
    h, states = torch.zeros(2, 3, 4, dtype=DOUBLE), {}
    for t in reversed(range(length)) if backward else range(length):
        factor = (
            a[:, min(t + 1, length - 1)] if backward else a[:, t]
        )  # h is zero at first, whatever its factor
        h = factor * h + b[:, t]
        states[t] = h
    expected = torch.stack([states[t] for t in range(length)], dim=1)
    assert torch.allclose(linear_scan(a, b, backward=backward, chunk=chunk), expected, rtol=1e-12, atol=1e-12)


def test_the_scans_gradient_is_right_over_several_chunks() -> None:
    shapes = [(2, 70, 3), (2, 70, 3), (2, 3), (2, 70, 2), (2, 70, 2)]
    arguments = [torch.randn(shape, dtype=DOUBLE) for shape in shapes]
    arguments[1] = arguments[1].exp()
    arguments[2] = -arguments[2].exp()
    checked = tuple(argument.requires_grad_() for argument in arguments)
    assert torch.autograd.gradcheck(lambda *x: selective_scan(*x)[0], checked, fast_mode=True)


def test_mamba_is_transformers_mamba() -> None:
    """Equal weights give equal outputs to the library's path without kernels."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = transformers.MambaConfig(
        hidden_size=12, state_size=5, conv_kernel=4, expand=2, num_hidden_layers=1
    )
    theirs = MambaMixer(config, layer_idx=0).double().eval()
    ours = Mamba(12, state=5, kernel=4, expand=2).double()
    with torch.no_grad():
        theirs.D.normal_()
        theirs.A_log.normal_()
        ours.project.weight.copy_(theirs.in_proj.weight)
        ours.convolution.weight.copy_(theirs.conv1d.weight[:, 0].T)
        ours.convolution.bias.copy_(theirs.conv1d.bias)
        ours.select.weight.copy_(theirs.x_proj.weight)
        ours.widen.load_state_dict(theirs.dt_proj.state_dict())
        ours.log_decay.copy_(theirs.A_log.T)
        ours.skip.copy_(theirs.D)
        ours.out.weight.copy_(theirs.out_proj.weight)
        x = torch.randn(2, 30, 12, dtype=DOUBLE)
        expected = theirs(x)
        assert torch.allclose(ours(x), expected, rtol=0, atol=1e-6)  # the library keeps A, D and Δ in float32
    assert float(expected.abs().max()) > 0.01
    assert ours.rank == theirs.time_step_rank
