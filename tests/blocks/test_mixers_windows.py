"""Windows, rotary positions and short convolutions: what they are beside what every mixer does."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from claimbench.blocks.mixers.convolution import BaseConv, causal_depthwise
from claimbench.blocks.mixers.rotary import rotate
from claimbench.blocks.mixers.window import SlidingWindow, window_attention

DOUBLE = torch.float64


def test_rotations_keep_lengths_and_know_only_differences_of_positions() -> None:
    q, k = torch.randn(2, 3, 5, 8, dtype=DOUBLE)
    here, later = torch.arange(5), torch.arange(5) + 1000
    assert torch.allclose(rotate(q, here).norm(dim=-1), q.norm(dim=-1))
    near = rotate(q, here) @ rotate(k, here).transpose(-1, -2)
    far = rotate(q, later) @ rotate(k, later).transpose(-1, -2)
    assert torch.allclose(near, far, rtol=0, atol=1e-9)
    assert torch.equal(rotate(q[..., :1, :], here[:1]), q[..., :1, :])
    plane = rotate(torch.tensor([[1.0, 0.0]], dtype=DOUBLE), torch.tensor([1]))  # one pair: speed 1
    assert torch.allclose(
        plane,
        torch.tensor([[1.0, 0.0]], dtype=DOUBLE) * torch.tensor(1.0).cos()
        + torch.tensor([[0.0, 1.0]], dtype=DOUBLE) * torch.tensor(1.0).sin(),
        atol=1e-7,
    )


@pytest.mark.parametrize(("length", "window"), [(1, 1), (7, 1), (12, 4), (13, 4), (20, 7), (9, 9), (9, 50)])
def test_a_window_is_softmax_over_the_last_tokens(length: int, window: int) -> None:
    q, k, v = torch.randn(3, 2, 3, length, 6, dtype=DOUBLE)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    scores = (q @ k.transpose(-1, -2)) * 6**-0.5
    allowed = (distance >= 0) & (distance < window)
    expected = scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v
    y = window_attention(q, k, v, window)
    assert torch.allclose(y, expected, rtol=1e-12, atol=1e-12)
    if window >= length:
        full = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        assert torch.allclose(y, full, rtol=1e-12, atol=1e-12)
    if window == 1:
        assert torch.allclose(y, v, rtol=1e-12, atol=1e-12)


def test_a_token_that_left_the_window_has_no_influence() -> None:
    layer = SlidingWindow(8, 2, window=5).double()
    x = torch.randn(1, 20, 8, dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, 12].square().sum(), x)
    touched = gradient[0].abs().sum(-1) > 0
    assert touched.tolist() == [8 <= t <= 12 for t in range(20)]  # token 12 − 5 = 7 is out


def test_scores_grow_with_the_window_not_the_square_of_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    attend = functional.scaled_dot_product_attention

    def counted(
        q: torch.Tensor, k: torch.Tensor, *rest: torch.Tensor, **options: torch.Tensor
    ) -> torch.Tensor:
        seen.append(q.shape[:-1].numel() * k.shape[-2])
        return attend(q, k, *rest, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    window_attention(*torch.randn(3, 1, 1, 1024, 4), 16)
    assert seen == [2 * 1024 * 16]


def test_a_window_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="even width"):
        SlidingWindow(6, 2, window=4)
    with pytest.raises(ValueError, match="at least 1"):
        SlidingWindow(8, 2, window=0)


@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_short_convolutions_are_torchs(kernel: int) -> None:
    x, weight, bias = torch.randn(2, 9, 5), torch.randn(kernel, 5), torch.randn(5)
    padded = functional.pad(x.transpose(1, 2), (kernel - 1, 0))
    expected = functional.conv1d(padded, weight.T[:, None], bias, groups=5).transpose(1, 2)
    assert torch.allclose(causal_depthwise(x, weight, bias), expected, rtol=0, atol=1e-5)


def test_the_gated_convolution_can_be_a_shift() -> None:
    """With weights 0, 1, 0 and a gate of ones it brings each token to the next place."""
    layer = BaseConv(4)
    with torch.no_grad():
        layer.project.weight.zero_()
        layer.project.bias.fill_(1)
        layer.convolution.weight.zero_()
        layer.convolution.weight[1] = 1
        layer.convolution.bias.zero_()
    x = torch.randn(1, 6, 4)
    assert torch.equal(layer(x)[:, 1:], x[:, :-1])
