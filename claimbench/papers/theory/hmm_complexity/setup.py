"""What trials share: frozen features of a real language model's prefixes, for a seed's own share of a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.errors import UserError
from claimbench.spec import SubjectRef
from claimbench.subjects import open_subject
from claimbench.trial import Trial

if TYPE_CHECKING:
    from claimbench.subjects.causal_lm import CausalLM

BATCH = 32
CHARACTERS = 12  # of text a token, in what is cut for a prefix at first


def last_states(
    lm: CausalLM, text: str, *, prefixes: int, length: int, seed: int, device: str
) -> Float[Tensor, "prefixes width"]:
    """The last hidden state (after the final norm) at the last of `length` tokens, for prefixes from places all over
    this seed's twelfth of the text, none overlapping another.

    Raises UserError where that share is too short.
    """
    share = Trial(arm="", point={}, seed=seed).block(range(len(text)))
    step = len(share) // prefixes
    rows = []
    for index in range(prefixes):
        start = share[0] + index * step
        ids = lm.encode(text[start : start + min(step, length * CHARACTERS)])
        if len(ids) < length:  # a row of blanks or dashes is few tokens
            ids = lm.encode(text[start : start + step])
        if len(ids) < length:
            raise UserError(
                f"text: {len(share)} characters a seed do not hold {prefixes} prefixes of {length} tokens; give more"
            )
        rows.append(ids[:length])
    states = []
    with torch.no_grad():
        for part in torch.stack(rows).split(BATCH):
            hidden = lm.model(input_ids=part.to(device), output_hidden_states=True).hidden_states
            states.append(hidden[-1][:, -1].float().cpu())
    return torch.cat(states)


def build_prefix_features(
    folder: Path,
    *,
    model: SubjectRef,
    text: SubjectRef,
    prefixes: int,
    length: int,
    seed: int,
    device: str,
) -> None:
    """`last_states` of a seed's prefixes."""
    lm, found = open_subject(model, device=device), open_subject(text)
    whole = "\n\n".join(document.text for document in found.documents)
    states = last_states(lm, whole, prefixes=prefixes, length=length, seed=seed, device=device)
    np.savez(folder / "features.npz", features=states.numpy())


def prefix_features(trial: Trial) -> np.ndarray:
    """This seed's features [prefixes, width]: of the user's table, else of the language model."""
    if "features" in trial.subject:
        table = trial.subject["features"]
        names = [name for name, column in table.columns.items() if column.categories is None]
        if len(names) < 2:
            raise UserError("features: a table of numeric columns, one frozen feature each, is needed")
        matrix = np.stack([table.columns[name].values for name in names], axis=1)
        matrix = matrix[np.isfinite(matrix).all(axis=1)]
        rows = np.random.default_rng(trial.seed).permutation(len(matrix))
        return matrix[rows[: int(trial.size["prefixes"])]]
    folder = trial.shared(
        build_prefix_features,
        model=trial.subject.ref("model"),
        text=trial.subject.ref("text"),
        prefixes=trial.size["prefixes"],
        length=trial.size["length"],
    )
    with np.load(folder / "features.npz") as arrays:
        return arrays["features"]
