"""One-shot scores of layer importance: the baselines that EvoPress's depth pruning is compared with.

Each drops whole blocks. Cosine similarity of a block's input and output: ShortGPT (Men et al. 2024, arXiv
2403.03853). The same over a window of k consecutive blocks: Gromov et al. 2024 (arXiv 2403.17887). Perplexity
with one block missing: Shortened LLaMA (Kim et al. 2024, arXiv 2402.02834). Relative norm of what a block
adds: Samragh et al. 2023 (arXiv 2312.09299). L2 distance: the plain version of it. `single_drops` scores
every sub-layer by the loss or KL with it alone missing: the additive model of a profile's error, on the same
search space as EvoPress.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from claimbench.errors import UserError
from claimbench.papers.compression.evopress.depth import DepthProfile
from claimbench.papers.compression.evopress.fitness import Criterion, Judge

Score = Literal["cosine", "window-cosine", "relative-norm", "l2", "perplexity"]


@torch.no_grad()
def block_changes(
    judge: Judge, ids: Int[Tensor, "sequences tokens"], window: int = 1
) -> dict[str, Float[np.ndarray, " starts"]]:
    """How much `window` consecutive blocks change the residual stream, from each start, averaged over tokens.

    With x before and y after: cosine(x, y), |y - x| / |y|, |y - x|. Both x and y are taken before the final
    norm.
    """
    judge.compressed.reset()
    run, count = judge.run, len(judge.decoder)
    if not judge.shares:
        raise UserError(
            f"{type(judge.decoder.model).__name__}: its layers cannot be run one by one, which scores need"
        )
    names = ("cosine", "relative-norm", "l2")
    total = {name: torch.zeros(count + 1 - window, dtype=torch.float64) for name in names}
    tokens = 0
    ids = ids.to(judge.decoder.model.device)
    at_once = max(1, judge.tokens_at_once // ids.shape[1])
    for begin in range(0, len(ids), at_once):
        states = [run.embed(ids[begin : begin + at_once])]
        for layer in range(count):
            states.append(run.layer(layer, states[-1]))
        for start in range(count + 1 - window):
            before, after = states[start].float(), states[start + window].float()
            change = (after - before).norm(dim=-1)
            total["cosine"][start] += functional.cosine_similarity(before, after, dim=-1).double().sum().cpu()
            total["relative-norm"][start] += (change / after.norm(dim=-1)).double().sum().cpu()
            total["l2"][start] += change.double().sum().cpu()
        tokens += states[0].shape[0] * states[0].shape[1]
    return {name: (value / tokens).numpy() for name, value in total.items()}


def score_profile(
    judge: Judge, ids: Int[Tensor, "sequences tokens"], score: Score, remove: int
) -> tuple[DepthProfile, int]:
    """The `remove` blocks that a score calls least important, and the forward tokens that this took."""
    count = len(judge.decoder)
    if not 0 < remove < count:
        raise UserError(f"remove: {remove} of {count} blocks; it must be at least 1 and leave some")
    if score == "window-cosine":
        start = int(np.argmax(block_changes(judge, ids, remove)["cosine"]))
        blocks, spent = tuple(range(start, start + remove)), ids.numel()
    elif score == "perplexity":
        singles = np.concatenate([np.eye(count, dtype=np.int64)] * 2, axis=1)
        losses = judge(singles, ids, "loss").mean(axis=1)
        blocks, spent = tuple(np.argsort(losses, kind="stable")[:remove].tolist()), count * ids.numel()
    else:
        changes = block_changes(judge, ids)[score]
        importance = -changes if score == "cosine" else changes
        blocks, spent = tuple(np.argsort(importance, kind="stable")[:remove].tolist()), ids.numel()
    return DepthProfile(count, tuple(sorted(blocks)), tuple(sorted(blocks))), spent


def single_drops(
    judge: Judge, ids: Int[Tensor, "sequences tokens"], criterion: Criterion = "kl"
) -> Float[np.ndarray, " units"]:
    """KL (or the rise of the loss) with one sub-layer missing: attention of all layers, then the MLPs."""
    units = judge.units
    profiles = np.concatenate([np.zeros((1, units), dtype=np.int64), np.eye(units, dtype=np.int64)])
    values = judge(profiles, ids, criterion).mean(axis=1)
    return values[1:] - values[0]
