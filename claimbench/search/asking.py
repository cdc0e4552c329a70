"""A query on its way through a store of words, whichever store it is: what is asked in turn, and what counts as found.

Documents that hold every word come first; then those that hold every word when it is spelt or cut otherwise; then those
that hold some. Stop words decide nothing.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Generic, TypeVar

from claimbench.search.query import Query

STRONG = (
    0.5  # share of the best score from which on a document lacking some words counts when rankings are fused
)
SCORED = 5_000  # documents that are scored though they lack some words
COUNTED = 10 * SCORED  # documents that hold a term are counted so far
PARTS = 20  # words that hold a word as a part
TYPED = 3  # letters from which on a last word that stands somewhere counts as typed to its end

Phrase = TypeVar("Phrase")


@dataclass
class Found:
    """Ids, best first: the first `complete` hold every word, the first `strong` score half the best or more."""

    ids: list[int] = field(default_factory=list)
    complete: int = 0
    strong: int = 0

    def extend(self, more: Sequence[int], limit: int) -> None:
        """Append what is not there yet."""
        self.ids = list(dict.fromkeys([*self.ids, *more]))[:limit]


class Asked(ABC, Generic[Phrase]):
    """A query asked of one state of a store. `Phrase`: words one after the other, in the store's own form."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self._terms = query.telling()

    # --- what the store answers ---

    @abstractmethod
    def phrases(self, found: Iterable[Sequence[str]]) -> list[Phrase]:
        """Words that stand one after the other, in the store's form."""

    @abstractmethod
    def beginning(self, word: str) -> Phrase:
        """Any word that begins so."""

    @abstractmethod
    def holding(self, phrases: Sequence[Phrase], most: int) -> int:
        """In how many documents one of these stands; counted up to `most`."""

    @abstractmethod
    def matching(self, terms: Sequence[Sequence[Phrase]], every: bool, limit: int) -> tuple[list[int], int]:
        """Ids by bm25 of the documents that pass the filters and hold one phrase of every term, or of any term.

        And how many of them reach STRONG of the best one's score.
        """

    @abstractmethod
    def allowed(self) -> list[int]:
        """Ids that pass the filters."""

    @abstractmethod
    def latest(self, limit: int) -> list[int]:
        """Ids that pass the filters, latest year first, then by title."""

    @abstractmethod
    def known(self, word: str) -> bool:
        """Whether it stands in a title, a name or a topic."""

    @abstractmethod
    def containing(self, part: str, limit: int) -> list[str]:
        """Such words that hold this part; none where it is too short."""

    @abstractmethod
    def alike(self, word: str) -> list[str]:
        """Such words that this one may be a misspelling of, likeliest first."""

    # --- what is asked ---

    @cached_property
    def _exact(self) -> list[list[Phrase]]:
        """Each term as typed. A last word that stands somewhere is one: longer words are found by their parts."""
        found = []
        for term, phrase in zip(self._terms, self.phrases(term.tokens for term in self._terms), strict=True):
            word = term.tokens[0]
            typed = not term.open_ended or (len(word) >= TYPED and self.holding([phrase], 1))
            found.append([phrase] if typed else [phrase, self.beginning(word)])
        return found

    def corrections(self) -> dict[str, list[str]]:
        """Words of the query that occur nowhere, and the known words that each may stand for, likeliest first."""
        found = {}
        for term, phrases in zip(self._terms, self._exact, strict=True):
            (word, *more) = term.tokens
            if not more and not self.holding(phrases, 1) and not self.containing(word, 1):
                others = self.alike(word)
                if others:
                    found[word] = others
        return found

    def search(self, limit: int, corrections: Mapping[str, Sequence[str]]) -> Found:
        """At most `limit` documents. A query of filters alone lists what passes them, latest first."""
        if not self.query.terms:
            ids = self.latest(limit) if self.query.has_filters else []
            return Found(ids, len(ids), len(ids))
        found = Found(self.matching(self._exact, True, limit)[0])
        if len(found.ids) < limit:
            wide = self._widened(corrections)
            if wide != self._exact:
                found.extend(self.matching(wide, True, limit)[0], limit)
        found.complete = found.strong = len(found.ids)
        if len(found.ids) < limit and len(self._terms) > 1:
            rarer = self._rarer(wide)
            ids, strong = self.matching(rarer, False, limit) if rarer else ([], 0)
            found.extend(ids[:strong], limit)
            found.strong = len(found.ids)
            found.extend(ids, limit)
        return found

    def _widened(self, corrections: Mapping[str, Sequence[str]]) -> list[list[Phrase]]:
        """Each term or what may be meant: words that hold it, that it makes with a neighbour, or spelt nearly so."""
        wide = []
        for term, phrases, others in zip(self._terms, self._exact, self._glued(), strict=True):
            word = term.tokens[0]
            if not term.phrase:
                others += [*self.containing(word, PARTS), *corrections.get(word, ())]
            wide.append(list(dict.fromkeys([*phrases, *self.phrases((other,) for other in others)])))
        return wide

    def _glued(self) -> list[list[str]]:
        """For each term the known words that it makes with a neighbour: hyper attention, HyperAttention."""
        glued: list[list[str]] = [[] for _ in self._terms]
        for i, (first, second) in enumerate(pairwise(self._terms)):
            word = first.tokens[0] + second.tokens[0]
            if not (first.phrase or second.phrase) and self.known(word):
                glued[i].append(word)
                glued[i + 1].append(word)
        return glued

    def _rarer(self, terms: Sequence[list[Phrase]]) -> list[list[Phrase]]:
        """The rarest of the terms that occur: one, and as many as choose no more than SCORED documents together."""
        counts = [self.holding(term, SCORED + 1) for term in terms]
        if not any(0 < count <= SCORED for count in counts):  # all are common: which is the least so
            counts = [self.holding(term, COUNTED) for term in terms]
        counted = sorted((count, place) for place, count in enumerate(counts))
        occurring = [(count, terms[place]) for count, place in counted if count]
        sums = accumulate(count for count, _ in occurring)
        return [
            term
            for i, ((_, term), chosen) in enumerate(zip(occurring, sums, strict=True))
            if i == 0 or chosen <= SCORED
        ]


def mended(query: Query, corrections: Mapping[str, Sequence[str]]) -> str:
    """The query's text with each misspelt word replaced by the likeliest: the encoder knows no misspellings."""
    return re.sub(r"\w+", lambda word: corrections.get(word[0].lower(), (word[0],))[0], query.text)
