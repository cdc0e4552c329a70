"""A transformer whose weights are written by hand, run in as many bits as one asks for (arXiv 2305.15408, appendix C).

The residual stream has named slots. A head's score is a sum of products of a linear form of the querying position and
one of the read position; its softmax, sharpened by a scale, is the paper's COPY where one position wins and MEAN where
all scores are equal. A unit is a ReLU of a linear form. All numbers may be rounded to b bits of mantissa after every
operation, as a log-precision transformer's are, with b a multiple of log n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Form = Mapping[str, float]
"""A linear form: slot to factor. The slot `one` is 1 everywhere."""


@dataclass(frozen=True)
class Head:
    """scores: pairs of forms (querying position, read position), multiplied and added. values: what is written where,
    the mean over the positions read. scale: on the scores; it grows with the largest length as its logarithm does.
    """

    scores: Sequence[tuple[Form, Form]]
    values: Mapping[str, Form]
    scale: float = 1.0


@dataclass(frozen=True)
class Unit:
    """max(0, form), added to slots with factors."""

    form: Form
    into: Form


@dataclass(frozen=True)
class Program:
    """A transformer before it is made of matrices.

    tokens: slots of each id's embedding. positions: slot to its value at each position, [time]. layers: heads, then
    units. logits: a form for each id; those without one are never written.
    """

    tokens: Sequence[Form]
    positions: Mapping[str, Float[Tensor, " time"]]
    layers: Sequence[tuple[Sequence[Head], Sequence[Unit]]]
    logits: Mapping[int, Form]


def copy_from(target: Form, values: Mapping[str, Form], scale: float) -> Head:
    """COPY from the position whose number is the value of a form: the score is -(position - target)^2, without the
    target's square, which is equal for all positions. Needs the slots `position` and `square`.
    """
    twice = {slot: 2 * factor for slot, factor in target.items()}
    return Head([(twice, {"position": 1.0}), ({"one": -1.0}, {"square": 1.0})], values, scale)


def copy_best(key: Form, values: Mapping[str, Form], scale: float) -> Head:
    """COPY from the position where a form is largest."""
    return Head([({"one": 1.0}, key)], values, scale)


def mean(values: Mapping[str, Form]) -> Head:
    """MEAN over all positions so far."""
    return Head([], values)


def step(form: Form, into: str) -> list[Unit]:
    """Units that write 1 into a slot where a whole-numbered form is 1 or more, 0 where it is 0 or less."""
    less = {**form, "one": form.get("one", 0.0) - 1}
    return [Unit(form, {into: 1.0}), Unit(less, {into: -1.0})]


def bump(form: Form, into: str) -> list[Unit]:
    """Units that write 1 into a slot where a whole-numbered form is 0, and 0 where it is not."""
    one = form.get("one", 0.0)
    shifted = [({**form, "one": one + 1 - k}, (1.0, -2.0, 1.0)[k]) for k in range(3)]
    return [Unit(moved, {into: factor}) for moved, factor in shifted]


class Forms:
    """Linear forms as a matrix [forms, slots], applied without its zeros: nearly all forms read a slot or two."""

    def __init__(self, forms: Sequence[Form], slots: Mapping[str, int], bits: int | None) -> None:
        """Raises KeyError where a form reads a slot that nothing writes."""
        self.count = len(forms)
        single = [next(iter(form.items())) if len(form) == 1 else ("one", 0.0) for form in forms]
        self.slot = torch.tensor([slots[name] for name, _ in single], dtype=torch.long)
        self.factor = rounded(torch.tensor([factor for _, factor in single], dtype=torch.float64), bits)
        rows = [row for row, form in enumerate(forms) if len(form) > 1]
        names = {
            name: place for place, name in enumerate(dict.fromkeys(n for row in rows for n in forms[row]))
        }
        dense = torch.zeros(len(rows), len(names), dtype=torch.float64)
        for place, row in enumerate(rows):
            for name, factor in forms[row].items():
                dense[place, names[name]] = factor
        self.rows = torch.tensor(rows, dtype=torch.long)
        self.columns = torch.tensor([slots[name] for name in names], dtype=torch.long)
        self.dense = rounded(dense, bits)

    @property
    def largest(self) -> float:
        """The largest absolute factor."""
        return max(
            (float(part.abs().max()) for part in (self.factor, self.dense) if part.numel()), default=0.0
        )

    def __call__(self, x: Float[Tensor, "... slots"]) -> Float[Tensor, "... forms"]:
        """Each form's value."""
        found = x[..., self.slot] * self.factor
        if len(self.rows):
            found[..., self.rows] = x[..., self.columns] @ self.dense.mT
        return found


def rounded(x: Float[Tensor, "*shape"], bits: int | None) -> Float[Tensor, "*shape"]:
    """To the nearest numbers with so many bits of mantissa (Veltkamp's splitting, Dekker 1971); None: as they are."""
    if bits is None:
        return x
    stretched = x * (2.0 ** (53 - bits) + 1)
    return stretched - (stretched - x)


class HandMade:
    """A program as matrices. bits: of each number's mantissa, at most 52; None for double precision as it is."""

    def __init__(self, program: Program, *, bits: int | None = None) -> None:
        names = dict.fromkeys(["one"])
        for form in [*program.tokens, program.positions]:
            names |= dict.fromkeys(form)
        for heads, units in program.layers:
            for written in [*(head.values for head in heads), *(unit.into for unit in units)]:
                names |= dict.fromkeys(written)
        self.slots = {name: place for place, name in enumerate(names)}
        self.bits = bits
        self.embedding = torch.zeros(len(program.tokens), len(names), dtype=torch.float64)
        for token, form in enumerate(program.tokens):
            if form:
                places = torch.tensor([self.slots[slot] for slot in form])
                self.embedding[token, places] = torch.tensor(list(form.values()), dtype=torch.float64)
        time = len(next(iter(program.positions.values())))
        self.positional = torch.zeros(time, len(names), dtype=torch.float64)
        self.positional[:, self.slots["one"]] = 1.0
        for name, values in program.positions.items():
            self.positional[:, self.slots[name]] = values.double()
        self.embedding, self.positional = (
            rounded(table, bits) for table in (self.embedding, self.positional)
        )
        self.layers = [
            ([self._head(head) for head in heads], self._units(units)) for heads, units in program.layers
        ]
        self.output = self._forms([program.logits.get(token, {}) for token in range(len(program.tokens))])
        self.silent = torch.tensor([token not in program.logits for token in range(len(program.tokens))])

    def _forms(self, forms: Sequence[Form]) -> Forms:
        return Forms(forms, self.slots, self.bits)

    def _head(self, head: Head) -> tuple[Forms, Forms, Forms, Tensor]:
        queries = [{slot: head.scale * factor for slot, factor in query.items()} for query, _ in head.scores]
        places = torch.tensor([self.slots[slot] for slot in head.values])
        return (
            self._forms(queries),
            self._forms([key for _, key in head.scores]),
            self._forms(list(head.values.values())),
            places,
        )

    def _units(self, units: Sequence[Unit]) -> tuple[Forms, Tensor, Tensor]:
        """What units read; their factors [written slots, units]; which slots these are."""
        names = list(dict.fromkeys(slot for unit in units for slot in unit.into))
        factors = torch.tensor(
            [[unit.into.get(slot, 0.0) for unit in units] for slot in names], dtype=torch.float64
        ).view(len(names), len(units))
        places = torch.tensor([self.slots[slot] for slot in names], dtype=torch.long)
        return self._forms([unit.form for unit in units]), rounded(factors, self.bits), places

    def _round(self, x: Tensor) -> Tensor:
        return rounded(x, self.bits)

    # ---- what it is made of ----

    @property
    def depth(self) -> int:
        """Layers."""
        return len(self.layers)

    @property
    def heads(self) -> int:
        """The most heads of a layer."""
        return max(len(heads) for heads, _ in self.layers)

    @property
    def width(self) -> int:
        """Slots of the residual stream."""
        return len(self.slots)

    @property
    def hidden(self) -> int:
        """The most units of a layer."""
        return max(inside.count for _, (inside, _, _) in self.layers)

    @property
    def largest_weight(self) -> float:
        """The largest absolute value of a weight."""
        forms = [self.output, *(inside for _, (inside, _, _) in self.layers)]
        forms += [part for heads, _ in self.layers for head in heads for part in head[:3]]
        tables = [self.embedding, *(factors for _, (_, factors, _) in self.layers)]
        return max(
            *(part.largest for part in forms),
            *(float(table.abs().max()) for table in tables if table.numel()),
        )

    # ---- running it ----

    @torch.no_grad()
    def logits(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Of the token after each position. Raises IndexError for sequences longer than the positions there are."""
        return self._run(ids, [None] * len(self.layers), 0)[0]

    def predictions(self, ids: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
        """The token that is written after each position."""
        return self.logits(ids).argmax(-1)

    @torch.no_grad()
    def generate(
        self, prompts: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"], steps: int
    ) -> Int[Tensor, "batch steps"]:
        """Whole sequences of `steps` tokens: each prompt's first `lengths` tokens, then what the machine writes, one
        token at a time from its own earlier ones.
        """
        out = torch.zeros(len(prompts), steps, dtype=torch.long)
        written = prompts[:, 0]
        caches: list[list[tuple[Tensor, Tensor]] | None] = [None] * len(self.layers)
        for place in range(steps):
            given = prompts[:, min(place, prompts.shape[1] - 1)]
            out[:, place] = torch.where(place < lengths, given, written)
            found, caches = self._run(out[:, place, None], caches, place)
            written = found[:, -1].argmax(-1)
        return out

    def _run(
        self, ids: Tensor, caches: Sequence[list[tuple[Tensor, Tensor]] | None], start: int
    ) -> tuple[Tensor, list[list[tuple[Tensor, Tensor]] | None]]:
        """Logits of the given positions, from `start` on, and the keys and values of all positions so far."""
        x = self.embedding[ids] + self.positional[torch.arange(start, start + ids.shape[1])]
        kept: list[list[tuple[Tensor, Tensor]] | None] = []
        for (heads, (inside, factors, outside)), cache in zip(self.layers, caches, strict=True):
            added, now = torch.zeros_like(x), []
            for place, (queries, keys, values, into) in enumerate(heads):
                key, value = self._round(keys(x)), self._round(values(x))
                if cache is not None:
                    key, value = (
                        torch.cat([old, new], 1) for old, new in zip(cache[place], (key, value), strict=True)
                    )
                now.append((key, value))
                added[..., into] += self._attend(self._round(queries(x)), key, value)
            x = self._round(x + added)
            x[..., outside] += self._round(torch.relu(self._round(inside(x))) @ factors.mT)
            x = self._round(x)
            kept.append(now)
        return self._round(self.output(x)).masked_fill(self.silent, -torch.inf), kept

    def _attend(
        self,
        query: Float[Tensor, "batch asked size"],
        key: Float[Tensor, "batch known size"],
        value: Float[Tensor, "batch known values"],
        at_once: int = 2**18,
    ) -> Float[Tensor, "batch asked values"]:
        """Softmax attention to the positions up to one's own, about `at_once` scores at a time: they fit a cache."""
        asked, known = query.shape[1], key.shape[1]
        rows = max(1, at_once // (len(key) * known))
        parts = []
        for first in range(0, asked, rows):
            own = known - asked + torch.arange(first, min(first + rows, asked))
            last = int(own[-1]) + 1
            scores = self._round(query[:, first : first + rows] @ key[:, :last].mT)
            scores = scores.masked_fill(torch.arange(last) > own[:, None], -torch.inf)
            shares = self._round(torch.exp(scores - scores.amax(-1, keepdim=True)))
            total = self._round(shares.sum(-1, keepdim=True))
            parts.append(self._round(self._round(shares @ value[:, :last]) / total))
        return torch.cat(parts, 1)
