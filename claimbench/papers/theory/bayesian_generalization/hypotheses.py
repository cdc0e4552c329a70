"""Bayesian generalisation with the size principle (Tenenbaum 1999; Tenenbaum and Griffiths 2001).

Given examples X of a new concept, P(h|X) is proportional to P(h) |h|^-|X| for hypotheses that contain all examples and
0 for others (strong sampling); y is taken for a member with probability sum over h containing y of P(h|X).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from claimbench.errors import UserError

CONJOINED = 10  # 2^10 conjunctions, a million pairs


def posterior(
    consistent: Bool[np.ndarray, "*sets hypotheses"],
    sizes: Float[np.ndarray, "*sets hypotheses"],
    examples: int,
    prior: Float[np.ndarray, " hypotheses"] | None = None,
) -> Float[np.ndarray, "*sets hypotheses"]:
    """P(h|X) by the size principle, for one set of hypotheses or several at once.

    consistent: which hypotheses contain all examples. sizes: |h| > 0, in any unit. prior: default uniform.
    Raises UserError where no hypothesis is consistent.
    """
    if not consistent.any(axis=-1).all():
        raise UserError("no hypothesis contains all examples; add one that contains everything")
    with np.errstate(divide="ignore"):
        logs = -examples * np.log(sizes) + (0.0 if prior is None else np.log(prior))
    logs = np.where(consistent, logs, -np.inf)
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def generalise(
    members: Bool[np.ndarray, "hypotheses things"],
    examples: Int[np.ndarray, " examples"],
    prior: Float[np.ndarray, " hypotheses"] | None = None,
) -> Float[np.ndarray, " things"]:
    """P(y in C | X) for every thing y. members[h, y]: whether hypothesis h contains thing y.

    generalise(members, examples=np.array([2, 4, 8]))
    """
    consistent = np.asarray(members[:, examples].all(axis=1))
    return (
        posterior(consistent, members.sum(axis=1).astype(float).clip(1e-300), len(examples), prior) @ members
    )


def conjunctions(attributes: int) -> Bool[np.ndarray, "conjunctions attributes"]:
    """All conjunctions of some attributes: which each demands. The first demands nothing."""
    if not 1 <= attributes <= CONJOINED:
        raise UserError(f"{attributes} attributes in a rule: between 1 and {CONJOINED} can be conjoined")
    return (np.arange(2**attributes)[:, None] >> np.arange(attributes)) & 1 == 1


def rule_scores(
    support: Bool[np.ndarray, "sets examples attributes"],
    queries: Bool[np.ndarray, "queries attributes"],
    background: Bool[np.ndarray, "things attributes"],
    chosen: Int[np.ndarray, "sets attributes_in_rule"],
) -> Float[np.ndarray, "sets queries"]:
    """P(query in concept | its examples), where hypotheses are conjunctions of the `chosen` attributes of each set.

    background: things whose share that satisfies a conjunction is its size (a half of one thing is added, so that no
    size is 0). A conjunction's complexity is not penalised beyond the size principle.
    """
    rules = conjunctions(chosen.shape[1])
    powers = 2 ** np.arange(chosen.shape[1])
    everything = len(rules)

    def codes(things: Bool[np.ndarray, "things attributes"]) -> Int[np.ndarray, "sets things"]:
        """Each thing as the number whose bits say which of a set's attributes it has."""
        return np.moveaxis(things[:, chosen], 0, 1) @ powers

    # Conjunction h contains thing y if y has all of h's bits: h & y == h.
    contains = (np.arange(everything)[:, None] & np.arange(everything)) == np.arange(everything)[:, None]
    counts = np.stack([np.bincount(row, minlength=everything) for row in codes(background)])
    sizes = (counts @ contains.T + 0.5) / (len(background) + 1.0)
    shared = np.take_along_axis(support.all(axis=1), chosen, axis=1) @ powers
    weights = posterior(contains[:, shared].T, sizes, support.shape[1])
    return np.take_along_axis(weights @ contains, codes(queries), axis=1)
