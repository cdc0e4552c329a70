"""What an operation costs: by its formula, or by its kind (free, elementwise), or unknown.

Operations that only make, move, select, compare, round or draw values do no floating-point arithmetic and are
free. Elementwise operations are those that torch tags so (`torch.Tag.pointwise`), and a few that it forgot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

__all__ = ["complex_factor", "cost", "described"]

FREE_NAMES = """
    _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar
    _print _local_scalar_dense item is_same_size is_pinned is_set_to is_coalesced record_stream
    _has_same_storage_numel sym_size sym_stride sym_numel sym_storage_offset sym_is_contiguous is_contiguous
    is_strides_like_format is_non_overlapping_and_dense size stride storage_offset numel dim
    sym_constrain_range sym_constrain_range_for_size _fused_sdp_choice _linalg_check_errors empty empty_like
    empty_permuted empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like
    new_ones full full_like new_full fill zero scalar_tensor eye arange range linspace logspace tril_indices
    triu_indices lift lift_fresh lift_fresh_copy _efficientzerotensor from_file complex rand rand_like randn
    randn_like randint randint_like randperm random uniform normal normal_functional bernoulli exponential
    geometric cauchy log_normal poisson binomial multinomial _standard_gamma _sample_dirichlet clone copy
    _to_copy _reshape_copy _unsafe_view _lazy_clone _pin_memory _copy_from resize resize_as set detach cat
    stack _stack _chunk_cat block_diag repeat repeat_interleave roll flip rot90 tril triu unfold_backward
    diag_embed diagonal_backward diagonal_scatter select_backward select_scatter slice_backward slice_scatter
    as_strided_scatter constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle im2col view_as_real
    unsafe_split unsafe_split_with_sizes upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d index index_select
    index_copy index_fill gather scatter take put embedding masked_fill masked_scatter masked_scatter_backward
    masked_select nonzero nonzero_static where _unsafe_index _unsafe_masked_index max_pool2d_with_indices
    max_pool3d_with_indices max_pool2d_with_indices_backward max_pool3d_with_indices_backward
    adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool2d_backward adaptive_max_pool3d_backward
    fractional_max_pool2d fractional_max_pool3d max_unpool2d max_unpool3d max min amax amin aminmax _aminmax
    argmax argmin maximum minimum fmax fmin clamp clamp_min clamp_max clip relu relu6 threshold
    threshold_backward hardtanh hardtanh_backward sort topk kthvalue median nanmedian mode cummax cummin
    _cummax_helper _cummin_helper searchsorted bucketize unique_dim _unique _unique2 unique_consecutive
    unique_dim_consecutive isin histc bincount count_nonzero equal allclose all any _is_all_true _is_any_true
    eq ne lt le gt ge isnan isinf isfinite isneginf isposinf signbit heaviside nan_to_num logical_and
    logical_or logical_xor logical_not abs neg sign sgn positive copysign conj_physical _conj_physical
    resolve_conj resolve_neg real imag floor ceil round trunc frac nextafter frexp lu_unpack
"""
FREE = frozenset(FREE_NAMES.split())

# elementwise operations that torch does not tag as such
UNTAGGED_NAMES = """
    elu_backward floor_divide glu glu_backward hardshrink_backward hardsigmoid_backward hardswish
    hardswish_backward leaky_relu_backward log_sigmoid_forward log_sigmoid_backward softplus_backward
    softshrink_backward polar mish_backward _prelu_kernel _prelu_kernel_backward native_dropout _masked_scale
    logit_backward
"""
UNTAGGED = frozenset(UNTAGGED_NAMES.split())

SEVERAL = {
    "addcmul": 2,
    "addcdiv": 2,
    "lerp": 3,
    "polar": 4,
}  # arithmetic on one element, where it is not one

COMPLEX = {  # real operations of one complex operation, written out in real and imaginary parts
    "add": 2,
    "sub": 2,
    "rsub": 2,
    "mul": 6,
    "square": 6,
    "div": 11,
    "reciprocal": 5,
    "angle": 1,
    "exp": 5,
    "addcmul": 8,
    "lerp": 10,
    "native_dropout_backward": 2,
}
COMPLEX_BY_REAL = {"add": 1, "sub": 1, "rsub": 1, "mul": 2, "div": 2}  # one of the two operands is real


def complex_factor(*tensors: object) -> int:
    """A complex multiply-add is four real multiplications and four real additions: 8 for 2."""
    return 4 if any(isinstance(tensor, Tensor) and tensor.is_complex() for tensor in tensors) else 1


@dataclass(frozen=True)
class Operation:
    """What is fixed about an operation. plain: its name without the mark of an in-place variant ("add_" is "add").
    outputs: its `out=` arguments. composite: made of other operations. moves_nothing: a view, or bookkeeping."""

    namespace: str
    name: str
    plain: str
    outputs: frozenset[str]
    composite: bool
    moves_nothing: bool


@cache
def described(func: torch._ops.OpOverload) -> Operation:
    namespace, name = func._schema.name.split("::")
    plain = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return Operation(
        namespace=namespace,
        name=name,
        plain=plain,
        outputs=frozenset(argument.name for argument in func._schema.arguments if argument.is_out),
        composite=key in func.py_kernels or torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key),
        moves_nothing=func.is_view or namespace in ("prim", "profiler") or _is_view_copy(namespace, plain),
    )


def cost(
    func: torch._ops.OpOverload,
    formulas: Mapping[str, Callable[..., int]],
    out: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> int | None:
    """FLOPs of one dispatched call, or None if nobody has said what it costs."""
    operation = described(func)
    if operation.outputs:
        kwargs = {name: value for name, value in kwargs.items() if name not in operation.outputs}
    name, plain = operation.name, operation.plain
    for known in (f"{operation.namespace}::{name}", f"{operation.namespace}::{plain}"):
        if known in formulas:
            return int(formulas[known](out, *args, **kwargs))
    if operation.moves_nothing:
        return 0
    if operation.namespace != "aten":
        return None
    if plain.startswith("_foreach_"):
        return _foreach(plain.removeprefix("_foreach_"), out, args, kwargs)
    if name in FREE or plain in FREE:
        return _complex_magnitude(plain, args)
    if _is_pointwise(plain) or torch.Tag.pointwise in func.tags:
        return _elementwise(plain, out, args)
    known_to_torch = flop_registry.get(func._overloadpacket)
    if known_to_torch is not None:
        return int(known_to_torch(*args, **kwargs, out_val=out)) * complex_factor(*args)
    return None


@cache
def _is_pointwise(plain: str) -> bool:
    if plain in UNTAGGED:
        return True
    packet = getattr(torch.ops.aten, plain, None)
    return packet is not None and any(
        torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads()
    )


def _is_view_copy(namespace: str, plain: str) -> bool:
    packet = getattr(getattr(torch.ops, namespace), plain, None)
    return packet is not None and any(
        torch.Tag.view_copy in getattr(packet, o).tags for o in packet.overloads()
    )


def _complex_magnitude(plain: str, args: tuple[Any, ...]) -> int | None:
    """Of the free operations only these compute on complex numbers: |z| takes two products, a sum and a
    root."""
    if plain in ("abs", "sgn") and isinstance(args[0], Tensor) and args[0].is_complex():
        return 4 * args[0].numel() if plain == "abs" else None
    return 0


def _elementwise(plain: str, out: Any, operands: Iterable[Any]) -> int | None:
    result = next((item for item in _tensors(out)), None)
    operands = [item for item in operands if isinstance(item, Tensor | complex | float | int)]
    if result is None:
        return None
    touched = [result, *(item for item in operands if isinstance(item, Tensor))]
    if not any(item.is_complex() for item in touched):
        return SEVERAL.get(plain, 1) * result.numel() if result.is_floating_point() else 0
    if plain == "polar":
        return SEVERAL[plain] * result.numel()
    of_real = any(
        not (item.is_complex() if isinstance(item, Tensor) else isinstance(item, complex))
        for item in operands[:2]
    )
    table = COMPLEX_BY_REAL if of_real and plain in COMPLEX_BY_REAL else COMPLEX
    return table[plain] * result.numel() if plain in table else None


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _foreach(plain: str, out: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """Optimisers' operations over lists of tensors: elementwise ones, and norms (a square and a sum each)."""
    if plain in FREE:
        return 0
    tensors = list(_tensors(args[0]))
    if any(tensor.is_complex() for tensor in tensors):
        return None
    if plain == "norm":
        return 2 * sum(tensor.numel() for tensor in tensors)
    return SEVERAL.get(plain, 1) * sum(t.numel() for t in tensors) if _is_pointwise(plain) else None
