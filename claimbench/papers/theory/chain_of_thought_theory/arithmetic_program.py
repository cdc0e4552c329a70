"""A transformer of constant depth, heads and width that evaluates arithmetic step by step (arXiv 2305.15408, theorem
3.3, made explicit), always reducing the leftmost pair that may be.
"""

from __future__ import annotations

import numpy as np

from claimbench.papers.theory.chain_of_thought_theory import expressions as texts
from claimbench.papers.theory.chain_of_thought_theory.expressions import apply_operators
from claimbench.papers.theory.chain_of_thought_theory.machine import (
    Form,
    Head,
    Program,
    Unit,
    bump,
    copy_best,
    copy_from,
    step,
)
from claimbench.papers.theory.chain_of_thought_theory.programs import (
    number_logits,
    places,
    sharpness,
    switched,
)

SIGNS = ("plus", "minus", "times", "over", "open", "close", "equals")


def arithmetic_program(prime: int, time: int) -> Program:
    """Derivations of arithmetic expressions, for texts of up to `time` tokens: 4 layers, at most 5 heads.

    A pair is seen at the token after it, from the four tokens before. The first layer looks its value up in a table of
    4 prime^2 units; the third finds the leftmost pair of the line above; the fourth copies the line above around it.
    Only what the published generator writes is understood: brackets that are needed, and no signs before numbers.
    """
    scale, large = sharpness(time), 4.0 * max(time, prime) ** 2
    far = 2.0 * time
    tokens: list[Form] = [{}, {}, {}]
    tokens += [
        {
            sign: 1.0,
            "strong": float(sign in SIGNS[2:4]),
            "weak": float(sign in SIGNS[:2]),
            "code": float(place),
        }
        for place, sign in enumerate(SIGNS)
    ]
    tokens += [{"number": float(value), "a number": 1.0} for value in range(prime)]
    positional = places(time)
    positional["fourth"] = (positional["position"] == 3).double()

    def back(offset: int, *slots: str) -> dict[str, Form]:
        return {f"{slot} {offset} back": {slot: 1.0} for slot in slots}

    def earlier(offset: int) -> Form:
        return {"position": 1.0, "one": -float(offset)}

    first = [
        copy_from(earlier(1), back(1, "number", "a number"), scale),
        copy_from(earlier(2), back(2, "strong", "weak", "code"), scale),
        copy_from(earlier(3), back(3, "number", "a number"), scale),
        copy_from(earlier(4), back(4, "open", "equals", "plus", "minus"), scale),
        copy_best(
            {"equals": 2.0 * time, "position": 1.0},
            {"last equals": {"position": 1.0}, "its square": {"square": 1.0}, "begun": {"equals": 1.0}},
            scale,
        ),
    ]
    # In the first line the sign before it counts as one at position -1, whose square is 1.
    line = [
        Unit({"last equals": 1.0, "one": 1.0 - far, "begun": far}, {"line": 1.0}),
        Unit({"its square": 1.0, "one": -1.0 - far**2, "begun": far**2}, {"line squared": 1.0}),
    ]
    # Each position's line, as it was one position before; and the line above, as it was before the last sign.
    above = {"line": 1.0, "one": -1.0}
    second = [
        copy_from(earlier(1), {"own line": above, "own squared": {"line squared": 1.0, "one": 1.0}}, scale),
        copy_from({"line": 1.0, "one": -2.0}, {"line above": above}, scale),
    ]
    # Among pairs seen: those of the line above, and of these the first. Distances of lines weigh more than positions.
    pair = Head(
        [
            ({"line above": 2 * far}, {"own line": 1.0}),
            ({"one": -far}, {"own squared": 1.0}),
            ({"one": 1.0}, {"position": -1.0, "a pair": 8.0 * far * time**2}),
        ],
        {"seen at": {"position": 1.0}, "in brackets": {"bracketed": 1.0}, "value": {"result": 1.0}},
        scale,
    )
    offset: Form = {"position": 1.0, "line": -1.0, "one": 1.0}  # of the next token in its line, from 0
    # How far the next token lies behind the place of the pair, whose bracket or first number is 3 or 4 before.
    behind: Form = {
        "position": 1.0,
        "line": -1.0,
        "line above": 1.0,
        "seen at": -1.0,
        "in brackets": 1.0,
        "one": 5.0,
    }
    third = [
        *step(behind, "after"),
        *step({**behind, "one": 5.0 - far, "in brackets": 1.0 + far}, "after brackets"),
        *bump(behind, "here"),
        *bump({**offset, "one": 0.0}, "second in line"),
    ]
    source: Form = {
        "line above": 1.0,
        "position": 1.0,
        "line": -1.0,
        "one": 2.0,
        "after": 2.0,
        "after brackets": 2.0,
    }
    copied = ("number", "a number", *SIGNS)
    fourth = copy_from(source, {f"copied {slot}": {slot: 1.0} for slot in copied}, scale)
    written = [
        Unit({"copied number": 1.0, "here": -far - prime}, {"written": 1.0}),
        Unit({"value": 1.0, "one": -far - prime, "here": far + prime}, {"written": 1.0}),
        *(Unit({f"copied {sign}": 1.0, "here": -1.0}, {f"write {sign}": 1.0}) for sign in SIGNS[:-1]),
        Unit({"copied equals": 1.0, "here": -1.0, "second in line": -1.0}, {"write equals": 1.0}),
        Unit({"copied equals": 1.0, "second in line": 1.0, "here": -1.0, "one": -1.0}, {"finished": 1.0}),
    ]
    layers = [(first, [*_pairs(prime), *line]), (second, []), ([pair], third), ([fourth], written)]
    logits = number_logits("written", texts.ZERO, prime)
    logits |= {texts.PLUS + place: switched(f"write {sign}", large) for place, sign in enumerate(SIGNS)}
    logits[2] = switched("finished", large)
    return Program(tokens, positional, layers, logits)


def _pairs(prime: int) -> list[Unit]:
    """Whether the three tokens before are a pair that may be reduced, whether it is in brackets, and its value.

    The value is a piecewise linear function of prime^2 sign + prime first + second, with a knot at each whole number.
    """
    numbers = {"a number 1 back": 1.0, "a number 3 back": 1.0}
    begins = {"open 4 back": 1.0, "equals 4 back": 1.0, "fourth": 1.0}
    strong = {**numbers, **begins, "strong 2 back": 1.0, "plus 4 back": 1.0, "minus 4 back": 1.0, "one": -3.0}
    weak = {**numbers, **begins, "weak 2 back": 1.0, "strong": -1.0, "one": -3.0}
    around = {
        **numbers,
        "strong 2 back": 1.0,
        "weak 2 back": 1.0,
        "open 4 back": 1.0,
        "close": 1.0,
        "one": -4.0,
    }
    sign, first, second = (part.ravel() for part in np.indices((4, prime, prime)))
    values = apply_operators(first, sign, second, prime).astype(float)
    bends = np.diff(values, n=2, prepend=[0.0, 0.0])
    code = {"code 2 back": float(prime**2), "number 3 back": float(prime), "number 1 back": 1.0}
    table = [
        Unit({**code, "one": 1.0 - place}, {"result": float(bend)})
        for place, bend in enumerate(bends)
        if bend
    ]
    return [
        Unit(strong, {"a pair": 1.0}),
        Unit(weak, {"a pair": 1.0}),
        Unit(around, {"bracketed": 1.0}),
        *table,
    ]
