"""Each page and its twin say what ledger, shelf and list hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from served import LISTED, Served
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from toy import MakePaper

from claimbench import bench
from claimbench.ledger import Ledger
from claimbench.report import cell_value, report
from claimbench.shelf import Shelf
from claimbench.views import deciding

PATHS = [
    "/",
    "/search?q=state+space",
    "/paper/s4",
    "/paper/arxiv:2401.00001",
    "/claim/s4/hippo-init",
    "/group/compression",
    "/leaderboards",
    "/leaderboard/s4/kernel-cost",
    "/machines",
    "/machine/3036afff642d",
    "/about",
]


class Text(HTMLParser):
    """What a reader reads, and every element's attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def links(self) -> list[str]:
        return [str(attributes["href"]) for tag, attributes in self.elements if tag == "a"]


@pytest.mark.parametrize("path", PATHS)
def test_a_page_and_its_twin(published: Served, path: str) -> None:
    answer = published.get(path)
    assert answer.status_code == 200
    page = Text(answer.text)
    twin = next(
        a["href"] for tag, a in page.elements if tag == "link" and a.get("type") == "application/json"
    )
    data = published.get(str(twin))
    assert data.status_code == 200
    assert data.headers["content-type"] == "application/json"
    assert "<svg" not in data.text
    assert isinstance(json.loads(data.text), dict)
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert not [a for _, a in page.elements if "style" in a or any(n.startswith("on") for n in a)]
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identities) == len(set(identities))


@pytest.mark.parametrize("path", PATHS)
def test_every_link_within_the_page_leads_somewhere(published: Served, path: str) -> None:
    page = Text(published.get(path).text)
    identities = {a.get("id") for _, a in page.elements}
    for link in dict.fromkeys(page.links()):
        if link.startswith("#"):
            assert link[1:] in identities
        elif link.startswith("/"):
            assert published.get(link).status_code == 200, link
        else:
            assert link.startswith("https://")


def test_a_paper_says_what_was_measured_of_each_claim(published: Served) -> None:
    answer = published.get("/paper/exact-permutations")
    page, twin = Text(answer.text), published.get("/paper/exact-permutations.json").json()
    rows = report("exact-permutations", ledger=published.ledger, shelf=published.shelf)
    assert len(rows) == len(twin["claims"]) == 5
    for row, claim in zip(rows, twin["claims"], strict=True):
        assert row.verdict is not None
        found = deciding(row.verdict)
        assert found is not None
        said = [
            row.claim.statement,
            row.claim.caveat,
            row.command,
            row.verdict.reason,
            row.set.created[:10],
            row.machine["cpu"],
            *row.claim.varies,
            *row.claim.fixed,
        ]
        for words in said:
            assert " ".join(words.split()) in page.text
        assert claim["state"] == row.verdict.state
        assert claim["view"]["row"]["verdict"] == row.verdict.to_json()
        assert cell_value(found[1]) in page.text or claim["view"]["figures"]


def test_a_listed_paper_is_not_on_the_shelf_yet(published: Served) -> None:
    page = Text(published.get("/paper/arxiv:2401.00002").text)
    assert "Not on the shelf yet." in page.text
    assert "Second differences say which weights may go." in page.text
    assert "https://arxiv.org/abs/2401.00002" in page.links()


def test_a_listing_of_the_shelf_moves_to_its_paper(published: Served) -> None:
    for end in ("", ".json"):
        answer = published.get(f"/paper/arxiv:2111.00396{end}")
        assert (answer.status_code, answer.headers["location"]) == (308, f"/paper/s4{end}")
    assert published.get("/paper/exact_permutations").headers["location"] == "/paper/exact-permutations"


def test_search_finds_papers_of_shelf_and_list(published: Served) -> None:
    def keys(query: str) -> list[str]:
        found = published.get("/search.json", params={"q": query}).json()["found"]
        return [hit["card"]["key"] for hit in found]

    assert keys("structured state spaces")[0] == "s4"
    assert keys("second differences")[0] == "arxiv:2401.00002"
    rows = report(ledger=published.ledger, shelf=published.shelf)
    undecided = {row.paper.id for row in rows if row.verdict and row.verdict.state == "undecided"}
    assert set(keys("verdict:undecided")) == undecided
    mended = published.get("/search.json", params={"q": "regularistion"}).json()["corrections"]
    assert [c["instead"] for c in mended] == ["regularisation"]
    assert "No paper was found" in published.get("/search?q=qwzx").text


class Lengths:
    """An encoder of texts by their length, with which any two are similar."""

    identity = "lengths"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([(1.0, len(text)) for text in texts])


def test_what_curators_say_stands_on_every_card(
    make_page: Callable[..., Served], make_paper: MakePaper
) -> None:
    make_paper()
    make_paper("other")
    page = make_page(LISTED)
    chosen = {listing.shelf_id or listing.key: listing for listing in page.store.newest()}
    page.store.put(replace(chosen[key], featured=True, note=f"Read {key}.") for key in ("toy", LISTED[0].key))
    page.app.site.index.using(Lengths()).embed()
    cards = {  # path, and what each is in the page's source
        "/search?q=toy": (["toy"], "article"),
        "/search?q=gradient+clipping": ([LISTED[0].key], "article"),
        "/group/theory": (["toy"], "article"),
        "/paper/other": (["toy", LISTED[0].key], "li"),  # similar ones
    }
    for path, (keys, element) in cards.items():
        found = page.get(path).text
        for key in keys:
            (card,) = re.findall(
                rf'<{element}\b(?:(?!</{element}>).)*?"/paper/{key}".*?</{element}>', found, re.DOTALL
            )
            assert "badge featured" in card, path
            assert element == "li" or f"Read {key}." in card
        assert found.count("badge featured") == len(keys)


def test_the_home_page_counts_verdicts_as_the_report_does(published: Served) -> None:
    view = published.get("/index.json").json()
    states = [
        row.verdict.state for row in report(ledger=published.ledger, shelf=published.shelf) if row.verdict
    ]
    for part in view["tally"]:
        if part["state"] != "no verdict":
            assert part["count"] == states.count(part["state"])
    assert sum(part["count"] for part in view["tally"]) == view["claims"]
    january = published.get("/index.json?window=month&on=2024-01-30").json()
    assert [card["key"] for card in january["papers"]] == ["arxiv:2401.00002", "arxiv:2401.00001"]
    assert published.get("/?on=2024-13-01").status_code == 400
    assert published.get("/?window=year").status_code == 400
    assert published.get("/?page=0").status_code == 400


def test_the_feed_is_atom_and_its_links_work(published: Served) -> None:
    answer = published.get("/feed.atom")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    feed = ET.fromstring(answer.content)
    space = {"a": "http://www.w3.org/2005/Atom"}
    entries = feed.findall("a:entry", space)
    identities = [entry.findtext("a:id", "", space) for entry in entries]
    assert len(set(identities)) == len(entries) > 16
    moments = [entry.findtext("a:updated", "", space) for entry in entries]
    assert moments == sorted(moments, reverse=True)
    for entry in entries[:3]:
        link = entry.find("a:link", space)
        assert link is not None
        assert published.get(re.sub("^http://testserver", "", link.attrib["href"])).status_code == 200


def test_what_is_not_there_is_said_in_the_twin_too(published: Served) -> None:
    for path in (
        "/paper/nothing",
        "/claim/s4/nothing",
        "/group/nothing",
        "/machine/nothing",
        "/leaderboard/s4/x",
    ):
        assert published.get(path).status_code == 404
        answer = published.get(f"{path}.json")
        assert answer.status_code == 404
        assert "error" in answer.json()
    assert published.get("/nowhere").status_code == 404


def test_an_empty_ledger_has_pages(make_paper: MakePaper, make_page: Callable[..., Served]) -> None:
    make_paper()
    page = make_page()
    for path in (
        "/",
        "/paper/toy",
        "/claim/toy/larger",
        "/leaderboards",
        "/machines",
        "/feed.atom",
        "/group/theory",
    ):
        assert page.get(path).status_code == 200, path
    assert "not judged" in Text(page.get("/paper/toy").text).text
    assert "claimbench run toy/larger" in page.get("/paper/toy").text


def test_private_sets_are_shown_only_when_asked_for(
    make_paper: MakePaper, make_page: Callable[..., Served], tmp_path: Path
) -> None:
    make_paper()
    ledger, shelf = Ledger(tmp_path / "l.sqlite"), Shelf([tmp_path / "shelf"])
    bench.run("toy", shelf=shelf, ledger=ledger, may_trust=lambda root: True, jobs=1, sizes={"steps": "7"})
    (own,) = ledger.sets()
    assert own.own
    hidden = make_page()
    claim = hidden.get("/claim/toy/larger.json").json()
    assert (claim["sets"], claim["shown"]) == ([], [])
    for path in (f"/claim/toy/larger?set={own.uid}", f"/plot/{own.uid}", "/machine/any"):
        assert hidden.get(path).status_code == 404
    for path in ("/", "/paper/toy", "/feed.atom", "/machines", "/index.json", "/paper/toy.json"):
        assert own.uid not in hidden.get(path).text
    shown = make_page(show_own=True)
    assert [line["labels"] for line in shown.get("/claim/toy/larger.json").json()["sets"]] == [
        ["own setting"]
    ]
    assert (
        shown.get("/paper/toy.json").json()["claims"][0]["state"] == "no verdict"
    )  # never on the paper's row


def test_a_new_verdict_is_on_the_page_at_once(
    make_paper: MakePaper, make_page: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claimbench.web.site.FRESH", 0.0)
    make_paper()
    page = make_page()
    assert page.get("/paper/toy.json").json()["claims"][0]["state"] == "no verdict"
    shelf = Shelf([tmp_path / "shelf"])
    with Ledger(tmp_path / "l.sqlite") as other:
        bench.run("toy", shelf=shelf, ledger=other, may_trust=lambda root: True, jobs=1)
        (row,) = report("toy", ledger=other, shelf=shelf)
    assert row.verdict is not None
    assert page.get("/paper/toy.json").json()["claims"][0]["state"] == row.verdict.state


def test_a_replication_stands_beside_the_first_and_never_replaces_it(
    make_paper: MakePaper, make_page: Callable[..., Served], tmp_path: Path
) -> None:
    make_paper()
    shelf = Shelf([tmp_path / "shelf"])
    with Ledger(tmp_path / "l.sqlite") as ledger:
        for fresh in (False, True):
            bench.run("toy", shelf=shelf, ledger=ledger, may_trust=lambda root: True, jobs=1, fresh=fresh)
        first, again = ledger.sets()
    assert (first.replication, again.replication) == (0, 1)
    page = make_page()
    (claim,) = page.get("/paper/toy.json").json()["claims"]
    assert claim["view"]["row"]["set"]["uid"] == first.uid
    assert sum(part["count"] for part in claim["others"]) == 1
    sets = page.get("/claim/toy/larger.json").json()["sets"]
    assert [line["uid"] for line in sets] == [again.uid, first.uid]
    assert sets[0]["labels"] == ["replication 1"]


def test_further_routes_come_first_and_templates_get_their_context(
    make_paper: MakePaper, make_page: Callable[..., Served]
) -> None:
    async def theirs(request: Request) -> Response:
        return PlainTextResponse("theirs")

    asked: list[str] = []

    def context(request: Request) -> dict[str, str]:
        asked.append(request.cookies.get("session", ""))
        return {"reader": "somebody"}

    make_paper()
    page = make_page(routes=[Route("/about", theirs)], context=context, personal=["session"])
    assert page.get("/about").text == "theirs"
    for _ in range(2):
        page.get("/machines")
        page.get("/machines", headers={"cookie": "session=me"})
    assert asked == ["", "me", "me"]
