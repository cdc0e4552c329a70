"""Byte transformers on data mixtures, all trained as one batch with stacked parameters.

Every model begins with the same weights and meets the same random numbers: which domain a sequence comes from is the
mixture's quantile of a number that all models share, so that models differ by their mixtures and as little else as
possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from claimbench.blocks.stacked import Stack
from claimbench.blocks.stacked_training import train_stack
from claimbench.blocks.tiny_transformer import TinyTransformer, token_loss
from claimbench.errors import UserError


def sequence_starts(
    mixtures: Float[np.ndarray, "models domains"],
    lengths: Sequence[int],
    which: Float[np.ndarray, " batch"],
    where: Float[np.ndarray, " batch"],
    window: int,
) -> Int[np.ndarray, "models batch"]:
    """Where each model's sequences of `window` bytes begin in the domains laid end to end.

    which, where: numbers in [0, 1): the quantile of the mixture that is the domain, and the place inside it.
    """
    sizes = np.asarray(lengths)
    shares = np.cumsum(mixtures, axis=1)
    domain = (which[None, :, None] * shares[:, None, -1:] >= shares[:, None, :]).sum(axis=2)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return first[domain] + np.floor(where * (sizes - window + 1)[domain]).astype(np.int64)


def mixture_batches(
    domains: Sequence[bytes],
    mixtures: Float[np.ndarray, "models domains"],
    *,
    batch: int,
    context: int,
    steps: int,
    seed: int,
    device: str,
) -> Iterator[tuple[Int[Tensor, "models batch context"], Int[Tensor, "models batch context"]]]:
    """Bytes and the byte after each, for every model: a sequence's domain is drawn from the model's mixture."""
    stream = torch.frombuffer(bytearray(b"".join(domains)), dtype=torch.uint8).to(device)
    lengths = [len(text) for text in domains]
    rng = np.random.default_rng([seed, 0])
    offsets = torch.arange(context + 1, device=device)
    for _ in range(steps):
        starts = sequence_starts(mixtures, lengths, rng.random(batch), rng.random(batch), context + 1)
        ids = stream[torch.from_numpy(starts).to(device)[..., None] + offsets].long()
        yield ids[..., :-1], ids[..., 1:]


def mixture_losses(
    domains: Sequence[bytes],
    mixtures: Float[np.ndarray, "models domains"],
    targets: Sequence[bytes],
    *,
    layers: int,
    width: int,
    heads: int,
    context: int,
    batch: int,
    tokens: float,
    learning_rate: float,
    seed: int,
    device: str = "cpu",
    chunk: int | None = None,
    test_sequences: int = 2000,
) -> Float[np.ndarray, "models targets"]:
    """Train a model on each mixture, with `tokens` bytes each; its loss on each target in nats per byte.

    test_sequences: the most sequences that a target's loss is taken over, spread evenly over the text.
    chunk: models that go through a step together; it bounds memory and changes nothing else.
    Raises UserError if a text is shorter than a sequence.
    """
    if short := [len(text) for text in [*domains, *targets] if len(text) <= context]:
        raise UserError(
            f"text: a domain has {short[0]} bytes; a sequence needs {context + 1}. Give more of it"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TinyTransformer(width=width, layers=layers, heads=heads, context=context)
    stack = Stack.of([model] * len(mixtures), device=device)
    steps = max(1, round(tokens / (batch * context)))
    batches = mixture_batches(
        domains, mixtures, batch=batch, context=context, steps=steps, seed=seed, device=device
    )
    train_stack(
        stack,
        batches,
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=0.1,
        loss=token_loss,
        chunk=chunk,
    )
    stack.eval()
    losses = [_losses(stack, text, context, test_sequences, chunk or len(stack)) for text in targets]
    return np.stack(losses, axis=1)


@torch.no_grad()
def _losses(stack: Stack, text: bytes, context: int, most: int, chunk: int) -> Float[np.ndarray, " models"]:
    """Mean loss over the text cut into sequences that do not overlap, or over `most` of them, evenly spread."""
    ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(stack.device).long()
    count = (len(ids) - 1) // context
    kept = torch.linspace(0, count - 1, min(count, most), device=stack.device).round().long()
    inputs = ids[: count * context].view(count, context)[kept]
    targets = ids[1 : count * context + 1].view(count, context)[kept]
    step = 64  # sequences at once
    totals = []
    for part in stack.split(chunk):
        losses = [
            len(x) * part.map(lambda model, x, y: token_loss(model(x), y), x, y, shared=True)
            for x, y in zip(inputs.split(step), targets.split(step), strict=True)
        ]
        totals.append(torch.stack(losses).sum(dim=0) / len(kept))
    return torch.cat(totals).double().cpu().numpy()
