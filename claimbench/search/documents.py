"""What is searched: one flat record a paper, made from the shelf or from listings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claimbench.shelf import Entry


@dataclass(frozen=True)
class Document:
    """A paper as search sees it. `key` is unique in an index.

    verdicts: states such as `holds`, for the filter; None leaves those that the index has.
    """

    key: str
    title: str
    text: str = ""
    authors: tuple[str, ...] = ()
    group: str = ""
    year: int | None = None
    verdicts: tuple[str, ...] | None = None
    topics: tuple[str, ...] = ()

    @property
    def passage(self) -> str:
        """What the encoder reads: meaning is in title and text; names and years would only blur it."""
        return f"{self.title}. {self.text}".strip()

    def digest(self) -> str:
        """Of all but the verdicts: a document whose digest an index knows is not indexed again."""
        return _digest(json.dumps(astuple(replace(self, verdicts=None))))

    def passage_digest(self) -> str:
        """Of what the encoder reads: a name that is mended costs no new vector."""
        return _digest(self.passage)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def from_shelf(
    entries: Iterable[Entry], verdicts: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Document]:
    """Papers of a shelf: title, summary, claims' statements and topics. `verdicts`: paper id to its claims' states."""
    for entry in entries:
        statements = [f"{claim['id'].replace('-', ' ')}: {claim['statement']}" for claim in entry.claims]
        yield Document(
            key=entry.id,
            title=entry.title,
            text="\n".join([entry.summary.strip(), *statements]),
            authors=tuple(entry.authors),
            group=entry.group,
            year=entry.year,
            verdicts=None if verdicts is None else tuple(sorted(set(verdicts.get(entry.id, ())))),
            topics=tuple(entry.topics),
        )


def from_listings(rows: Iterable[Any]) -> Iterator[Document]:
    """Papers of the feed: rows with key, title, abstract, authors, topics (lists, or JSON of lists), published.

    Rows are mappings or objects with these attributes. Hidden listings are left out.
    """
    for row in rows:
        value = _reader(row)
        if value("hidden"):
            continue
        published = str(value("published") or "")
        yield Document(
            key=str(value("key")),
            title=str(value("title") or ""),
            text=str(value("abstract") or ""),
            authors=_strings(value("authors")),
            group=str(value("group_name") or ""),
            year=int(published[:4]) if published[:4].isdigit() else None,
            topics=_strings(value("topics")),
        )


def _reader(row: Any) -> Any:
    return row.get if isinstance(row, Mapping) else lambda name: getattr(row, name, None)


def _strings(value: Any) -> tuple[str, ...]:
    found = json.loads(value) if isinstance(value, str) and value.strip() else value or ()
    return tuple(
        str(item["name"] if isinstance(item, Mapping) and "name" in item else item) for item in found
    )
