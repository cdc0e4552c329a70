"""Finished runs as a table: mixtures and losses that a user measured, in either of two layouts.

One row a run. Shares of the training domains stand in columns `w_DOMAIN` or `train_DOMAIN`; losses in `loss_TARGET`,
`valid_TARGET` or `metric/TARGET_val_loss`. The layout `train_DOMAIN` with `metric/TARGET_val_loss` is that of the files
which come with RegMix (github.com/sail-sg/regmix, folder data): join a mixture file and its loss file by `index`, for
example with `join -t, -j1 --header` on the sorted files. Other columns, such as `index`, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from claimbench.errors import UserError, nearest

SHARES = ("w_", "train_")
LOSSES = (("loss_", ""), ("valid_", ""), ("metric/", "_val_loss"))
TOLERANCE = 0.02  # how far rounded shares may sum from 1


@dataclass(frozen=True)
class Runs:
    """Mixtures of named domains and one target's loss."""

    domains: tuple[str, ...]
    mixtures: Float[np.ndarray, "n domains"]
    losses: Float[np.ndarray, " n"]

    @property
    def prior(self) -> Float[np.ndarray, " domains"]:
        """The mean mixture: what stands in for the domains' sizes, which a table does not have."""
        return self.mixtures.mean(axis=0)


def _named(columns: Mapping[str, np.ndarray], affixes: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Column by the name between the affixes; the first pair that fits any column is the table's layout."""
    for before, after in affixes:
        found = {
            name[len(before) : len(name) - len(after)]: name
            for name in columns
            if name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
        }
        if found:
            return found
    return {}


def read_runs(columns: Mapping[str, np.ndarray], target: str = "") -> Runs:
    """The runs in a table's columns; shares are renormalised. Rows without the target's loss are left out.

    target: whose loss; may be left out if there is one only. Raises UserError, which names the columns, where none are
    shares or losses, the target is unknown, or shares are negative or do not sum to 1.
    """
    shares = _named(columns, tuple((prefix, "") for prefix in SHARES))
    losses = _named(columns, LOSSES)
    if not shares:
        raise UserError(f"runs: no column begins with {' or '.join(SHARES)}: those are the mixtures' shares")
    if not losses:
        raise UserError("runs: no column is called loss_TARGET, valid_TARGET or metric/TARGET_val_loss")
    if target not in losses and not (target == "" and len(losses) == 1):
        raise UserError(
            f'runs: no loss for target "{target}"{nearest(target, losses)}; give --size target=NAME, one of '
            + ", ".join(losses)
        )
    measured = np.asarray(columns[losses[target] if target else next(iter(losses.values()))], dtype=float)
    mixtures = np.stack([np.asarray(columns[name], dtype=float) for name in shares.values()], axis=1)
    kept = np.isfinite(measured)
    mixtures, measured = mixtures[kept], measured[kept]
    sums = mixtures.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(sums - 1) <= TOLERANCE) | (mixtures < 0).any(axis=1))
    if len(wrong):
        raise UserError(
            f"runs: the shares of {len(wrong)} rows are negative, missing or do not sum to 1 "
            f"(the first sums to {sums[wrong[0]]:.3g})"
        )
    return Runs(tuple(shares), mixtures / sums[:, None], measured)
