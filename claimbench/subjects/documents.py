"""Documents and their split into train, validation and test.

Documents go to the splits by the order of their content's hash: nothing about a document's name, place or neighbours
decides, equal documents count once, and no document lies in two splits.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of the characters
PASSAGE = 8_000  # characters, about: what a document is where a file holds everything


@dataclass(frozen=True)
class Document:
    """A text that is never divided between splits."""

    text: str
    domain: str = ""

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class Text:
    """Documents in three disjoint splits; `train`, `validation` and `test` are their texts, joined by blank lines."""

    def __init__(self, documents: Iterable[Document]) -> None:
        distinct = {document.sha256: document for document in documents if document.text.strip()}
        self.documents: tuple[Document, ...] = tuple(distinct[key] for key in sorted(distinct))

    @cached_property
    def splits(self) -> dict[str, tuple[Document, ...]]:
        """Documents in the order of their hashes: train, validation, test; none is empty if there are three."""
        sizes = [len(document.text) for document in self.documents]
        middles = [end - size / 2 for end, size in zip(accumulate(sizes), sizes, strict=True)]
        count = len(sizes)
        trained = bisect_left(middles, SHARES["train"] * sum(sizes))
        trained = min(max(trained, 1), max(count - 2, 1))
        validated = bisect_left(middles, (SHARES["train"] + SHARES["validation"]) * sum(sizes))
        validated = min(max(validated, trained + 1), count - 1) if count > 2 else trained
        parts = (self.documents[:trained], self.documents[trained:validated], self.documents[validated:])
        return dict(zip(SHARES, parts, strict=True))

    @cached_property
    def train(self) -> str:
        return _joined(self.splits["train"])

    @cached_property
    def validation(self) -> str:
        return _joined(self.splits["validation"])

    @cached_property
    def test(self) -> str:
        return _joined(self.splits["test"])

    @cached_property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted({document.domain for document in self.documents}))


def _joined(documents: Sequence[Document]) -> str:
    return "\n\n".join(document.text for document in documents)


def passages(text: str, length: int = PASSAGE) -> list[str]:
    """A text cut at line ends into passages of at least `length` characters (the last may be shorter)."""
    cuts = [0]
    while cuts[-1] < len(text):
        end = text.find("\n", cuts[-1] + length)
        cuts.append(len(text) if end < 0 or end + 1 + length // 2 > len(text) else end + 1)
    return [text[start:end] for start, end in pairwise(cuts)]
