"""How near a feature map's attention comes to softmax on a real model's queries and keys.

Queries and keys are what a language model hands to attention, rotary positions included. They are brought to d′ numbers
by the best factors of that rank of each head's scores, so that all maps see the same vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from claimbench.blocks.mixers.feature_maps import FeatureMap
from claimbench.errors import UserError
from claimbench.spec import SubjectRef
from claimbench.trial import BLOCKS

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Factors on queries and keys of which every map gets the one that fits its first half of the rows best."""
TOP = 8
CHARACTERS = 16  # more than a token has on average


class _Recorder(TorchFunctionMode):
    """Keeps the queries, keys and values of every call of scaled-dot-product attention."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            self.calls.append((named["query"], named["key"], named["value"]))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def record(model: Any, tokens: Int[Tensor, "batch length"]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values [batch, heads, length, width] of each layer, in order; grouped keys are repeated."""
    with _Recorder() as recorder:
        model(input_ids=tokens, use_cache=False)
    layers = []
    for q, k, v in recorder.calls:
        groups = q.shape[1] // k.shape[1]
        layers.append((q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)))
    return layers


def capture(
    folder: Path,
    model: SubjectRef,
    text: SubjectRef,
    length: int,
    layers: int,
    share: int,
    seed: int,
    device: str,
) -> None:
    """Set-up: q, k, v [heads, length, width] of `layers` evenly spaced layers, on tokens of the text's test split.

    share: which of the BLOCKS equal parts of that split, so that seeds see different text. Raises UserError where the
    part is too short, or the model does not attend through torch's scaled-dot-product attention.
    """
    from safetensors.torch import save_file

    from claimbench.subjects import open_subject

    lm, corpus = open_subject(model, device=device), open_subject(text, device=device).test
    start, stop = (len(corpus) * part // BLOCKS for part in (share, share + 1))
    room = max(1, stop - start - CHARACTERS * length)
    start += int(torch.randint(room, (1,), generator=torch.Generator().manual_seed(seed)))
    tokens = lm.encode(corpus[start : min(start + CHARACTERS * length, stop)])[:length]
    if len(tokens) < length:
        raise UserError(
            f"text: a seed's share of the test split holds {len(tokens)} tokens, and {length} are needed"
        )
    found = record(lm.model, tokens[None].to(device))
    if not found:
        raise UserError("model: its attention does not go through torch's scaled_dot_product_attention")
    chosen = torch.linspace(0, len(found) - 1, min(layers, len(found))).round().long().tolist()
    tensors = {
        f"{name}{index}": part[0].float().cpu().contiguous()
        for index, layer in enumerate(chosen)
        for name, part in zip("qkv", found[layer], strict=True)
    }
    save_file(tensors, folder / "attention.safetensors")


def load(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [layers · heads, length, width] in float64."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "attention.safetensors")
    layers = range(len(tensors) // 3)
    q, k, v = (torch.cat([tensors[f"{name}{index}"] for index in layers]).double() for name in "qkv")
    return q, k, v


class Projected(NamedTuple):
    """Queries and keys of `width` numbers, scores s = qᵀk/√width of these, and the scores before the projection."""

    q: Float[Tensor, "heads length width"]
    k: Float[Tensor, "heads length width"]
    scores: Float[Tensor, "heads length length"]
    full: Float[Tensor, "heads length length"]
    natural: float  # the largest |score| before scaling, over all pairs that attend


def project(
    q: Float[Tensor, "heads length full"], k: Float[Tensor, "heads length full"], width: int, largest: float
) -> Projected:
    """Each head's best scores of rank `width`, scaled so that no pair that attends has |s| > largest.

    Keys are centred first: a shift of a whole row changes no softmax. The scale is one for each head, the same before
    and after the projection.
    """
    k = k - k.mean(1, keepdim=True)
    q = q * q.shape[-1] ** -0.5
    full = q @ k.transpose(-1, -2)
    (basis_q, core_q), (basis_k, core_k) = torch.linalg.qr(q), torch.linalg.qr(k)
    left, singular, right = torch.linalg.svd(core_q @ core_k.transpose(-1, -2))  # small: no wider than a head
    root = singular[:, None, :width].sqrt()
    low_q = basis_q @ left[..., :width] * root
    low_k = basis_k @ right.transpose(-1, -2)[..., :width] * root
    scores = low_q @ low_k.transpose(-1, -2)
    natural = full.tril().abs().amax((1, 2))
    factor = largest / scores.tril().abs().amax((1, 2)).clamp_min(1e-12)
    stretch = (factor.sqrt() * width**0.25)[:, None, None]
    scale = factor[:, None, None]
    return Projected(low_q * stretch, low_k * stretch, scores * scale, full * scale, float(natural.max()))


def softmax_rows(scores: Float[Tensor, "heads length length"]) -> Float[Tensor, "heads length length"]:
    """Exact causal attention."""
    length = scores.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return scores.masked_fill(~causal, -torch.inf).softmax(-1)


def map_rows(
    feature_map: FeatureMap, q: Float[Tensor, "heads length width"], k: Float[Tensor, "heads length width"]
) -> Float[Tensor, "heads length length"]:
    """A feature map's causal attention: products of features, each row divided by its sum."""
    weights = feature_map.kernel(q, k).tril()
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)


def relative_error(rows: Tensor, exact: Tensor) -> float:
    """Frobenius norm of the difference over that of the exact rows, all heads together."""
    return float((rows - exact).norm() / exact.norm())


def best_scaled(
    feature_map: FeatureMap,
    q: Float[Tensor, "heads length width"],
    k: Float[Tensor, "heads length width"],
    exact: Tensor,
) -> tuple[Tensor, float]:
    """Rows at the scale of `SCALES` that fits the first half of the rows best, and that scale."""
    half = q.shape[1] // 2
    tried = {scale: map_rows(feature_map, scale * q, scale * k) for scale in SCALES}
    chosen = min(tried, key=lambda scale: relative_error(tried[scale][:, :half], exact[:, :half]))
    return tried[chosen], chosen


def top_recall(rows: Tensor, exact: Tensor) -> float:
    """The share of each exact row's TOP most attended tokens that are among the approximate row's."""
    wanted = exact.topk(TOP, dim=-1).indices
    found = rows.topk(TOP, dim=-1).indices
    return float((wanted[..., :, None] == found[..., None, :]).any(-1).double().mean())
