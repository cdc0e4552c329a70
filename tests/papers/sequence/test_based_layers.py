"""Based's map, layer and stack: the closed form, other people's formula, and three ways to the same output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from claimbench.blocks.mixers import make_mixer
from claimbench.blocks.mixers.linear_attention import linear_attention
from claimbench.papers.sequence.based import (
    BasedMixer,
    LanguageModel,
    Taylor,
    based,
    based_mixers,
    taylor_attention,
)

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("width", [1, 2, 7, 16])
def test_the_map_is_the_exponential_to_second_order(width: int, merged: bool) -> None:
    feature_map = Taylor(width, merged=merged)
    q, k = 3 * torch.randn(2, 40, width, dtype=DOUBLE)
    s = q @ k.T / width**0.5
    products = feature_map(q) @ feature_map(k).T
    assert torch.allclose(products, 1 + s + s**2 / 2, rtol=1e-12, atol=1e-12)
    assert torch.allclose(feature_map.kernel(q, k), products, rtol=1e-12, atol=1e-12)
    assert float(s.min()) < -2
    assert float(products.min()) > 0.5 - 1e-12  # 1 + s + s²/2 = ½ + (1 + s)²/2
    assert feature_map(q).shape == (40, feature_map.dimension)


def test_the_map_has_the_papers_size_or_a_little_more_than_half() -> None:
    assert Taylor(16, merged=False).dimension == 273
    assert Taylor(16).dimension == 153


@pytest.mark.parametrize("causal_length", [5, 130])
def test_the_layer_agrees_with_the_formula_that_other_code_uses(causal_length: int) -> None:
    """As in flash-linear-attention: scale q by d^(−1/2), weights 1 + s + s²/2, then the running sum of the weights."""
    q, k = torch.randn(2, 2, 3, causal_length, 16, dtype=DOUBLE)
    v = torch.randn(2, 3, causal_length, 8, dtype=DOUBLE)
    attn = torch.einsum("bhid,bhjd->bhij", q * q.shape[-1] ** -0.5, k)
    attn = torch.tril(1 + attn + attn.square() / 2)
    expected = torch.einsum("bhij,bhje->bhie", attn, v) / (attn.sum(-1, keepdim=True) + 1e-12)
    for merged in (False, True):
        y = linear_attention(q, k, v, Taylor(16, merged=merged))
        assert torch.allclose(y, expected, rtol=1e-10, atol=1e-10)


def own_token_only(q: Tensor, k: Tensor, v: Tensor, feature_map: Taylor) -> Tensor:
    """The fault of one published implementation: every row is divided by its own token's weight alone."""
    weights = feature_map.kernel(q, k).tril()
    return weights @ v / weights.diagonal(dim1=-2, dim2=-1)[..., None]


def test_dividing_by_ones_own_weight_alone_is_no_average() -> None:
    q, k = torch.randn(2, 1, 1, 50, 8, dtype=DOUBLE)
    v = torch.ones(1, 1, 50, 1, dtype=DOUBLE)
    right, wrong = linear_attention(q, k, v, Taylor(8)), own_token_only(q, k, v, Taylor(8))
    assert torch.allclose(right, v, rtol=1e-12)
    assert torch.allclose(wrong[:, :, 0], v[:, :, 0])  # the first token has nobody else
    assert float(wrong[0, 0, -1, 0]) > 10  # it grows with the context


@pytest.mark.parametrize("merged", [False, True])
def test_a_state_is_counted_from_its_tensors(merged: bool) -> None:
    layer = taylor_attention(64, 4, key_width=16, merged=merged)
    dimension = 153 if merged else 273
    assert layer.init_state(2).sums.numel() == 2 * dimension * (64 + 4)
    assert layer.state_bytes(2) == 4 * 2 * dimension * (64 + 4)
    assert BasedMixer(64, 4, key_width=16, window=8, merged=merged).state_bytes() == 4 * (
        dimension * 68 + 2 * 8 * 64
    )


def test_a_window_of_one_beside_the_sums_adds_each_tokens_own_value() -> None:
    mixer = BasedMixer(8, key_width=3, window=1).double()
    assert mixer.window is not None
    x = torch.randn(2, 6, 8, dtype=DOUBLE)
    own = x @ mixer.window.project.weight[16:].T @ mixer.window.out.weight.T
    assert torch.allclose(mixer(x), mixer.linear(x) + own, rtol=1e-10, atol=1e-12)


def test_the_stack_has_the_papers_layers() -> None:
    kinds = [type(mixer).__name__ for mixer in based_mixers(27, 32, 2, key_width=4, window=8)]
    assert [i for i, kind in enumerate(kinds) if kind == "LinearAttention"][:5] == [1, 6, 11, 16, 21]
    assert [i for i, kind in enumerate(kinds) if kind == "SlidingWindow"] == [2, 7, 12, 17, 22]
    assert set(kinds) == {"LinearAttention", "SlidingWindow", "BaseConv"}


def test_a_model_gives_the_same_whole_by_prompt_or_token_by_token() -> None:
    model = based(11, features=16, layers=4, heads=2, key_width=4, window=5).double().eval()
    tokens = torch.randint(0, 11, (2, 30))
    whole = model(tokens)
    states, rows = model.init_state(2), []
    for t in range(30):
        logits, states = model.step(tokens[:, t], states)
        rows.append(logits)
    assert torch.allclose(whole, torch.stack(rows, 1), rtol=1e-10, atol=1e-10)
    logits, states = model.prefill(tokens[:, :13])
    for t in range(13, 30):
        assert torch.allclose(whole[:, t - 1], logits, rtol=1e-10, atol=1e-10)
        logits, states = model.step(tokens[:, t], states)
    assert model.state_bytes(2, 30) == model.state_bytes(2, 3000)


def test_a_model_around_attention_grows() -> None:
    mixers = [make_mixer("attention", 16, heads=2) for _ in range(2)]
    model = LanguageModel(11, 16, mixers)
    assert model.state_bytes(1, 20) == 2 * 2 * 16 * 20 * 4
    assert model(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 11)


@torch.no_grad()
def test_long_sequences_in_half_precision_stay_near() -> None:
    layer = taylor_attention(32, 2, key_width=8)
    x = torch.randn(1, 2000, 32)
    expected = layer(x)
    half = layer.to(torch.bfloat16)(x.to(torch.bfloat16)).float()
    late = slice(1800, None)
    assert float((half[:, late] - expected[:, late]).norm() / expected[:, late].norm()) < 0.05


def test_every_parameter_learns() -> None:
    model = based(7, features=8, layers=4, heads=1, key_width=2, window=3)
    tokens = torch.randint(0, 7, (2, 20))
    nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
