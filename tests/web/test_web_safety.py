"""Nothing from outside becomes markup, nothing is run, and every answer carries the policy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from served import LISTED, Served
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from toy import CLAIMS, PAPER, MakePaper

from claimbench import bench
from claimbench.ledger import Ledger
from claimbench.shelf import Shelf
from claimbench.web.headers import PLOT_POLICY, POLICY
from claimbench.web.limits import LARGEST_BODY, LONGEST_ADDRESS, Limits

BAD = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'></title></svg>{{1234*4321}}<!--]]>&amp;\u202e"
TOML = BAD.replace("\\", "\\\\").replace('"', '\\"')


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(text: str) -> None:
    assert "5332114" not in text
    for tag, attributes in Elements(text).found:
        assert tag not in ("script", "img", "iframe", "object", "embed", "base"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            assert name != "style"
            if name in ("href", "src", "action"):
                assert value is not None
                assert value.startswith(("/", "#", "https://", "http://")), value


@pytest.fixture
def hostile(make_paper: MakePaper, make_page: Callable[..., Served], tmp_path: Path) -> Served:
    """A paper and a listing whose every field is an attack, with measured numbers."""
    toml = PAPER.format(id="toy", group="theory")
    fields = {
        'title = "A paper about toy"': f'title = "{TOML}"',
        'authors = ["A. Author"]': f'authors = ["{TOML}"]\ntopics = ["{TOML}"]\narxiv = "{TOML}"',
        "year = 2024": 'year = 2024\ncode = "javascript:alert(3)"',
        'summary = "It says that one thing is larger than another."': f'summary = "{TOML}"',
        'statement = "The method is larger than the baseline."': f'statement = "{TOML}"',
        'where = "abstract"': f'where = "{TOML}", unit = "{TOML}", note = "{TOML}"',
        'method = "method"': f'method = "{TOML}"',
        'baselines = ["baseline"]': f'baselines = ["b{TOML}"]',
        'against = "baseline"': f'against = "b{TOML}", label = "{TOML}"',
        'kind = "mean"': f'kind = "mean", label = "{TOML}", unit = "{TOML}"',
        'varies = ["noise"]': f'varies = ["{TOML}"]\nfixed = ["{TOML}"]',
        'caveat = "Made for a test."': f'caveat = "{TOML}"',
        "[claim.scales.smoke]": '[claim.metrics.seconds]\nkind = "mean"\nbetter = "lower"\nunit = "s"\n'
        f'resolution = 1e-6\nlabel = "{TOML}"\n[claim.scales.smoke]',
    }
    for old, new in fields.items():
        assert old in toml
        toml = toml.replace(old, new)
    claims = CLAIMS.replace('"size": ', '"seconds": trial.point["n"], "size": ').replace(
        '== "method"', '[0] != "b"'
    )
    folder = make_paper(claims=claims)
    (folder / "paper.toml").write_text(toml, encoding="utf-8")
    shelf = Shelf([tmp_path / "shelf"])
    with Ledger(tmp_path / "l.sqlite") as ledger:
        bench.run("toy", shelf=shelf, ledger=ledger, may_trust=lambda root: True, jobs=1)
    listing = replace(
        LISTED[0],
        key=f"url:{BAD}",
        title=BAD,
        abstract=BAD,
        authors=(BAD,),
        topics=(BAD,),
        categories=(BAD,),
        link="javascript:alert(4)",
        arxiv="",
        group_name=BAD,
    )
    return make_page([listing])


def test_every_field_of_papers_and_listings_stays_words(hostile: Served) -> None:
    (brief,) = hostile.app.site.board().sets[("toy", "larger")]
    assert brief.counts
    machine = brief.machine["id"]
    paths = [
        "/",
        "/?window=month&on=2024-01-31",
        "/paper/toy",
        f"/paper/url:{BAD}",
        "/claim/toy/larger",
        "/group/theory",
        f"/group/{BAD}",
        "/leaderboards",
        "/leaderboard/toy/larger",
        "/machines",
        f"/machine/{machine}",
        "/search?q=alert",
    ]
    for path in paths:
        answer = hostile.client.get(path)
        assert answer.status_code == 200, path
        assert_harmless(answer.text)
    assert "&lt;script&gt;" in hostile.client.get("/paper/toy").text
    assert "&lt;script&gt;" in hostile.client.get("/leaderboard/toy/larger").text
    feed = ET.fromstring(hostile.client.get("/feed.atom").content)
    assert {element.tag.rpartition("}")[2] for element in feed.iter()} <= {
        *("feed", "title", "id", "link", "updated", "author", "name", "entry", "summary")
    }
    twin = json.loads(hostile.client.get("/paper/toy.json").text)
    assert twin["claims"][0]["statement"] == BAD
    plot = hostile.client.get(f"/plot/{brief.row.uid}")
    scripts = [a.get("src") for tag, a in Elements(plot.text).found if tag == "script"]
    assert scripts in ([], ["/static/plotly.min.js", "/static/plot.js"])


def test_every_parameter_stays_words(published: Served) -> None:
    params = dict.fromkeys(
        ("q", "window", "on", "topic", "page", "set", "setting", "point", "quality", "cost"), BAD
    )
    for path in ("/", "/search", "/paper/s4", "/claim/s4/hippo-init", "/leaderboard/s4/kernel-cost"):
        for name, value in params.items():
            for end in ("", ".json"):
                answer = published.get(
                    ("/index" if path + end == "/.json" else path) + end, params={name: value}
                )
                assert answer.status_code in (200, 400, 404), (path, name)
                assert answer.headers["content-type"].startswith("application/json" if end else "text/html")
                if not end:
                    assert_harmless(answer.text)
    for path in (
        f"/paper/{BAD}",
        f"/claim/{BAD}/{BAD}",
        f"/group/{BAD}",
        f"/machine/{BAD}",
        f"/{BAD}",
        f"/static/{BAD}",
    ):
        answer = published.get(path)
        assert answer.status_code == 404
        assert_harmless(answer.text)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/paper/s4.json",
        "/feed.atom",
        "/nothing",
        "/static/icon.svg",
        "/static/nothing",
        "/?page=x",
        "/robots.txt",
    ],
)
def test_every_answer_has_the_policy_and_no_cookie(published: Served, path: str) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE"):
        answer = published.client.request(method, path)
        headers = answer.headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "set-cookie" not in headers
        assert answer.status_code in ((200, 400, 404) if method in ("GET", "HEAD") else (404, 405))


def test_only_the_plot_page_may_run_scripts(published: Served) -> None:
    (brief, *_) = published.app.site.board().sets[("s4", "hippo-init")]
    assert published.get(f"/plot/{brief.row.uid}").headers["content-security-policy"] == PLOT_POLICY
    assert "unsafe" not in POLICY
    assert "script-src" not in POLICY


def test_errors_carry_the_policy_and_tell_nothing(published: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr(published.app.site, "board", fails)
    answer = published.get("/machines?fresh=1")
    assert answer.status_code == 500
    assert answer.headers["content-security-policy"] == POLICY
    assert "secret" not in answer.text


def test_requests_are_bounded(published: Served) -> None:
    assert published.get("/search", params={"q": "x" * LONGEST_ADDRESS}).status_code == 414
    assert published.get("/search", params={"q": "x" * 401}).status_code == 400
    assert published.client.post("/", content=b"x" * (LARGEST_BODY + 1)).status_code == 413
    assert published.client.post("/", content=iter([b"x" * LARGEST_BODY] * 2)).status_code in (405, 413)
    assert published.client.post("/", headers={"content-length": "many"}).status_code == 413
    assert published.get("/", headers={f"x-{n}": "1" for n in range(70)}).status_code == 431


def test_a_slow_answer_is_given_up(published: Served) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(5)

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass

    assert TestClient(Limits(slow, time=0.05)).get("/").status_code == 503
    assert TestClient(Limits(reads, body=10)).post("/", content=iter([b"123456"] * 3)).status_code == 413


def test_foreign_names_of_the_host_are_refused(
    make_paper: MakePaper, make_page: Callable[..., Served]
) -> None:
    make_paper()
    page = make_page(hosts=frozenset({"127.0.0.1"}), address="https://papers.lab.example")
    for host, status in (
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("papers.lab.example", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:80", 421),
        ("", 421),
    ):
        answer = page.get("/", headers={"host": host})
        assert answer.status_code == status, host
        assert answer.headers["content-security-policy"] == POLICY
    assert (
        "https://papers.lab.example/paper/toy" in page.get("/feed.atom", headers={"host": "localhost"}).text
    )
