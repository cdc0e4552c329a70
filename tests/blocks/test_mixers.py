"""Mixers: their registry, and what each does beyond the properties that all share."""

from __future__ import annotations

import pytest
import torch

from claimbench.blocks.mixers import MIXERS, Mixer, make_mixer
from claimbench.blocks.mixers.attention import Attention
from claimbench.errors import UserError

OPTIONS: dict[str, dict[str, int]] = {"attention": {"heads": 2}, "lstm": {"hidden": 6}}


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_is_one_and_keeps_shape_and_causality(name: str) -> None:
    layer = make_mixer(name, 8, **OPTIONS[name]).eval()
    assert isinstance(layer, Mixer)
    x = torch.randn(2, 12, 8)
    changed = x.clone()
    changed[:, 7:] += 10
    assert layer(x).shape == x.shape
    assert torch.allclose(layer(x)[:, :7], layer(changed)[:, :7], rtol=0, atol=1e-5)
    assert not torch.allclose(layer(x)[:, 7:], layer(changed)[:, 7:], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", MIXERS)
def test_token_by_token_is_the_whole(name: str) -> None:
    layer = make_mixer(name, 8, **OPTIONS[name]).double().eval()
    x = torch.randn(3, 40, 8, dtype=torch.float64)
    state, out = layer.init_state(3), []
    for t in range(40):
        y, state = layer.step(x[:, t], state)
        out.append(y)
    assert torch.allclose(layer(x), torch.stack(out, 1), rtol=1e-10, atol=1e-10)


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
