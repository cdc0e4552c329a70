"""arXiv's query API (info.arxiv.org/help/api/user-manual): Atom pages of the papers that were submitted in a window.

The window is asked for day by day, oldest first: a day stays far below the 30,000 results that the API gives to one
query, and a day that is past does not change, so that a place in it (`start`) stays valid for a later resumption. A
paper shows up only once it is announced, days after its submission: pulls overlap (`overlap_days`).

Papers that readers name are asked for by id. There the total is of what was asked for, not of what there is, and a
place beyond the first page begins at the first again, so that each batch is one page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import urlencode
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from claimbench.feed.entry import Entry, Malformed, Page, Problem, Window, arxiv_id, entry, plain
from claimbench.feed.fetch import Rejected, SourceError
from claimbench.feed.settings import SourceSettings
from claimbench.feed.sources import Get

ATOM = "{http://www.w3.org/2005/Atom}"
ARXIV = "{http://arxiv.org/schemas/atom}"
OPENSEARCH = "{http://a9.com/-/spec/opensearch/1.1/}"
ERRORS = "arxiv.org/api/errors"
UNREADABLE = "incorrect id format for "  # what the API says of an id, naming the first that it cannot read
AT_ONCE = 100  # ids of one request: its address stays below 2,000 characters


@dataclass(frozen=True)
class Answer:
    """One page. total: results of the whole query. count: entries on this page, malformed ones too."""

    total: int
    count: int
    entries: list[Entry]
    problems: list[Problem]
    error: str = ""  # the API says so with HTTP 200 and a single entry


class Arxiv:
    """Papers of any of the categories, by the day of their first submission (UTC)."""

    def __init__(self, settings: SourceSettings, get: Get) -> None:
        self.name = settings.name
        self._settings = settings
        self._get = get

    def pages(self, window: Window, cursor: str) -> Iterator[Page]:
        """cursor: `DAY START`."""
        at, _, place = cursor.partition(" ")
        resumed = date.fromisoformat(at) if at else window.first
        for day in Window(resumed, window.last).days():
            start = int(place) if place and day == resumed else 0
            while True:
                answer = self._ask(day, start)
                start += answer.count
                more = answer.count > 0 and start < answer.total
                last = not more and day == window.last
                after = f"{day} {start}" if more else f"{day + timedelta(1)} 0"
                yield Page(answer.entries, answer.problems, "" if last else after)
                if not more:
                    break

    def papers(self, ids: Sequence[str]) -> Iterator[Page]:
        """Papers by their ids (as `arxiv_id` writes them), in their latest version. What is not had is a problem."""
        size = min(self._settings.size, AT_ONCE)
        for start in range(0, len(ids), size):
            batch = ids[start : start + size]
            found = self._look_up(batch)
            # now and then the API leaves out what it has: only what is missing twice is missing
            again = self._look_up(_missing(batch, found))
            both = Page([*found.entries, *again.entries], [*found.problems, *again.problems])
            unknown = [Problem(name, "arXiv has no such paper") for name in _missing(batch, both)]
            yield Page(both.entries, [*both.problems, *unknown])

    def _look_up(self, ids: Sequence[str]) -> Page:
        """One request, and a further one for each id that arXiv cannot read."""
        wanted, unreadable = list(ids), list[Problem]()
        while wanted:
            address = by_id(self._settings.address, wanted)
            try:
                answer = parse(self._get(address, _unready))
            except Rejected as rejected:
                answer = parse(rejected.body)
                if not answer.error:
                    raise
            if not answer.error:
                told = [(arxiv_id(problem.entry), problem.reason) for problem in answer.problems]
                malformed = [Problem(name[0], reason) for name, reason in told if name and name[0] in wanted]
                return Page([e for e in answer.entries if e.arxiv in wanted], [*unreadable, *malformed])
            name = answer.error.removeprefix(UNREADABLE)
            if name not in wanted:
                raise SourceError(f"arXiv answers: {answer.error}")
            wanted.remove(name)
            unreadable.append(Problem(name, "arXiv cannot read this id"))
        return Page([], unreadable)

    def _ask(self, day: date, start: int) -> Answer:
        url = query(self._settings.address, self._settings.categories, day, start, self._settings.size)
        answer = parse(self._get(url, lambda body: _unready(body, start)))
        if answer.error:
            raise SourceError(f"arXiv answers: {answer.error}")
        return answer


def query(address: str, categories: list[str], day: date, start: int, size: int) -> str:
    """The address of one page of the papers that were first submitted on `day`."""
    wanted = " OR ".join(f"cat:{category}" for category in categories)
    span = f"submittedDate:[{day:%Y%m%d}0000 TO {day:%Y%m%d}2359]"
    return f"{address}?" + urlencode(
        {
            "search_query": f"({wanted}) AND {span}",
            "start": start,
            "max_results": size,
            "sortBy": "submittedDate",
            "sortOrder": "ascending",
        }
    )


def by_id(address: str, ids: Sequence[str]) -> str:
    """The address of the page of these papers."""
    return f"{address}?" + urlencode({"id_list": ",".join(ids), "max_results": len(ids)}, safe=",/")


def _missing(ids: Sequence[str], page: Page) -> list[str]:
    """Of which the page tells nothing."""
    told = {entry.arxiv for entry in page.entries} | {problem.entry for problem in page.problems}
    return [name for name in ids if name not in told]


def _unready(body: bytes, start: int | None = None) -> str:
    """Why a page must be asked for again: the API now and then sends an empty or a broken one with HTTP 200.

    start: the place of the page in its query; None where an empty page is an answer.
    """
    try:
        answer = parse(body)
    except SourceError as error:
        return str(error)
    if not answer.count and start is not None and start < answer.total:
        return f"an empty page at {start} of {answer.total}"
    return ""


def parse(body: bytes) -> Answer:
    """Read a page. An entry that is malformed is named and left out. Raises SourceError if the page is no Atom feed."""
    try:
        feed = fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise SourceError("a document that declares entities or a DTD") from None
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that does not exist
        raise SourceError(f"no well-formed XML: {error}") from None
    if feed.tag != f"{ATOM}feed":
        raise SourceError(f"a document that is no Atom feed but {plain(feed.tag, 60)}")
    found = feed.findall(f"{ATOM}entry")
    if len(found) == 1 and ERRORS in (found[0].findtext(f"{ATOM}id") or ""):
        return Answer(0, 1, [], [], plain(found[0].findtext(f"{ATOM}summary"), 300) or "an error")
    entries, problems = [], []
    for place, element in enumerate(found):
        try:
            entries.append(_entry(element))
        except Malformed as error:
            name = plain(element.findtext(f"{ATOM}id"), 200) or f"entry {place + 1} of a page"
            problems.append(Problem(name, str(error)))
    return Answer(_total(feed, len(found)), len(found), entries, problems)


def _total(feed: Element, count: int) -> int:
    text = (feed.findtext(f"{OPENSEARCH}totalResults") or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else count


def _entry(element: Element) -> Entry:
    identity = arxiv_id(element.findtext(f"{ATOM}id"))
    if identity is None:
        raise Malformed("its id is no arXiv id")
    primary = element.find(f"{ARXIV}primary_category")
    terms = [e.get("term") for e in ([primary] if primary is not None else [])]
    terms += [
        e.get("term")
        for e in element.findall(f"{ATOM}category")
        if e.get("scheme") == "http://arxiv.org/schemas/atom"
    ]
    return entry(
        arxiv=identity,
        title=element.findtext(f"{ATOM}title"),
        abstract=element.findtext(f"{ATOM}summary"),
        authors=[e.findtext(f"{ATOM}name") for e in element.findall(f"{ATOM}author")],
        categories=terms,
        published=element.findtext(f"{ATOM}published"),
        updated=element.findtext(f"{ATOM}updated"),
    )
