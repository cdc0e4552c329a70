"""FLOPs of the operations whose cost is more than one per element, in real floating-point operations.

Products, convolution, attention, FFT, scans, reductions and normalisation; factorisations are in
`linear_algebra.py`. FFT: 5 N log2 N, the convention of the FFTW benchmark (M. Frigo and S. Johnson 2005),
half for real data. Every formula is called with the operation's output first, then the arguments of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isinf, log2, prod
from typing import Any

from torch import Tensor

from claimbench.meters.elementwise import complex_factor

__all__ = ["FORMULAS", "builtin"]

FORMULAS: dict[str, Callable[..., int]] = {}


def builtin(*names: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register a formula for torch's own operations, in all their overloads."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        FORMULAS.update({f"aten::{name}": function for name in names})
        return function

    return register


def _per_element(times: int, *names: str) -> None:
    """Operations that cost the same for each element of their first argument."""
    builtin(*names)(lambda out, self, *rest, **options: times * self.numel())


# Products: 2mnk. With a matrix that is added this is exact; without, it is one addition a result too many.


@builtin("mm", "bmm", "mv", "dot", "vdot", "_int_mm")
def product(out: Tensor, left: Tensor, right: Tensor, *rest: Any, **options: Any) -> int:
    return 2 * complex_factor(left, right) * out.numel() * left.shape[-1]


@builtin("addmm", "baddbmm", "addmv", "_addmm_activation")
def product_added(out: Tensor, added: Tensor, left: Tensor, right: Tensor, *rest: Any, **options: Any) -> int:
    return product(out, left, right)


@builtin("addbmm")
def product_summed(
    out: Tensor, added: Tensor, left: Tensor, right: Tensor, *rest: Any, **options: Any
) -> int:
    return product(out, left, right) * left.shape[0]


@builtin("addr")
def outer_added(out: Tensor, *rest: Any, **options: Any) -> int:
    return 2 * complex_factor(out) * out.numel()


@builtin("linear")
def linear(out: Tensor, inputs: Tensor, *rest: Any, **options: Any) -> int:
    return product(out, inputs, inputs)


@builtin("_grouped_mm")
def grouped_product(out: Tensor, left: Tensor, right: Tensor, *rest: Any, **options: Any) -> int:
    if left.dim() == right.dim() == 2:  # the groups lie along the summed dimension
        return 2 * left.numel() * right.shape[-1]
    return product(out, left, right)


def _convolution(positions: Tensor, weight: Tensor) -> int:
    """2 for each pair of a weight and a position where the kernel is laid, padding included."""
    return 2 * complex_factor(weight) * positions.shape[0] * prod(positions.shape[2:]) * weight.numel()


@builtin("convolution", "_convolution", "convolution_overrideable")
def convolution(
    out: Tensor, inputs: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool = False, *rest: Any, **options: Any
) -> int:  # fmt: skip
    """weight (out, in / groups, *kernel), laid at each output; transposed (in, out / groups, *kernel), at
    each input."""
    return _convolution(inputs if transposed else out, weight)


@builtin("cudnn_convolution", "mkldnn_convolution")
def convolution_only(out: Tensor, inputs: Tensor, weight: Tensor, *rest: Any, **options: Any) -> int:
    return _convolution(out, weight)


@builtin("convolution_backward")
def convolution_backward(
    out: Any, grad: Tensor, inputs: Tensor, weight: Tensor, bias_sizes: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, wanted: Sequence[bool]
) -> int:  # fmt: skip
    """Each of the two gradients pairs the same weights and positions as the forward pass; the bias' is a
    sum."""
    forward = _convolution(inputs if transposed else grad, weight)
    return forward * sum(wanted[:2]) + wanted[2] * (grad.numel() - grad.shape[1])


# Attention in one kernel: its two products, and 4 a score for the softmax, as when written out. Causal: not
# halved.


def _scores(query: Tensor, key: Tensor) -> int:
    return query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]


@builtin(
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
def attention(out: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> int:
    """query (batch, heads, queries, width), key and value (batch, key heads, keys, width)."""
    mask = any(isinstance(item, Tensor) and item.is_floating_point() for item in (*rest, *options.values()))
    return _scores(query, key) * (2 * query.shape[-1] + 2 * value.shape[-1] + 4 + mask)


@builtin(
    "_scaled_dot_product_flash_attention_backward",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    "_scaled_dot_product_efficient_attention_backward",
    "_scaled_dot_product_cudnn_attention_backward",
    "_scaled_dot_product_fused_attention_overrideable_backward",
)
def attention_backward(
    out: Any, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
) -> int:
    """Scores once more, then four products; softmax recomputed from its stored sum (2) and differentiated
    (4)."""
    return _scores(query, key) * (6 * query.shape[-1] + 4 * value.shape[-1] + 6)


# FFT: 5 N log2 N for N complex points (N over all transformed dimensions), half for real input or output.


def _fft(points: int, total: int, flops: float) -> int:
    return round(flops * total * log2(points)) if points > 1 else 0


@builtin("_fft_c2c")
def fft_complex(out: Tensor, inputs: Tensor, dims: Sequence[int], *rest: Any, **options: Any) -> int:
    return _fft(prod(inputs.shape[dim] for dim in dims), inputs.numel(), 5)


@builtin("_fft_r2c")
def fft_real(out: Tensor, inputs: Tensor, dims: Sequence[int], *rest: Any, **options: Any) -> int:
    return _fft(prod(inputs.shape[dim] for dim in dims), inputs.numel(), 2.5)


@builtin("_fft_c2r")
def fft_to_real(out: Tensor, inputs: Tensor, dims: Sequence[int], *rest: Any, **options: Any) -> int:
    return _fft(prod(out.shape[dim] for dim in dims), out.numel(), 2.5)


# Scans and reductions: as a loop does them, one less than the elements of each line. Comparing is free.


def _adding(out: Tensor, inputs: Tensor, steps: int, multiply: bool = False) -> int:
    """Real operations of so many additions or multiplications; integers and booleans are not floating
    point."""
    if not (out.is_floating_point() or out.is_complex()):
        return 0
    return max(steps, 0) * ((6 if multiply else 2) if out.is_complex() else 1)


@builtin("cumsum")
def scan(out: Tensor, inputs: Tensor, dim: int, **options: Any) -> int:
    return _adding(out, inputs, inputs.numel() - _lines(inputs, dim))


@builtin("cumprod")
def product_scan(out: Tensor, inputs: Tensor, dim: int, **options: Any) -> int:
    return _adding(out, inputs, inputs.numel() - _lines(inputs, dim), multiply=True)


def _lines(inputs: Tensor, dim: int) -> int:
    return inputs.numel() // max(inputs.shape[dim], 1) if inputs.dim() else 1


@builtin("sum", "nansum")
def total(out: Tensor, inputs: Tensor, *rest: Any, **options: Any) -> int:
    return _adding(out, inputs, inputs.numel() - out.numel())


@builtin("trace")
def trace(out: Tensor, inputs: Tensor) -> int:
    return _adding(out, inputs, min(inputs.shape) - 1)


@builtin("prod")
def product_of_all(out: Tensor, inputs: Tensor, *rest: Any, **options: Any) -> int:
    return _adding(out, inputs, inputs.numel() - out.numel(), multiply=True)


@builtin("mean")
def mean(out: Tensor, inputs: Tensor, *rest: Any, **options: Any) -> int:
    """A sum and a division."""
    return _adding(out, inputs, inputs.numel())


@builtin("var", "std", "var_mean", "std_mean")
def variance(out: Any, inputs: Tensor, *rest: Any, **options: Any) -> int:
    """Mean, deviation, square, sum; a complex deviation and its squared magnitude take 2 and 3."""
    return inputs.numel() * (8 if inputs.is_complex() else 4)


@builtin("linalg_vector_norm", "norm")
def norm(out: Tensor, inputs: Tensor, order: Any = 2, *rest: Any, **options: Any) -> int:
    """A power, a sum and a root a line; sums of magnitudes have no power, and the largest magnitude is
    compared."""
    magnitude = 4 * inputs.numel() if inputs.is_complex() else 0
    order = 2.0 if order is None else float(order)
    if isinf(order) or order == 0:
        return magnitude
    return magnitude + (inputs.numel() - out.numel() if order == 1 else 2 * inputs.numel())


_per_element(3, "logsumexp")  # subtract the maximum, exponentiate, sum
_per_element(4, "_softmax", "_safe_softmax", "_log_softmax", "logcumsumexp", "_logcumsumexp")
_per_element(4, "_softmax_backward_data", "_log_softmax_backward_data")


# Recurrent layers that one kernel runs.


@builtin("mkldnn_rnn_layer")
def recurrent_layer(
    out: Any, inputs: Tensor, from_input: Tensor, from_state: Tensor, *rest: Any, **options: Any
) -> int:
    """One direction of one LSTM layer; inputs (time, batch, width), weights (4 hidden, width or hidden). A step is
    two products, and for each unit 4 sums of the two, 4 gates, and 5 for the cell and the output."""
    hidden = from_state.shape[-1]
    return inputs.shape[0] * inputs.shape[1] * (2 * from_input.numel() + 2 * from_state.numel() + 13 * hidden)


@builtin("mkldnn_rnn_layer_backward")
def recurrent_layer_backward(out: Any, *arguments: Any, **options: Any) -> int:
    """Twice the forward pass, as for any product of inputs and weights."""
    return 2 * recurrent_layer(out, *arguments)


# Normalisation: mean, deviation, square, sum and scaling, then the weight and the bias. Backward counts twice
# forward.


def _normalised(inputs: Tensor, weight: Tensor | None, bias: Tensor | None, statistics: int = 3) -> int:
    return inputs.numel() * (statistics + 2 + (weight is not None) + (bias is not None))


@builtin("native_layer_norm")
def layer_norm(out: Any, inputs: Tensor, shape: Any, weight: Any = None, bias: Any = None, *rest: Any) -> int:
    return _normalised(inputs, weight, bias)


@builtin("native_group_norm")
def group_norm(
    out: Any, inputs: Tensor, weight: Any = None, bias: Any = None, *rest: Any, **options: Any
) -> int:
    return _normalised(inputs, weight, bias)


@builtin("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "_batch_norm_with_update")
def batch_norm(out: Any, inputs: Tensor, weight: Any, bias: Any, *rest: Any, **options: Any) -> int:
    training = next((value for value in rest if isinstance(value, bool)), True)
    return _normalised(inputs, weight, bias, statistics=3 if training else 0)


@builtin("_native_batch_norm_legit_no_training", "_batch_norm_no_update")
def batch_norm_fixed(out: Any, inputs: Tensor, weight: Any, bias: Any, *rest: Any, **options: Any) -> int:
    return _normalised(inputs, weight, bias, statistics=0)


@builtin("_fused_rms_norm")
def rms_norm(out: Any, inputs: Tensor, shape: Any, weight: Any = None, *rest: Any, **options: Any) -> int:
    return inputs.numel() * (3 + (weight is not None))


@builtin("_fused_rms_norm_backward")
def rms_norm_backward(
    out: Any, grad: Tensor, inputs: Tensor, shape: Any, scale: Any, weight: Any, *rest: Any
) -> int:
    return 2 * rms_norm(out, inputs, shape, weight)


@builtin("native_layer_norm_backward")
def layer_norm_backward(
    out: Any,
    grad: Tensor,
    inputs: Tensor,
    shape: Any,
    mean: Any,
    scale: Any,
    weight: Any,
    bias: Any,
    *rest: Any,
) -> int:
    return 2 * _normalised(inputs, weight, bias)


@builtin("native_group_norm_backward")
def group_norm_backward(
    out: Any, grad: Tensor, inputs: Tensor, mean: Any, scale: Any, weight: Any, *rest: Any, **options: Any
) -> int:
    return 2 * _normalised(inputs, weight, weight)


@builtin("native_batch_norm_backward", "cudnn_batch_norm_backward", "batch_norm_backward")
def batch_norm_backward(out: Any, *rest: Any, **options: Any) -> int:
    return 2 * 7 * rest[0].numel()


# Sums over places: each value that is added counts one.

builtin("embedding_dense_backward")(lambda out, grad, *rest, **options: grad.numel())
builtin("index_add")(lambda out, self, dim, index, source, **options: _adding(out, self, source.numel()))
builtin("scatter_add", "scatter_reduce")(
    lambda out, self, dim, index, *rest, **options: _adding(out, self, index.numel())
)


@builtin("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(
    out: Any, target: Tensor, indices: Any, values: Tensor, accumulate: bool = False, *rest: Any
) -> int:
    return _adding(target, target, values.numel()) if accumulate else 0


@builtin(
    "avg_pool1d", "avg_pool2d", "avg_pool3d"
)  # a kernel's length is its number of dimensions, once dispatched
def average_pool(out: Tensor, inputs: Tensor, kernel: Sequence[int], *rest: Any, **options: Any) -> int:
    return out.numel() * prod(kernel)


@builtin("avg_pool2d_backward", "avg_pool3d_backward")
def average_pool_backward(
    out: Tensor, grad: Tensor, inputs: Tensor, kernel: Sequence[int], *rest: Any, **options: Any
) -> int:
    """Each gradient is divided once and added to every place of its window."""
    return grad.numel() * (prod(kernel) + 1)


_per_element(1, "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")


# Losses, distances, cross products.

_per_element(3, "mse_loss", "mse_loss_backward")
_per_element(4, "huber_loss", "smooth_l1_loss", "huber_loss_backward", "smooth_l1_loss_backward")
_per_element(7, "binary_cross_entropy")
_per_element(6, "binary_cross_entropy_with_logits")
builtin("nll_loss_forward", "nll_loss2d_forward")(lambda out, self, target, *rest, **options: target.numel())
builtin("nll_loss_backward", "nll_loss2d_backward")(
    lambda out, grad, self, target, *rest, **options: target.numel()
)
builtin("linalg_cross")(lambda out, *rest, **options: (3 if not out.is_complex() else 14) * out.numel())
builtin("_cdist_forward", "_euclidean_dist")(
    lambda out, left, *rest, **options: 3 * out.numel() * left.shape[-1]
)
