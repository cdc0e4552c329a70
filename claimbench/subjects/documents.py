"""Documents and their split into train, validation and test.

Documents go to the splits by the order of their content's hash: nothing about a document's name, place or neighbours
decides, equal documents count once, and no document lies in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from claimbench.errors import UserError, nearest
from claimbench.subjects.splits import SHARES, boundaries

__all__ = ["PASSAGE", "SHARES", "Document", "Text", "passages"]

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
    """Documents in three disjoint splits; `train`, `validation` and `test` are their texts, joined by blank lines.

    Equal documents count once, under the first of their domains by name. splits: which documents lie where; default:
    by the order of the hashes, each split with its share of the characters.
    """

    def __init__(
        self, documents: Iterable[Document], splits: Mapping[str, tuple[Document, ...]] | None = None
    ) -> None:
        by_domain = sorted(documents, key=lambda document: document.domain, reverse=True)
        distinct = {document.sha256: document for document in by_domain if document.text.strip()}
        self.documents: tuple[Document, ...] = tuple(distinct[key] for key in sorted(distinct))
        self._chosen = splits

    @cached_property
    def splits(self) -> dict[str, tuple[Document, ...]]:
        """Documents in the order of their hashes: train, validation, test; none is empty if there are three."""
        if self._chosen is not None:
            return dict(self._chosen)
        trained, validated = boundaries([len(document.text) for document in self.documents])
        parts = (self.documents[:trained], self.documents[trained:validated], self.documents[validated:])
        return dict(zip(SHARES, parts, strict=True))

    def of(self, domain: str) -> Text:
        """One domain's documents, each in the split that it has in the whole text: what trains on the whole and
        tests on the domain never meets a document twice. Raises UserError where a split would be empty.
        """
        if domain not in self.domains:
            raise UserError(f'no domain "{domain}" in this text{nearest(domain, self.domains)}')
        splits = {
            name: tuple(document for document in part if document.domain == domain)
            for name, part in self.splits.items()
        }
        for name, part in splits.items():
            if not part:
                count = sum(map(len, splits.values()))
                raise UserError(
                    f'domain "{domain}": none of its {count} documents falls into {name}; give it more documents'
                )
        return Text((document for part in splits.values() for document in part), splits)

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
