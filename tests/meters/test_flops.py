"""FLOPs against counts made by hand, and against torch's own counter where the conventions agree."""

from collections.abc import Callable, Iterator
from math import log2
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from claimbench.errors import UserError
from claimbench.meters import count, declared, flops, formula


def counted(function: Callable[[], Any]) -> int:
    result = count(function)
    assert result.complete, result.missing
    assert result.flops == sum(result.by_op.values())
    return result.flops


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


@pytest.fixture
def cube() -> Iterator[Any]:
    """An operation of somebody's own, which nobody has given a formula."""
    name = "claimbench_tests::cube"

    @torch.library.custom_op(name, mutates_args=())
    def operation(x: Tensor) -> Tensor:
        return x * x * x

    yield operation
    flops.given.pop(name, None)


# Matrix products: 2mnk real, four times as many complex.


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: randn(7, 5) @ randn(5, 3), 2 * 7 * 5 * 3),
        (lambda: randn(4, 7, 5) @ randn(4, 5, 3), 4 * 2 * 7 * 5 * 3),
        (lambda: randn(7, 5) @ randn(5), 2 * 7 * 5),
        (lambda: randn(9) @ randn(9), 2 * 9),
        (lambda: torch.einsum("bij,bkj->bik", randn(2, 7, 5), randn(2, 3, 5)), 2 * 2 * 7 * 5 * 3),
        (lambda: F.linear(randn(6, 7, 5), randn(3, 5), randn(3)), 6 * 7 * 2 * 5 * 3),
        (lambda: randn(7, 5, dtype=torch.cfloat) @ randn(5, 3, dtype=torch.cfloat), 8 * 7 * 5 * 3),
        (lambda: torch.addbmm(randn(7, 3), randn(4, 7, 5), randn(4, 5, 3)), 4 * 2 * 7 * 5 * 3),
        (lambda: torch.mm(randn(7, 5), randn(5, 3), out=torch.empty(7, 3)), 2 * 7 * 5 * 3),
    ],
)
def test_matrix_products(function: Callable[[], Any], expected: int) -> None:
    assert counted(function) == expected


def test_inference_mode_counts_the_same() -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    inputs = randn(2, 6, 16)

    def inference() -> None:
        with torch.inference_mode():
            F.linear(F.layer_norm(inputs, (16,)), torch.ones(3, 16)) @ torch.ones(3, 5)

    def plain() -> None:
        F.linear(F.layer_norm(inputs, (16,)), torch.ones(3, 16)) @ torch.ones(3, 5)

    assert counted(inference) == counted(plain) > 0
    assert counted(lambda: layer(inputs)) > 0


# Convolution: every output sees (channels in / groups) x kernel products and as many sums.


def test_convolution() -> None:
    inputs = randn(2, 6, 10, 9)
    per_output = 2 * 6 * 3 * 3
    assert counted(lambda: F.conv2d(inputs, randn(8, 6, 3, 3))) == 2 * 8 * 8 * 7 * per_output
    assert (
        counted(lambda: F.conv2d(inputs, randn(8, 6, 3, 3), padding=1, stride=2))
        == 2 * 8 * 5 * 5 * per_output
    )
    assert counted(lambda: F.conv2d(inputs, randn(6, 1, 3, 3), groups=6)) == 2 * 6 * 8 * 7 * 2 * 3 * 3
    assert counted(lambda: F.conv1d(randn(3, 4, 20), randn(5, 4, 7))) == 3 * 5 * 14 * 2 * 4 * 7
    assert counted(lambda: F.conv_transpose2d(inputs, randn(6, 4, 3, 3))) == 2 * 10 * 9 * 6 * 4 * 3 * 3 * 2


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_convolutions_gradients_cost_twice_its_forward_pass(groups: int) -> None:
    inputs = randn(2, 6, 10, 9).requires_grad_()
    weight = randn(12, 6 // groups, 3, 3).requires_grad_()
    result = count(lambda: F.conv2d(inputs, weight, groups=groups).sum().backward())
    assert result.complete
    assert result.by_op["aten::convolution_backward"] == 2 * result.by_op["aten::convolution"]


# Attention: two products, and a softmax of 4 a score, whichever kernel runs it.


def test_attention() -> None:
    batch, heads, queries, keys, width, value_width = 2, 4, 16, 24, 8, 8
    query = randn(batch, heads, queries, width)
    key, value = randn(batch, heads, keys, width), randn(batch, heads, keys, value_width)
    scores = batch * heads * queries * keys
    expected = scores * (2 * width + 2 * value_width + 4)

    def written_out() -> Tensor:
        return torch.softmax(query @ key.mT, dim=-1) @ value

    def math_kernel() -> Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return F.scaled_dot_product_attention(query, key, value)

    scaling = batch * heads * (queries + keys) * width  # that kernel scales both operands
    assert counted(lambda: F.scaled_dot_product_attention(query, key, value)) == expected
    assert counted(lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True)) == expected
    assert counted(written_out) == expected
    assert counted(math_kernel) == expected + scaling
    mask = torch.zeros(queries, keys)
    assert (
        counted(lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
        == expected + scores
    )


def test_attention_backward_recomputes_the_scores() -> None:
    inputs = [randn(2, 4, 16, 8).requires_grad_() for _ in range(3)]
    result = count(lambda: F.scaled_dot_product_attention(*inputs).sum().backward())
    assert result.complete
    backward = sum(
        value for name, value in result.by_op.items() if "attention" in name and "backward" in name
    )
    assert backward == 2 * 4 * 16 * 16 * (5 * 2 * 8 + 6)


# FFT: 5 N log2 N, half for real data.


@pytest.mark.parametrize("length", [64, 100])
def test_fft(length: int) -> None:
    real, complex_ = randn(3, length), randn(3, length, dtype=torch.cfloat)
    whole = 3 * 5 * length * log2(length)
    assert counted(lambda: torch.fft.fft(complex_)) == round(whole)
    assert counted(lambda: torch.fft.ifft(complex_)) == round(whole)
    assert counted(lambda: torch.fft.rfft(real)) == round(whole / 2)
    spectrum = torch.fft.rfft(real)
    assert counted(lambda: torch.fft.irfft(spectrum, n=length)) == round(whole / 2)


def test_fft_of_two_dimensions_and_padded() -> None:
    assert counted(lambda: torch.fft.fft2(randn(2, 8, 16, dtype=torch.cfloat))) == 2 * 5 * 128 * 7
    assert counted(lambda: torch.fft.rfft(randn(2, 32), n=64)) == 2 * 5 * 64 * 6 // 2


def test_a_long_convolution_is_its_parts() -> None:
    """FFT of signal and kernel at twice the length, product of spectra, inverse FFT."""
    signal, kernel, n = randn(3, 32), randn(32), 64

    def convolve() -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(signal, n=n) * torch.fft.rfft(kernel, n=n), n=n)

    transform = 5 * n * 6 // 2
    assert counted(convolve) == 3 * transform + transform + 6 * 3 * (n // 2 + 1) + 3 * transform


# Scans and reductions


def test_scan() -> None:
    x = randn(3, 64)
    assert counted(lambda: torch.cumsum(x, dim=-1)) == 3 * 63
    assert counted(lambda: torch.cumsum(x, dim=0)) == 2 * 64
    assert counted(lambda: torch.cumprod(x, dim=-1)) == 3 * 63
    assert counted(lambda: torch.cumsum(x.cfloat(), dim=-1)) == 2 * 3 * 63
    assert counted(lambda: torch.cumsum(torch.arange(9), dim=0)) == 0


def test_a_recurrence_is_the_sum_of_its_steps() -> None:
    decay, inputs = randn(16), randn(10, 16)

    def recur() -> Tensor:
        state = torch.zeros(16)
        for step in inputs:
            state = decay * state + step
        return state

    assert counted(recur) == 10 * 16 * 2


def test_reductions_and_elementwise_work() -> None:
    x, y = randn(4, 8), randn(4, 8)
    assert counted(lambda: x.sum()) == 31
    assert counted(lambda: x.mean(dim=1)) == 4 * 7 + 4
    assert counted(lambda: x * y + torch.exp(x)) == 3 * 32
    assert counted(lambda: torch.addcmul(x, x, y)) == 2 * 32
    assert counted(lambda: torch.softmax(x, dim=-1)) == 4 * 32
    assert counted(lambda: x.clone().add_(1.0).mul_(y)) == 2 * 32
    assert counted(lambda: F.layer_norm(x, (8,))) == 5 * 32
    assert counted(lambda: x.norm()) == 2 * 32


def test_comparing_moving_and_drawing_are_free() -> None:
    x = randn(4, 8)

    def move() -> None:
        x.relu().sort(dim=-1).values.topk(2).indices.max()
        torch.where(x > 0, x, torch.zeros_like(x)).mT.reshape(-1)[:5].abs().round()
        torch.cat([x, torch.rand(4, 8)]).argmax()
        torch.arange(8) * 2 + 1

    assert counted(move) == 0


def test_complex_arithmetic_is_counted_in_real_operations() -> None:
    z = randn(10, dtype=torch.cfloat)
    assert counted(lambda: z + z) == 2 * 10
    assert counted(lambda: z * z) == 6 * 10
    assert counted(lambda: z * 2.0) == 2 * 10
    assert counted(lambda: z / z) == 11 * 10
    assert counted(lambda: z.abs()) == 4 * 10
    assert counted(lambda: z.conj().real) == 0
    assert count(lambda: z.sqrt()).missing == ("aten::sqrt",)


# Linear algebra, leading terms


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cholesky", 2 * 9**3 / 3),
        ("det", 2 * 2 * 9**3 / 3),
        ("inv", 2 * 2 * 9**3),
        ("eigh", 2 * 9 * 9**3),
        ("eig", 2 * 25 * 9**3),
        ("svd", 2 * (4 + 8 + 9) * 9**3),
        ("qr", 2 * (4 - 4 / 3) * 9**3),
    ],
)
def test_factorisations(name: str, expected: float) -> None:
    root = randn(2, 9, 9)
    matrix = root @ root.mT + 9 * torch.eye(9)
    assert counted(lambda: getattr(torch.linalg, name)(matrix)) == round(expected)
    if name != "det":
        assert counted(lambda: getattr(torch.linalg, name)(matrix.cfloat())) == 4 * round(expected)


def test_solving() -> None:
    matrix, right = randn(2, 9, 9) + 9 * torch.eye(9), randn(2, 9, 4)
    assert counted(lambda: torch.linalg.solve(matrix, right)) == 2 * (2 * 9**3 // 3 + 2 * 9**2 * 4)
    assert counted(lambda: torch.linalg.solve_triangular(matrix.triu(), right, upper=True)) == 2 * 9**2 * 4


# Whole models


def test_products_agree_with_torchs_own_counter() -> None:
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    inputs = randn(2, 10, 32)

    def train() -> None:
        layer(inputs).sum().backward()

    result = count(train)
    assert result.complete, result.missing
    with FlopCounterMode(display=False) as reference:
        train()
    products = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear")
    assert sum(result.by_op.get(name, 0) for name in products) == reference.get_total_flops()


def test_a_training_step_of_a_convolutional_network_is_complete() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.GELU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(8 * 7 * 7, 5),
    )
    optimiser = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(model(randn(4, 3, 16, 16)), torch.arange(4)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    convolution = 4 * 14 * 14 * 8 * 2 * 3 * 9
    linear = 4 * 2 * 8 * 7 * 7 * 5
    assert counted(step) > 2 * convolution + 3 * linear  # the image needs no gradient


def test_an_lstm_is_its_cells() -> None:
    layer, cell = torch.nn.LSTM(8, 16), torch.nn.LSTMCell(8, 16)
    assert counted(lambda: layer(randn(5, 2, 8))) == 5 * counted(lambda: cell(randn(2, 8)))


# What cannot be counted


def test_an_operation_without_a_formula_makes_the_count_incomplete(cube: Any) -> None:
    x = randn(6)
    result = count(lambda: cube(x + 1.0))
    assert not result.complete
    assert result.missing == ("claimbench_tests::cube",)
    assert result.flops == 6

    @formula("claimbench_tests::cube")
    def cubes(out: Tensor, x: Tensor) -> int:
        return 2 * x.numel()

    assert counted(lambda: cube(x + 1.0)) == 6 + 12


def test_a_formula_is_given_once(cube: Any) -> None:
    formula("claimbench_tests::cube")(lambda out, x: x.numel())
    with pytest.raises(UserError, match="has a formula already"):

        @formula("claimbench_tests::cube")
        def another(out: Tensor, x: Tensor) -> int:
            return 0

    with pytest.raises(UserError, match="has a formula already"):

        @formula("aten::mm")
        def cheaper(out: Tensor, *rest: Any) -> int:
            return 1

    with pytest.raises(UserError, match="namespace::name"):
        formula("cumsum")


def test_leaving_torch_is_seen() -> None:
    x = randn(6)
    assert count(lambda: x.numpy().sum()).missing == ("Tensor.numpy (leaves torch)",)
    assert not count(lambda: np.asarray(x) * 2).complete
    assert not count(lambda: x.data_ptr()).complete
    assert count(lambda: sum(range(9))).missing == ("nothing that torch dispatches",)


def test_declared_work_stands_for_what_it_holds() -> None:
    x = randn(6)

    def step() -> float:
        with declared("by hand", 100):
            return float((x * 3.0).numpy().sum())

    result = count(step)
    assert result.complete
    assert result.by_op == {"by hand": 100}
    assert step() == pytest.approx(float(x.sum()) * 3.0, rel=1e-5)


def test_a_compiled_function_counts_what_it_was_compiled_from() -> None:
    x = randn(7, 5)

    def opaque(graph: Any, examples: list[Tensor]) -> Callable[..., Any]:
        return lambda *inputs: (torch.zeros(7, 7),)

    compiled = torch.compile(lambda x: x @ x.mT, backend=opaque)
    assert torch.equal(compiled(x), torch.zeros(7, 7))
    assert counted(lambda: compiled(x)) == 2 * 7 * 7 * 5


def test_a_count_inside_a_count_leaves_the_outer_whole() -> None:
    x, inner = randn(7, 5), []
    outer = counted(lambda: inner.append(count(lambda: x @ x.mT)) or x + 1.0)
    assert inner[0].flops == 2 * 7 * 7 * 5
    assert outer == 2 * 7 * 7 * 5 + 35
