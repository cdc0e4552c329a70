"""What sources send becomes entries; what is malformed is named and skipped; nothing that is sent breaks a parser."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from feeds import ARXIV_ERROR, ATOM, RSS, arxiv_entry, arxiv_page, daily_item, daily_page
from hypothesis import given, settings
from hypothesis import strategies as st

from claimbench.feed.entry import Entry, Problem, Window, arxiv_id, plain
from claimbench.feed.fetch import SourceError
from claimbench.feed.settings import SourceSettings
from claimbench.feed.sources import arxiv, daily, rss

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2402.18668", ("2402.18668", 0)),
        ("http://arxiv.org/abs/2402.18668v12", ("2402.18668", 12)),
        ("http://arxiv.org/abs/hep-ex/0307015v1", ("hep-ex/0307015", 1)),
        ("math.GT/0309136", ("math/0309136", 0)),
        ("cond-mat.mes-hall/0211022v2", ("cond-mat/0211022", 2)),
        ("oai:arXiv.org:2402.18668v1", ("2402.18668", 1)),
        ("https://arxiv.org/pdf/2402.18668v2.pdf", ("2402.18668", 2)),
        ("2402.1866", ("2402.1866", 0)),
        ("2402.186681", None),
        ("2413.18668", None),
        ("https://lab.example/2402.18668", None),
        ("http://arxiv.org/api/errors#2402.18668", None),
        (None, None),
    ],
)
def test_arxiv_ids(text: str | None, wanted: tuple[str, int] | None) -> None:
    assert arxiv_id(text) == wanted


@given(st.text(), st.integers(2, 40))
def test_plain_text_is_storable_and_bounded(text: str, limit: int) -> None:
    found = plain(text, limit)
    assert len(found) <= limit
    assert found.encode("utf-8").decode() == found
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Cf") for c in found)
    assert plain(found, limit) == found


def test_arxiv_entries() -> None:
    answer = arxiv.parse(arxiv_page([arxiv_entry("2501.00001v2")], total=9))
    assert (answer.total, answer.count, answer.problems, answer.error) == (9, 1, [], "")
    assert answer.entries == [
        Entry(
            key="arxiv:2501.00001",
            title="Title of 2501.00001v2 on two lines",
            published="2025-01-01",
            link="https://arxiv.org/abs/2501.00001",
            arxiv="2501.00001",
            version=2,
            abstract="We measure things.",
            authors=("A. Author", "B. Author"),
            categories=("cs.CL", "cs.LG"),
            updated="2025-01-02T10:00:00+00:00",
        )
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"title": ""}, "it has no title"),
        ({"published": ""}, "it has no date"),
        ({"published": "yesterday"}, '"yesterday" is no date'),
        ({"published": "0001-01-01T00:00:00Z"}, '"0001-01-01T00:00:00Z" lies outside the years 1900 to 2200'),
        ({"id": "http://arxiv.org/abs/x"}, "its id is no arXiv id"),
        ({"id": ""}, "its id is no arXiv id"),
    ],
)
def test_a_malformed_arxiv_entry_is_named_and_skipped(changes: dict[str, str], reason: str) -> None:
    page = arxiv_page([arxiv_entry("2501.00001v1", **changes), arxiv_entry("2501.00002v1")])
    answer = arxiv.parse(page)
    name = changes.get("id", "http://arxiv.org/abs/2501.00001v1") or "entry 1 of a page"
    assert answer.problems == [Problem(name, reason)]
    assert [found.arxiv for found in answer.entries] == ["2501.00002"]


def test_arxiv_errors_come_as_an_entry() -> None:
    assert arxiv.parse(ARXIV_ERROR).error == "start must be an integer"


@pytest.mark.parametrize("start", [BOMB, FILE])
def test_arxiv_documents_that_declare_entities_are_refused(start: str) -> None:
    body = start.encode() + arxiv_page([arxiv_entry(title="PLACE")]).split(b"?>", 1)[1].replace(
        b"PLACE", b"&a;"
    )
    with pytest.raises(SourceError, match="declares entities or a DTD"):
        arxiv.parse(body)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_arxiv_page_never_breaks_the_parser(data: st.DataObject) -> None:
    page = arxiv_page([arxiv_entry("2501.00001v1"), arxiv_entry("2501.00002v1")])
    at = data.draw(st.integers(0, len(page)))
    length = data.draw(st.integers(0, 40))
    body = page[:at] + data.draw(st.binary(max_size=12)) + page[at + length :]
    try:
        answer = arxiv.parse(body)
    except SourceError:
        return
    assert answer.error or len(answer.entries) + len(answer.problems) == answer.count


def test_arxiv_queries_name_categories_and_one_day() -> None:
    asked = parse_qs(
        urlsplit(arxiv.query("https://a.example/q", ["cs.LG", "cs.CL"], date(2025, 1, 31), 40, 20)).query
    )
    assert asked == {
        "search_query": ["(cat:cs.LG OR cat:cs.CL) AND submittedDate:[202501310000 TO 202501312359]"],
        "start": ["40"],
        "max_results": ["20"],
        "sortBy": ["submittedDate"],
        "sortOrder": ["ascending"],
    }


def _arxiv_source(papers: dict[str, list[str]], size: int) -> tuple[arxiv.Arxiv, list[tuple[str, int]]]:
    asked: list[tuple[str, int]] = []

    def get(url: str, accept: Callable[[bytes], str]) -> bytes:
        query = parse_qs(urlsplit(url).query)
        day, start = query["search_query"][0].split("submittedDate:[")[1][:8], int(query["start"][0])
        asked.append((day, start))
        body = arxiv_page(papers.get(day, [])[start : start + size], len(papers.get(day, [])))
        assert accept(body) == ""
        return body

    made = SourceSettings(name="a", kind="arxiv", categories=["cs.LG"], page_size=size)
    return arxiv.Arxiv(made, get), asked


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_arxiv_goes_on_from_any_cursor(counts: list[int], size: int) -> None:
    """Whatever page a pull stops after, the rest is exactly what it would have got."""
    papers = {
        f"2025010{day + 1}": [arxiv_entry(f"2501.{day}{n:04d}v1") for n in range(count)]
        for day, count in enumerate(counts)
    }
    window = Window(date(2025, 1, 1), date(2025, 1, len(counts)))
    source, _ = _arxiv_source(papers, size)
    pages = list(source.pages(window, ""))
    assert [e.key for page in pages for e in page.entries] == [
        f"arxiv:2501.{day}{n:04d}" for day, count in enumerate(counts) for n in range(count)
    ]
    assert [bool(page.cursor) for page in pages] == [True] * (len(pages) - 1) + [False]
    for at, page in enumerate(pages[:-1]):
        assert list(source.pages(window, page.cursor)) == pages[at + 1 :]


def test_an_empty_or_broken_arxiv_page_is_asked_for_again() -> None:
    assert arxiv._unready(arxiv_page([], total=5), 2) == "an empty page at 2 of 5"
    assert arxiv._unready(arxiv_page([], total=0), 0) == ""
    assert arxiv._unready(arxiv_page([arxiv_entry()])[:-9], 0).startswith("no well-formed XML")
    assert arxiv._unready(b"<html/>", 0) == "a document that is no Atom feed but html"


def test_daily_items() -> None:
    items = [daily_item("2501.00001"), daily_item("none", link="https://x.example/1")]
    answer = daily.parse(daily_page(items), "2025-01-05")
    listed, linked = answer.entries
    assert (listed.key, listed.version, listed.upvotes, listed.day) == (
        "arxiv:2501.00001",
        0,
        7,
        "2025-01-05",
    )
    assert (listed.authors, listed.topics) == (("A. Author",), ("state spaces",))
    assert linked.key.startswith("url:")
    assert linked.link == "https://x.example/1"


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (3, ("item 1 of 2025-01-05", "it is no object")),
        ({"paper": []}, ("item 1 of 2025-01-05", "its paper is no object")),
        (daily_item(upvotes="many"), ("2501.00001", "its upvotes are no count")),
        (daily_item(upvotes=True), ("2501.00001", "its upvotes are no count")),
        (daily_item(title="\u200b"), ("2501.00001", "it has no title")),
        (daily_item("somewhere"), ("somewhere", "it has neither an arXiv id nor a web address")),
        (
            daily_item("x", link="javascript:alert(1)"),
            ("x", "it has neither an arXiv id nor a web address"),
        ),
    ],
)
def test_a_malformed_daily_item_is_named_and_skipped(item: object, problem: tuple[str, str]) -> None:
    answer = daily.parse(daily_page([item, daily_item("2501.00002")]), "2025-01-05")
    assert answer.problems == [Problem(*problem)]
    assert [found.arxiv for found in answer.entries] == ["2501.00002"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["id", "title", "summary", "authors", "publishedAt", "upvotes", "ai_keywords", "link"]
)


@given(st.dictionaries(FIELDS, JSON, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_whatever_stands_in_a_daily_item_its_neighbour_is_read(changes: dict[str, object]) -> None:
    item = daily_item()
    item["paper"] |= changes
    body = json.dumps([item, daily_item("2501.00002")])
    answer = daily.parse(body.encode("utf-8", "surrogatepass"), "2025-01-05")
    assert answer.entries[-1].arxiv == "2501.00002"
    assert len(answer.entries) + len(answer.problems) == 2
    for found in answer.entries:
        repr(found).encode("utf-8")


@pytest.mark.parametrize("body", [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b'"x"'])
def test_what_is_no_list_is_said(body: bytes) -> None:
    with pytest.raises(SourceError, match="JSON"):
        daily.parse(body, "2025-01-05")


def _daily_source(lists: dict[str, list[object]], size: int, ignores_pages: bool = False) -> daily.Daily:
    def get(url: str, accept: Callable[[bytes], str]) -> bytes:
        query = parse_qs(urlsplit(url).query)
        found, number = lists.get(query["date"][0], []), int(query["p"][0])
        start = 0 if ignores_pages else number * size
        return daily_page(found[start : start + size])

    return daily.Daily(SourceSettings(name="d", kind="daily", page_size=size), get)


def test_daily_goes_on_from_any_cursor() -> None:
    lists: dict[str, list[object]] = {
        "2025-01-01": [daily_item(f"2501.0000{n}") for n in range(4)],
        "2025-01-03": [daily_item("2501.00009")],
    }
    window = Window(date(2025, 1, 1), date(2025, 1, 3))
    source = _daily_source(lists, 2)
    pages = list(source.pages(window, ""))
    assert [len(page.entries) for page in pages] == [2, 2, 0, 0, 1]
    for at, page in enumerate(pages[:-1]):
        assert list(source.pages(window, page.cursor)) == pages[at + 1 :]


def test_a_list_that_knows_no_pages_ends() -> None:
    lists: dict[str, list[object]] = {"2025-01-01": [daily_item(f"2501.0000{n}") for n in range(3)]}
    source = _daily_source(lists, 3, ignores_pages=True)
    day = date(2025, 1, 1)
    assert [len(page.entries) for page in source.pages(Window(day, day), "")] == [3, 0]


def test_rss_items() -> None:
    entries, problems = rss.parse(RSS.encode())
    announced, post = entries
    assert (announced.key, announced.version) == ("arxiv:2501.00007", 2)
    assert announced.abstract == "We measure a < b."
    assert announced.authors == ("A. Author", "B. Author")
    assert (announced.published, announced.categories) == ("2025-01-02", ("cs.LG",))
    assert (post.title, post.abstract, post.link) == ("A post", "Words here.", "https://lab.example/post")
    assert post.published == "2025-01-01"  # the feed's own date stands in
    assert problems == [Problem("javascript:alert(1)", "it has neither an arXiv id nor a web address")]


def test_atom_entries() -> None:
    ((found,), problems) = rss.parse(ATOM.encode())
    assert (found.title, found.abstract, found.published) == ("An Atom entry", "Body", "2025-01-03")
    assert (found.updated, problems) == ("2025-01-04T00:00:00+00:00", [])


@pytest.mark.parametrize("start", [BOMB, FILE, BOMB.replace("!ENTITY", "!entity")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-7", "cp037"])
def test_feeds_that_declare_entities_are_refused(start: str, encoding: str) -> None:
    text = RSS.replace("A post", "&b;").replace("?>", f' encoding="{encoding}"?>{start}', 1)
    with pytest.raises(SourceError, match=r"declares entities|in the encoding|neither RSS nor Atom"):
        rss.parse(text.encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_feeds_in_usual_encodings_are_read(encoding: str) -> None:
    text = RSS.replace("A post", "Über etwas").replace("?>", f' encoding="{encoding}"?>', 1)
    assert "Über etwas" in [entry.title for entry in rss.parse(text.encode(encoding))[0]]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_feed_never_breaks_the_parser(data: st.DataObject) -> None:
    page = data.draw(st.sampled_from([RSS, ATOM])).encode()
    at = data.draw(st.integers(0, len(page)))
    garbage = st.binary(max_size=12) | st.sampled_from(
        [b"<![x", b"]]>", b"&#0;", b"<!--", b"&lt;![x[", b"<title>"]
    )
    body = page[:at] + data.draw(garbage) + page[at + data.draw(st.integers(0, 40)) :]
    try:
        entries, problems = rss.parse(body)
    except SourceError:
        return
    for found in entries:
        assert found.title
        assert found.link.startswith("http")
        repr((found, problems)).encode("utf-8")


def test_feeds_are_read_from_files_within_the_limit(tmp_path: Path) -> None:
    (tmp_path / "lab.xml").write_text(RSS)
    made = SourceSettings(name="lab", kind="rss", path="lab.xml")
    day = date(2025, 1, 1)

    def pages(limit: int) -> Iterator[object]:
        return rss.Rss(made, lambda *_: b"", tmp_path, limit).pages(Window(day, day), "")

    (page,) = pages(1 << 20)
    assert len(page.entries) == 2  # type: ignore[attr-defined]  # a Page
    with pytest.raises(SourceError, match="more than max_bytes = 100"):
        list(pages(100))
    (tmp_path / "lab.xml").unlink()
    with pytest.raises(SourceError, match="lab.xml: cannot be read: No such file"):
        list(pages(100))
