"""What a source says: entries, the problems it had with others, pages of both, and the days that were asked for.

Everything that comes from outside passes `plain`: text without markup of ours, control characters or lone surrogates,
bounded in length, so that any database stores it and a page need only escape it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

TITLE_LIMIT = 500  # characters
ABSTRACT_LIMIT = 20_000
NAME_LIMIT = 200
LIST_LIMIT = 3_000  # the largest collaborations sign with about as many names
LINK_LIMIT = 2_000

_ARXIV = re.compile(
    r"(?:(?P<id>\d\d(?:0[1-9]|1[0-2])\.\d{4,5})|(?P<archive>[a-z-]+)(?:\.[A-Za-z-]+)?/(?P<number>\d{7}))"
    r"(?:v(?P<version>[1-9]\d{0,3}))?"
)
_ARXIV_URL = re.compile(rf"arxiv\.org/(?:abs|pdf|html)/{_ARXIV.pattern}")
_UNWANTED = {"Cc", "Cf", "Co", "Cs", "Cn"}


class Malformed(ValueError):
    """An entry that cannot be listed. The message is the reason, in words."""


class Problem(NamedTuple):
    """An entry that was skipped: its id (or its place in the page) and why."""

    entry: str
    reason: str


class Window(NamedTuple):
    """Days from first to last, both included."""

    first: date
    last: date

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"

    @classmethod
    def parse(cls, text: str) -> Window:
        first, _, last = text.partition("..")
        return cls(date.fromisoformat(first), date.fromisoformat(last))

    def days(self) -> Iterator[date]:
        return (self.first + timedelta(n) for n in range((self.last - self.first).days + 1))


@dataclass(frozen=True)
class Entry:
    """A paper as one source describes it.

    version: of the arXiv text described, 0 if the source does not say. published: an ISO date. updated: an ISO date or
    moment. day and upvotes: of a community list, the page of that day and how many liked the paper.
    """

    key: str
    title: str
    published: str
    link: str
    arxiv: str = ""
    version: int = 0
    abstract: str = ""
    authors: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    updated: str = ""
    day: str = ""
    upvotes: int | None = None


@dataclass(frozen=True)
class Page:
    """One answer of a source. cursor: what to pass to `pages` to go on after it; empty if it was the last."""

    entries: list[Entry]
    problems: list[Problem] = field(default_factory=list)
    cursor: str = ""


class Source(Protocol):
    """Where papers come from. `pages` goes on from a cursor that an earlier page carried."""

    name: str

    def pages(self, window: Window, cursor: str) -> Iterator[Page]: ...


def entry(
    *,
    title: object,
    published: object,
    arxiv: tuple[str, int] | None = None,
    link: object = "",
    abstract: object = "",
    authors: Iterable[object] = (),
    categories: Iterable[object] = (),
    topics: Iterable[object] = (),
    updated: object = "",
    day: str = "",
    upvotes: int | None = None,
) -> Entry:
    """An entry from what a source said, cleaned. Raises Malformed with the reason."""
    name = plain(title, TITLE_LIMIT)
    if not name:
        raise Malformed("it has no title")
    identity, version = arxiv or ("", 0)
    address = f"https://arxiv.org/abs/{identity}" if identity else web_address(link)
    return Entry(
        key=f"arxiv:{identity}" if identity else url_key(address),
        title=name,
        published=day_of(published),
        link=address,
        arxiv=identity,
        version=version,
        abstract=plain(abstract, ABSTRACT_LIMIT),
        authors=names(authors),
        categories=names(categories),
        topics=names(topics),
        updated=moment_of(updated) if updated else "",
        day=day,
        upvotes=upvotes,
    )


def plain(value: object, limit: int) -> str:
    """Text on one line: white space runs become one space, what no reader sees is dropped, the rest is cut at limit."""
    if not isinstance(value, str):
        return ""
    spaced = " ".join(value[: 8 * limit].split())
    seen = "".join(c for c in spaced if c == " " or unicodedata.category(c) not in _UNWANTED)
    kept = " ".join(seen.split())
    return kept if len(kept) <= limit else kept[: limit - 1].rstrip() + "…"


def names(values: Iterable[object]) -> tuple[str, ...]:
    """Cleaned names in their order, without empty ones and repetitions."""
    found = dict.fromkeys(plain(value, NAME_LIMIT) for value in values)
    found.pop("", None)
    return tuple(found)[:LIST_LIMIT]


def arxiv_id(text: object) -> tuple[str, int] | None:
    """An arXiv id and its version (0 if not given), old style or new, from the id alone or an address of arxiv.org.

    Old ids come without their subject class, as arXiv itself has them: math.GT/0309136 is math/0309136.
    """
    if not isinstance(text, str):
        return None
    bare = text.strip().removeprefix("arXiv:").removeprefix("oai:arXiv.org:")
    found = _ARXIV.fullmatch(bare) or _ARXIV_URL.search(text)
    if found is None:
        return None
    return found["id"] or f"{found['archive']}/{found['number']}", int(found["version"] or 0)


def web_address(link: object) -> str:
    """The address if it is one that a page may link to. Raises Malformed."""
    text = link.strip() if isinstance(link, str) else ""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good or len(text) > LINK_LIMIT or plain(text, LINK_LIMIT) != text or " " in text:
        raise Malformed("it has neither an arXiv id nor a web address")
    return text


def url_key(address: str) -> str:
    return f"url:{hashlib.sha256(address.encode()).hexdigest()[:24]}"


def _moment(value: object) -> datetime:
    if not isinstance(value, str) or not value.strip():
        raise Malformed("it has no date")
    try:
        found = datetime.fromisoformat(value.strip())
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        found = found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed(f'"{plain(value, 40)}" is no date') from None
    if not 1900 <= found.year <= 2200:
        raise Malformed(f'"{plain(value, 40)}" lies outside the years 1900 to 2200')
    return found


def day_of(value: object) -> str:
    """The UTC day of an ISO 8601 moment. Raises Malformed."""
    return _moment(value).date().isoformat()


def moment_of(value: object) -> str:
    return _moment(value).isoformat(timespec="seconds")
