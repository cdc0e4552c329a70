"""A small language model over bytes and its training: eight Llama blocks that learn in about a minute of CPU time.

The architecture is transformers' Llama (Touvron et al. 2023, arXiv 2302.13971); bytes need no tokenizer to be trained,
and a loss in nats per byte compares across models (ByT5: Xue et al. 2021, arXiv 2105.13626). Training is AdamW
(Loshchilov & Hutter 2017, arXiv 1711.05101) with linear warm-up and a cosine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from claimbench.blocks.schedules import warm_cosine

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

BOUNDARY = 256  # between documents: begins and ends every text
VOCABULARY = 257


def byte_lm(
    *, layers: int = 8, width: int = 128, heads: int = 4, hidden: int = 256, context: int = 128, seed: int = 0
) -> LlamaForCausalLM:
    """An untrained Llama over bytes: ids 0 to 255 are bytes, 256 is the boundary between documents.

    Output projections start smaller by (2 x layers)^-1/2 (Radford et al. 2019, section 2.3).
    layers: blocks. width: of the residual stream. hidden: of the gated MLP. context: the longest sequence, in bytes.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        initializer_range=width**-0.5 / 2,
        tie_word_embeddings=True,
        bos_token_id=BOUNDARY,
        eos_token_id=BOUNDARY,
        pad_token_id=BOUNDARY,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(
                ("o_proj.weight", "down_proj.weight")
            ):  # 2 x layers of them add into the residual stream
                parameter.mul_((2 * layers) ** -0.5)
    return model


def windows(
    text: Int[Tensor, " bytes"], starts: Int[Tensor, " batch"], length: int
) -> Int[Tensor, "batch length"]:
    """Stretches of `length` bytes that begin at `starts`."""
    return text[starts[:, None] + torch.arange(length, device=text.device)].long()


def nats_per_byte(model: Any, sequences: Int[Tensor, "batch length"]) -> Float[Tensor, "batch predicted"]:
    """Negative log-likelihood of each byte after the first, given those before it."""
    logits = model(input_ids=sequences, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), sequences[:, 1:].flatten(), reduction="none"
    )
    return losses.view(sequences.shape[0], -1)


def train_byte_lm(
    text: bytes,
    *,
    steps: int,
    batch: int,
    context: int,
    lr: float,
    seed: int,
    device: str = "cpu",
    model: LlamaForCausalLM | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> LlamaForCausalLM:
    """Train on random windows of `text`; the model in eval mode. Equal arguments give equal weights on one machine.

    batch: windows a step. context: bytes a window. lr: the peak learning rate. progress: called after every step with
    the step, the number of steps and the loss in nats per byte.
    Raises ValueError if the text is shorter than a window.
    """
    if len(text) <= context:
        raise ValueError(f"{len(text)} bytes of text are not longer than a window of {context}")
    if model is None:
        model = byte_lm(context=context, seed=seed)
    model = model.to(torch.device(device)).train()  # type: ignore[arg-type]  # transformers wraps it without types
    stream = torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy()).to(device)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(text) - context, (steps, batch), generator=generator).to(device)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps, floor=0.05))
    for step in range(steps):
        loss = nats_per_byte(model, windows(stream, starts[step], context)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if progress is not None:
            progress(step + 1, steps, float(loss.detach()))
    return model.eval()
