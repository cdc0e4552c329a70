"""The page in a real browser: search, a paper, both schemes, a phone, the keyboard, and the interactive plot.

CLAIMBENCH_SCREENSHOTS names a folder that keeps what every page looked like.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from acting import at_a_port
from browser import CHROMIUM, KEPT, Browser
from served import Served

from claimbench.web.pages.plot import library

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH (apt-get install chromium)")
PAGES = {
    "home": "/",
    "search": "/search?q=state+space",
    "paper": "/paper/s4",
    "listing": "/paper/arxiv:2401.00001",
    "claim": "/claim/exact-permutations/ensemble-quadratic",
    "group": "/group/sequence",
    "leaderboards": "/leaderboards",
    "leaderboard": "/leaderboard/s4/kernel-cost",
    "machine": "/machine/3036afff642d",
    "about": "/about",
}


@pytest.fixture(scope="module")
def address(published: Served) -> Iterator[str]:
    """The page at a real port."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    with at_a_port(published.app, listening):
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


# Every text's contrast with what lies behind it, as WCAG 2.2 defines it: [words, ratio] where it is below what AA asks
CONTRAST = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const known = new Map();
  const behind = (e) => {
    if (!e) return [255, 255, 255];
    if (!known.has(e)) {
      const c = parse(getComputedStyle(e).backgroundColor);
      known.set(e, c.length === 3 || c[3] > 0 ? c : behind(e.parentElement));
    }
    return known.get(e);
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || element.closest("desc, title, script")) continue;
    const style = getComputedStyle(element);
    const colour = parse(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), bold = style.fontWeight >= 700;
    const wanted = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < wanted) low.push([node.data.trim().slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return low;
})()
"""


LOOKS = [(1280, False), (390, True), (1280, True), (390, False)]


@pytest.mark.parametrize(("width", "dark"), LOOKS if KEPT else LOOKS[:2])
def test_every_page_fits_and_can_be_read(
    browser: Browser, address: str, shots: Path, width: int, dark: bool
) -> None:
    browser.look(width, dark=dark, scripts=False)
    browser.problems.clear()
    for name, path in PAGES.items():
        browser.open(address + path)
        assert browser.value("document.documentElement.scrollWidth") <= width, name
        assert browser.value(CONTRAST) == [], name
        assert browser.value("getComputedStyle(document.body).backgroundColor") == (
            "rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)"
        )
        if KEPT:
            browser.screenshot(shots / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    assert browser.problems == []


def test_a_reader_searches_and_opens_a_paper(browser: Browser, address: str) -> None:
    browser.look(1280, scripts=False)
    browser.open(f"{address}/")
    browser.value("document.querySelector('#q').focus()")
    browser.type("structured state spaces")
    browser.press("Enter")
    browser.settle(f"{address}/search?q=structured+state+spaces")
    browser.value("document.querySelector('.card h3 a').click()")
    browser.settle(f"{address}/paper/s4")
    assert browser.value("document.querySelector('h1').innerText").startswith("Efficiently Modeling")
    states = browser.value(
        "[...document.querySelectorAll('.of-paper tbody tr')].map(r => r.innerText.split('\\n')[0])"
    )
    assert len(states) == 5
    assert all(any(word in state for word in ("holds", "fails", "undecided")) for state in states)
    heights = "[...document.querySelectorAll('svg.intervals')].map(s => s.getBoundingClientRect().height)"
    assert max(browser.value(heights)) > 60


def test_the_keyboard_reaches_everything(browser: Browser, address: str) -> None:
    browser.look(1280, scripts=False)
    browser.open(f"{address}/paper/s4")
    wanted = browser.value("document.querySelectorAll('a[href], summary, input, button').length")
    reached = []
    for _ in range(wanted + 20):
        browser.press("Tab")
        found = browser.value(
            "(() => { const e = document.activeElement; if (e === document.body) return null;"
            " const s = getComputedStyle(e); return [e.tagName, e.innerText, e.getAttribute('href'),"
            " s.outlineStyle !== 'none' || s.position === 'static']; })()"
        )
        if found is None:
            break
        assert found[3], found
        reached.append(found)
    assert reached[0][1] == "Skip to the page"
    hidden = browser.value("[...document.querySelectorAll('details:not([open]) a')].length")
    assert len(reached) >= wanted - hidden


@pytest.mark.skipif(library() is None, reason="needs plotly")
def test_the_interactive_plot_draws_under_its_own_policy(
    browser: Browser, address: str, published: Served, shots: Path
) -> None:
    (brief, *_) = published.app.site.board().sets[("s4", "kernel-cost")]
    browser.look(1280)
    browser.problems.clear()
    browser.open(f"{address}/plot/{brief.row.uid}")
    drawn = """new Promise((done) => { const look = (left) => {
      const n = document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length;
      (n || !left) ? done(n) : setTimeout(look, 100, left - 1); }; look(100); })"""
    assert browser.value(drawn) >= 5
    if KEPT:
        browser.screenshot(shots / "plot-1280-light.png", whole=False)
    assert browser.problems == []


def test_no_other_page_may_run_a_script(browser: Browser, address: str) -> None:
    browser.look(1280)
    browser.open(f"{address}/")
    browser.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert browser.value("window.ran") is None
