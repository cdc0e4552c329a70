"""Any RSS or Atom feed, by address or file: a lab's blog, a journal, arXiv's own feeds.

A feed holds its latest entries and no more, so that it is one page and the window does not apply. feedparser reads what
is not quite well-formed, too, and fetches nothing; it expands the entities that a document declares, so that such a
document is refused before.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from claimbench.feed.entry import Entry, Malformed, Page, Problem, Window, arxiv_id, entry, plain
from claimbench.feed.fetch import SourceError
from claimbench.feed.settings import SourceSettings
from claimbench.feed.sources import Get

_ANNOUNCED = re.compile(
    r"^arXiv:\S+ Announce Type: \S+ Abstract: "
)  # how arXiv's own feeds open a description
_ENCODING = re.compile(rb"<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([A-Za-z0-9._:-]{1,40})[\"']")
LONGEST = 200_000  # characters of one text that are read


class Rss:
    """One feed."""

    def __init__(self, settings: SourceSettings, get: Get, folder: Path, limit: int) -> None:
        self.name = settings.name
        self._settings = settings
        self._get = get
        self._folder = folder
        self._limit = limit

    def pages(self, window: Window, cursor: str) -> Iterator[Page]:
        """One page, whatever window and cursor."""
        entries, problems = parse(self._read())
        yield Page(entries, problems)

    def _read(self) -> bytes:
        if self._settings.url:
            return self._get(self._settings.url)
        path = self._folder / Path(self._settings.path).expanduser()
        try:
            with path.open("rb") as file:
                body = file.read(self._limit + 1)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
        if len(body) > self._limit:
            raise SourceError(f"{path}: more than max_bytes = {self._limit}")
        return body


def parse(body: bytes) -> tuple[list[Entry], list[Problem]]:
    """Read a feed. An entry that is malformed is named and left out. Raises SourceError if it is no feed."""
    if complaint := _unsafe(body):
        raise SourceError(complaint)
    import feedparser  # type: ignore[import-untyped]  # it has no types

    feed = feedparser.parse(io.BytesIO(body), sanitize_html=False, resolve_relative_uris=False)
    if not feed.get("version"):
        raise SourceError("a document that is neither RSS nor Atom")
    about = feed.get("feed", {})
    dated = _parsed(about, "updated") or _parsed(about, "published")
    entries, problems = [], []
    for place, item in enumerate(feed.entries):
        try:
            entries.append(_entry(item, dated))
        except Malformed as error:
            name = plain(item.get("id") or item.get("link"), 200) or f"entry {place + 1}"
            problems.append(Problem(name, str(error)))
    return entries, problems


def _entry(item: Any, dated: Any) -> Entry:
    guid, link = item.get("id"), item.get("link")
    identity = arxiv_id(guid) or arxiv_id(link)
    updated = _parsed(item, "updated")
    published = _parsed(item, "published") or updated or dated
    texts = (item.get("summary_detail"), *item.get("content", []))
    text = next((words for words in map(_words, texts) if words), "")
    return entry(
        arxiv=identity,
        link=link or guid,
        title=_words(item.get("title_detail")),
        abstract=_ANNOUNCED.sub("", " ".join(text.split())),
        authors=_authors(item),
        categories=[tag.get("term") for tag in item.get("tags", [])],
        published=_moment(published),
        updated=_moment(updated or published),
    )


def _unsafe(body: bytes) -> str:
    """Why a document must not reach the parser: it declares entities, or is encoded so that one cannot see it."""
    start = body.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if not start.startswith(b"<"):
        return "a document that is neither RSS nor Atom"
    declared = _ENCODING.match(start)
    encoding = declared[1].decode("ascii") if declared else "utf-8"
    try:
        visible = "<!ENTITY".encode(encoding).replace(b"\0", b"").endswith(b"<!ENTITY")
    except (LookupError, ValueError):
        visible = False
    if not visible:
        return f"a document in the encoding {encoding}, which is not read"
    return "a document that declares entities" if b"<!ENTITY" in start.upper() else ""


def _parsed(found: Any, name: str) -> Any:
    """A date as feedparser read it; `dict.get`, since its own stands `published` in for `updated` with a warning."""
    return dict.get(found, f"{name}_parsed")


def _authors(item: Any) -> list[object]:
    """Names, also where a feed puts several into one element, as arXiv's does."""
    found = [author.get("name") for author in item.get("authors", [])]
    if len(found) == 1 and isinstance(found[0], str):
        return list(found[0].split(", "))
    return found


def _moment(parsed: Any) -> str:
    """feedparser's time tuples are UTC."""
    if parsed is None:
        raise Malformed("it has no date")
    try:
        return datetime(*parsed[:6]).replace(tzinfo=UTC).isoformat()
    except (ValueError, TypeError):
        raise Malformed("its date does not exist") from None


def _words(detail: Any) -> str:
    """What a piece of text or HTML says. Raises Malformed."""
    if not detail or not isinstance(detail.get("value"), str):
        return ""
    text = str(detail["value"])[:LONGEST]
    if detail.get("type") == "text/plain":
        return text
    reader = _Words()
    try:
        reader.feed(text)
        reader.close()
    except AssertionError:  # the standard parser's answer to a broken `<![...` section
        raise Malformed("its text holds broken markup") from None
    return "".join(reader.parts)


class _Words(HTMLParser):
    SILENT = ("script", "style")
    BREAKS = ("p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in self.SILENT
        if tag in self.BREAKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(0, self._silent - (tag in self.SILENT))

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)
