"""Transformers of constant depth, heads and width that write out dynamic programmes: longest increasing subsequence
and edit distance (arXiv 2305.15408, theorem 4.7, made explicit).

Both find their place by counting positions: where the separators stand, which cell is next, where its neighbours are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from claimbench.papers.theory.chain_of_thought_theory import programmes as texts
from claimbench.papers.theory.chain_of_thought_theory.machine import (
    Form,
    Head,
    Program,
    Unit,
    bump,
    copy_best,
    copy_from,
    mean,
    step,
)
from claimbench.papers.theory.chain_of_thought_theory.programmes import GAP, REPLACE


def sharpness(time: int) -> float:
    """A scale at which a score that leads by 1 leaves the others less than 1 / (16 time^3) of the attention.

    Then a position that is read is off by less than 1 / (16 time^2), and a copy aimed by it still finds its target.
    """
    return 4 * math.log(time) + math.log(16)


def places(time: int) -> dict[str, torch.Tensor]:
    """Positional slots: the position, its square, and 1 over one more than it."""
    place = torch.arange(time, dtype=torch.float64)
    return {"position": place, "square": place**2, "reciprocal": 1 / (place + 1)}


def number_logits(slot: str, first: int, count: int, more: Form | None = None) -> dict[int, Form]:
    """Logits 2 v y - v^2 of the numbers v = 0, 1, ..., largest for the one nearest to y."""
    return {
        first + number: {slot: 2.0 * number, "one": -float(number**2), **(more or {})}
        for number in range(count)
    }


def switched(flag: str, large: float) -> Form:
    """The logit of a sign: above those of all numbers where its flag is 1, below where it is 0."""
    return {flag: 2 * large, "one": -large}


def subsequence_program(number_range: int, time: int) -> Program:
    """The longest increasing subsequence's table and maximum, for texts of up to `time` tokens: 3 layers, 2 heads.

    Its width is two slots for each number there is, whatever the length: one head compares the next number with all
    before it at once, by their one-hot codes.
    """
    most = float(max(time, number_range))
    scale, large, lead = sharpness(time), 4.0 * most**2, 2.0 * most
    numbers = range(number_range)
    tokens: list[Form] = [{}, {"separator": 1.0, **{f"below {v}": 1.0 for v in numbers}}, {}]
    tokens += [
        {"number": float(x), "a number": 1.0, f"is {x}": 1.0, **{f"below {v}": 1.0 for v in range(x)}}
        for x in numbers
    ]
    # The position after which the table is full counts as 0, the second separator as 1, the answer as 2.
    beyond = {"position": 1.0, "separator at": -2.0}
    first = [
        copy_best(
            {"separator": 2.0 * time, "position": -1.0},
            {"separator at": {"position": 1.0}, "begun": {"separator": 1.0}},
            scale,
        )
    ]
    flags = [
        Unit(beyond, {"over": 1.0}),
        *step(beyond, "done"),
        *bump(beyond, "table full"),
        Unit({**beyond, "one": -1.0}, {"answered": 1.0}),
        Unit({"begun": 1.0, "a number": 1.0, "one": -1.0}, {"cell": 1.0}),
    ]
    upcoming = copy_from(
        {"position": 1.0, "separator at": -1.0, "over": -1.0},
        {f"under {v}": {f"below {v}": 1.0} for v in numbers},
        scale,
    )
    own = copy_from(
        {"position": 1.0, "separator at": -1.0, "one": -1.0},
        {f"own {v}": {f"is {v}": 1.0} for v in numbers},
        scale,
    )
    # A separator has no number of its own: it reads itself.
    own = Head([*own.scores, ({"separator": 4.0 * time**2}, {"separator": 1.0})], own.values, scale)
    best = Head(
        [
            *(({f"under {v}": lead}, {f"own {v}": 1.0}) for v in numbers),
            ({"one": 1.0}, {"cell": 2 * lead, "number": 1.0, "separator": 2.5 * lead}),
        ],
        {"best": {"number": 1.0}},
        scale,
    )
    logits: dict[int, Form] = {
        **number_logits("best", texts.NUMBERS, number_range),
        texts.SEPARATOR: switched("table full", large),
        2: switched("answered", large),
    }
    for number in numbers:  # what is written is one more than the best, but for the maximum
        found = logits[texts.NUMBERS + number]
        logits[texts.NUMBERS + number] = {
            **found,
            "one": found["one"] + 2.0 * number,
            "done": -2.0 * number,
        }
    return Program(tokens, places(time), [(first, flags), ([upcoming, own], []), ([best], [])], logits)


def edit_program(words: int, time: int, border: int = GAP) -> Program:
    """The table of edit distances row by row and its last entry, for texts of up to `time` tokens: 4 layers, 5 heads.

    words: of the vocabulary, as `programmes.edit_words` makes it. The width does not depend on it. border: as there.
    """
    scale, much = sharpness(time), 4.0 * time
    count = words - texts.DISTANCES
    large = 4.0 * max(time, count) ** 2
    tokens: list[Form] = [
        {},
        {"separator": 1.0},
        {},
        {"bar": 1.0},
        {"comma": 1.0},
        *({"letter": float(letter)} for letter in range(1, 27)),
        *({"number": float(number)} for number in range(count)),
    ]
    at: Form = {"position": 1.0}
    first = [
        copy_best({"bar": 2.0 * time}, {"bar at": at}, scale),
        copy_best({"separator": 2.0 * time, "position": -1.0}, {"separator at": at}, scale),
        copy_best({"separator": 2.0 * time, "position": 1.0}, {"last separator at": at}, scale),
        copy_best({"separator": 2.0 * time, "comma": 2.0 * time, "position": 1.0}, {"row at": at}, scale),
        mean({"commas": {"comma": 1.0}}),
    ]
    ended: Form = {"last separator at": 1.0, "separator at": -1.0}
    full = {"position": 1.0, "row at": -1.0, "separator at": -1.0, "bar at": 1.0, "one": 2.0}
    flags = [
        *bump({"row at": 1.0, "separator at": -1.0}, "first row"),
        *bump({"position": 1.0, "row at": -1.0}, "first column"),
        *step(ended, "done"),
        Unit(_plus(full, ended, -much), {"row full": 1.0}),
    ]
    # -(place - rows done)^2 over position + 1: the mean of commas is the rows done over position + 1.
    letter = Head(
        [({"commas": 2.0}, {"position": 1.0}), ({"reciprocal": -1.0}, {"square": 1.0})],
        {"row letter": {"letter": 1.0}, "rows": at, "rows done": {"bar": 1.0}},
        scale * time,
    )
    number: Form = {"number": 1.0}
    above = {"position": 1.0, "separator at": -1.0, "bar at": 1.0, "one": 1.0}
    second = [
        letter,
        copy_from(
            {"bar at": 1.0, "position": 1.0, "row at": -1.0, "one": 1.0},
            {"column letter": {"letter": 1.0}},
            scale,
        ),
        copy_from(above, {"above": number}, scale),
        copy_from({**above, "one": 0.0}, {"diagonal": number}, scale),
        copy_from({"position": 1.0, "one": -2.0}, {"final": number}, scale),
    ]
    layers = [
        (first, flags),
        (second, _costs(much, border)),
        ([], [Unit({"from above": 1.0, "from left": -1.0}, {"excess": 1.0})]),
        ([], [Unit({"from above": 1.0, "excess": -1.0, "replaced": -1.0}, {"more": 1.0})]),
    ]
    cost = {"from above": 1.0, "excess": -1.0, "more": -1.0}
    logits: dict[int, Form] = {
        texts.DISTANCES + value: {
            **{slot: 2.0 * value * factor for slot, factor in cost.items()},
            "one": -float(value**2),
        }
        for value in range(count)
    }
    logits |= {
        texts.COMMA: switched("row full", large),
        texts.SEPARATOR: switched("table full", large),
        2: switched("answered", large),
    }
    return Program(tokens, places(time), layers, logits)


def _costs(much: float, border: int) -> list[Unit]:
    """The three ways to a cell, each with its cost; at the border the empty prefix's cost stands for a neighbour's.

    After the table all three are its last entry, so that their least is the answer. A term that does not apply is
    pushed below 0 by `much`.
    """
    column: Form = {
        "position": float(border),
        "row at": -float(border),
    }  # times the border's cost, counted from 0
    off = -much

    def ways(into: str, neighbour: str, edges: Mapping[str, Form], cost: float) -> list[Unit]:
        units = [
            Unit(
                {neighbour: 1.0, "one": cost, "done": off, **dict.fromkeys(edges, off)},
                {into: 1.0},
            ),
            Unit({"final": 1.0, "one": off, "done": much}, {into: 1.0}),
        ]
        return units + [
            Unit(
                {**form, "one": form.get("one", 0.0) + cost + off, edge: much, "done": off},
                {into: 1.0},
            )
            for edge, form in edges.items()
        ]

    rows: Form = {"rows": float(border)}
    units = ways("from above", "above", {"first row": {**column, "one": float(border)}}, GAP)
    units += ways("from left", "number", {"first column": {**rows, "one": float(border)}}, GAP)
    units += ways("replaced", "diagonal", {"first row": column, "first column": rows}, 0.0)
    for sign in (1.0, -1.0):
        difference = {"row letter": sign, "column letter": -sign, "done": off}
        units += [
            Unit(difference, {"replaced": float(REPLACE)}),
            Unit({**difference, "one": -1.0}, {"replaced": -float(REPLACE)}),
        ]
    return [
        *units,
        Unit({"rows done": 1.0, "done": -1.0}, {"table full": 1.0}),
        Unit({"position": 1.0, "last separator at": -1.0, "one": off, "done": much}, {"answered": 1.0}),
    ]


def _plus(form: Form, other: Form, factor: float) -> dict[str, float]:
    """form + factor x other."""
    return {slot: form.get(slot, 0.0) + factor * other.get(slot, 0.0) for slot in {**form, **other}}
