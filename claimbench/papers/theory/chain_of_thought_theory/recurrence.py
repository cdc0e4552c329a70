"""A dynamic programme of one's own as derivations: the table written cell by cell, then the answer.

The theory's condition (arXiv 2305.15408, section 4.2) is that a cell needs a constant number of earlier cells and of
places of the prompt. `Recurrence.lookups` counts what a cell really reads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from claimbench.errors import UserError
from claimbench.papers.theory.chain_of_thought_theory.derivations import END, PAD, Derivations

SEPARATOR = "<sep>"
Problem = Callable[[np.random.Generator], tuple[Sequence[Any], Sequence[Any], Sequence[Any]]]
"""problem(generator): the prompt, the steps and the answer of a random instance, each a sequence of tokens."""


@dataclass(frozen=True)
class Recurrence:
    """A dynamic programme. Called with a generator it is a `Problem`.

        coins = Recurrence(
            draw=lambda generator: generator.integers(1, 9, size=6).tolist(),
            cells=lambda prompt: range(len(prompt)),
            value=lambda prompt, cell, known: prompt[cell] + (known[cell - 2] if cell > 1 else 0),
            answer=lambda prompt, known: max(known.values()),
        )

    draw(generator): a random prompt. cells(prompt): names of the cells in the order in which they are written.
    value(prompt, cell, known): a cell's value from those written before it. answer(prompt, known): a value, or several.
    """

    draw: Callable[[np.random.Generator], Sequence[Any]]
    cells: Callable[[Sequence[Any]], Iterable[Hashable]]
    value: Callable[[Sequence[Any], Any, Mapping[Any, Any]], Any]
    answer: Callable[[Sequence[Any], Mapping[Any, Any]], Any]

    def __call__(self, generator: np.random.Generator) -> tuple[list[Any], list[Any], list[Any]]:
        """Prompt, table and answer of a random instance.

        Raises UserError where a cell reads one that is not written before it.
        """
        prompt = list(self.draw(generator))
        table = self._table(prompt)
        answer = self.answer(prompt, table)
        return prompt, list(table.values()), _several(answer)

    def lookups(self, generator: np.random.Generator) -> int:
        """The most different cells that one cell of a random instance reads."""
        return self._table(list(self.draw(generator))).most

    def _table(self, prompt: list[Any]) -> _Table:
        table = _Table()
        for cell in self.cells(prompt):
            if cell in table.read_as_dict():
                raise UserError(f"cells: {cell!r} stands there twice; each cell is written once")
            table.begin(cell)
            table.write(cell, self.value(prompt, cell, table))
        table.begin(None)
        return table


class _Table(Mapping[Any, Any]):
    """Cells written so far; counts the different ones that are read for one cell."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}
        self._cell: Any = None
        self._read: set[Any] = set()
        self.most = 0

    def begin(self, cell: Any) -> None:
        self.most = max(self.most, len(self._read)) if self._cell is not None else self.most
        self._cell, self._read = cell, set()

    def write(self, cell: Any, value: Any) -> None:
        self._known[cell] = value

    def read_as_dict(self) -> dict[Any, Any]:
        return self._known

    def __getitem__(self, cell: Any) -> Any:
        self._read.add(cell)
        try:
            return self._known[cell]
        except KeyError:
            wanted = "the answer" if self._cell is None else f"value of cell {self._cell!r}"
            raise UserError(f"{wanted} reads cell {cell!r}, which is not written before it") from None

    def get(self, cell: Any, default: Any = None) -> Any:
        """A cell's value, or the default where it is not written: how a recurrence asks for its border."""
        return self[cell] if cell in self._known else default

    def __contains__(self, cell: object) -> bool:
        return cell in self._known

    def __iter__(self) -> Iterator[Any]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _several(answer: Any) -> list[Any]:
    return list(answer) if isinstance(answer, list | tuple) else [answer]


def own_derivations(problem: Problem, count: int, generator: np.random.Generator) -> Derivations:
    """Random instances of a problem of one's own: prompt <sep> steps <sep> answer.

    The vocabulary is what occurs: numbers in their order, then the other words. problem: a `Recurrence`, or any
    function of a generator that returns prompt, steps and answer. Raises UserError where it returns anything else.
    """
    rows = []
    for _ in range(count):
        try:
            found = [list(part) for part in problem(generator)]
            prompt, steps, answer = found
        except (TypeError, ValueError) as error:
            wanted = "prompt, steps and answer, each a list of tokens"
            raise UserError(f"the problem must return {wanted}: {error}") from error
        if not prompt or not answer:
            raise UserError("the problem returned an empty prompt or answer; each has a token at least")
        rows.append(tuple([str(token) for token in part] for part in (prompt, steps, answer)))
    found_words = {token for row in rows for part in row for token in part} - {PAD, SEPARATOR, END}
    words = (PAD, SEPARATOR, END, *sorted(found_words, key=_order))
    known = {word: place for place, word in enumerate(words)}
    texts = [[*prompt, SEPARATOR, *steps, SEPARATOR, *answer, END] for prompt, steps, answer in rows]
    ids = np.zeros((count, max(map(len, texts), default=1)), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = [known[token] for token in text]
    prompts = np.array([len(row[0]) + 1 for row in rows], dtype=np.int64)
    answers = prompts + np.array([len(row[1]) + 1 for row in rows], dtype=np.int64)
    return Derivations(ids, prompts, answers, np.array([len(text) - 1 for text in texts]), words)


def _order(word: str) -> tuple[bool, float, str]:
    try:
        return False, float(word), word
    except ValueError:
        return True, 0.0, word
