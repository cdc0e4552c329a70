"""A community list's daily papers: JSON pages of what people put on the list of a day, and how many liked it.

The form is that of huggingface.co/api/daily_papers (`date`, `p` and `limit` in the query; a list of objects whose
`paper` holds id, title, summary, authors, publishedAt, upvotes and ai_keywords). The day that counts is the list's, not
the paper's, which was published days or weeks before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from claimbench.feed.entry import Entry, Malformed, Page, Problem, Window, arxiv_id, entry, plain
from claimbench.feed.fetch import SourceError
from claimbench.feed.settings import SourceSettings
from claimbench.feed.sources import Get

LONGEST = 100  # pages of a day: a list that never ends is no list


@dataclass(frozen=True)
class Answer:
    """One page. count: items on it, malformed ones too."""

    count: int
    entries: list[Entry]
    problems: list[Problem]


class Daily:
    """The lists of the window's days."""

    def __init__(self, settings: SourceSettings, get: Get) -> None:
        self.name = settings.name
        self._settings = settings
        self._get = get

    def pages(self, window: Window, cursor: str) -> Iterator[Page]:
        """cursor: `DAY PAGE`, the next page of that day."""
        at, _, place = cursor.partition(" ")
        resumed = date.fromisoformat(at) if at else window.first
        for day in Window(resumed, window.last).days():
            number = int(place) if place and day == resumed else 0
            before: list[str] = []
            while True:
                answer = self._ask(day, number)
                keys = [item.key for item in answer.entries]
                repeats = bool(keys) and keys == before  # a list that knows no pages sends the same one again
                more = answer.count >= self._settings.size and not repeats and number + 1 < LONGEST
                number, before = number + 1, keys
                last = not more and day == window.last
                after = f"{day} {number}" if more else f"{day + timedelta(1)} 0"
                entries, problems = ([], []) if repeats else (answer.entries, answer.problems)
                yield Page(entries, problems, "" if last else after)
                if not more:
                    break

    def _ask(self, day: date, number: int) -> Answer:
        asked = urlencode({"date": day.isoformat(), "p": number, "limit": self._settings.size})
        return parse(self._get(f"{self._settings.address}?{asked}", _unready), day.isoformat())


def _unready(body: bytes) -> str:
    try:
        _decode(body)
    except SourceError as error:
        return str(error)
    return ""


def _decode(body: bytes) -> list[Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"no JSON: {type(error).__name__}") from None
    if not isinstance(found, list):
        raise SourceError("JSON that is no list of papers")
    return found


def parse(body: bytes, day: str) -> Answer:
    """Read the list of a day. An item that is malformed is named and left out. Raises SourceError if it is no list."""
    items = _decode(body)
    entries, problems = [], []
    for place, item in enumerate(items):
        try:
            entries.append(_entry(item, day))
        except Malformed as error:
            paper = item.get("paper") if isinstance(item, dict) else None
            name = plain(paper.get("id"), 200) if isinstance(paper, dict) else ""
            problems.append(Problem(name or f"item {place + 1} of {day}", str(error)))
    return Answer(len(items), entries, problems)


def _entry(item: object, day: str) -> Entry:
    if not isinstance(item, dict):
        raise Malformed("it is no object")
    paper = item.get("paper", item)
    if not isinstance(paper, dict):
        raise Malformed("its paper is no object")
    upvotes = paper.get("upvotes", 0)
    if isinstance(upvotes, bool) or not isinstance(upvotes, int) or not 0 <= upvotes < 1_000_000_000:
        raise Malformed("its upvotes are no count")
    authors = paper.get("authors")
    topics = paper.get("ai_keywords")
    return entry(
        arxiv=arxiv_id(paper.get("id")),
        link=paper.get("link") or item.get("link"),
        title=paper.get("title") or item.get("title"),
        abstract=paper.get("summary"),
        authors=[a.get("name") for a in authors if isinstance(a, dict) and not a.get("hidden")]
        if isinstance(authors, list)
        else [],
        topics=[t.lower() for t in topics if isinstance(t, str)] if isinstance(topics, list) else [],
        published=paper.get("publishedAt") or item.get("publishedAt"),
        day=day,
        upvotes=upvotes,
    )
