"""The bound: how many bits a model must hold, from its losses on names and values (arXiv 2404.05405, Section 3)."""

from __future__ import annotations

import math

from scipy.special import gammaln


def stored_bits(
    people: int, name_space: float, value_space: float, *, name_loss: float, value_loss: float
) -> float:
    """Bits of facts that a model with these losses must hold, at least (Theorem 3.2, for values from a known set).

    people log2(name_space / e^name_loss) + people log2(value_space / e^value_loss); a term below zero counts as zero.
    name_space: how many names there could be. value_space: how many combinations of values one person could have.
    name_loss: mean over people of the negative log-likelihood in nats of all tokens of the name, given nothing.
    value_loss: the same of all values' tokens, given the name.
    """
    return people * (
        max(0.0, math.log2(name_space) - name_loss / math.log(2))
        + max(0.0, math.log2(value_space) - value_loss / math.log(2))
    )


def ceiling_bits(people: int, name_space: float, value_space: float) -> float:
    """What `stored_bits` is for a model that knows everything: it gives every name 1/people, and the right values."""
    return people * (math.log2(name_space / people) + math.log2(value_space))


def information_bits(people: int, name_space: float, value_space: float) -> float:
    """Bits that it takes to write the facts down: the set of names, log2 of a binomial, and every value.

    It exceeds `ceiling_bits` by about people log2(e) (Stirling).
    """
    names = gammaln(name_space + 1) - gammaln(people + 1) - gammaln(name_space - people + 1)
    return float(names) / math.log(2) + people * math.log2(value_space)


def value_set_bits(attributes: int, values: int, length: int, vocabulary: int, *, set_loss: float) -> float:
    """Bits for knowing which strings the values are, where they are random themselves (bioD, last term).

    attributes x values x log2((vocabulary^length - values) / (values e^set_loss)), zero if negative. length: tokens of
    one string. set_loss: mean negative log-likelihood in nats of a value's string as one of its attribute's.
    """
    strings = vocabulary**length
    if strings <= values:
        raise ValueError(f"{values} different strings of {length} tokens out of {vocabulary} do not exist")
    each = math.log2((strings - values) / values) - set_loss / math.log(2)
    return attributes * values * max(0.0, each)
