"""What readers and curators do, in a real browser without script, with letters over a real mail server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import trustme
from acting import EDITOR, Acting, acting_page
from browser import CHROMIUM, KEPT, Browser
from readers import open_mailing
from smtp_server import text_of
from test_browser import CONTRAST

from claimbench.community.papers import submissions
from claimbench.community.schema import PERSON, SUBSCRIPTION
from claimbench.community.store import active
from claimbench.community.tokens import utc_now
from claimbench.feed.entry import plain
from claimbench.feed.schema import VOTE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH (apt-get install chromium)")
PAPER = "arxiv:2503.00001"
READER = "reader@example.net"
LOOKS = [(1280, False), (390, True), (1280, True), (390, False)] if KEPT else [(390, True)]
EVIL = (
    '<script>window.ran = 1</script>"\'><img src=x onerror="window.ran = 1"></textarea><svg onload=window.ran=1>'
    "'); DROP TABLE subscription; -- {{ 7 * 7 }}{% include 'x' %} javascript:window.ran=1 \u202emoc\u202c \x00 \ud7ff"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Acting]:
    """One for all tests here; each has readers of its own."""
    folder = tmp_path_factory.mktemp("acting")
    with open_mailing(folder, authority) as mailing, acting_page(mailing, folder / "shelf") as found:
        yesterday = (utc_now() - timedelta(1)).date().isoformat()
        (paper,) = mailing.store.listings([PAPER]).values()
        mailing.store.put([replace(paper, published=yesterday, shelf_id=None)])
        yield found


@pytest.fixture
def reader(browser: Browser) -> Iterator[Browser]:
    """Nobody in particular, at a desk, without script."""
    browser.send("Network.clearBrowserCookies")
    browser.look(1280, scripts=False)
    browser.problems.clear()
    yield browser
    browser.send("Network.clearBrowserCookies")


def look_at(browser: Browser, name: str, shots: Path) -> None:
    """The page fits and can be read in every look, and each of its controls has a name and shows the focus."""
    for width, dark in LOOKS:
        browser.look(width, dark=dark, scripts=False)
        assert browser.value("document.documentElement.scrollWidth") <= width, name
        assert browser.value(CONTRAST) == [], name
        if KEPT:
            browser.screenshot(shots / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    unnamed = (
        "[...document.querySelectorAll('main input:not([type=hidden]), main textarea')]"
        ".filter(e => !e.labels.length).map(e => e.outerHTML)"
    )
    assert browser.value(unnamed) == [], name
    small = (
        "[...document.querySelectorAll('main button, main .tick, main .field')]"
        ".filter(e => { const r = e.getBoundingClientRect(); return r.height && (r.height < 24 || r.width < 24); })"
        ".map(e => e.outerHTML)"
    )
    assert browser.value(small) == [], name  # WCAG 2.2, 2.5.8
    browser.look(1280, scripts=False)


def text(browser: Browser) -> str:
    return str(browser.value("document.querySelector('main').innerText"))


def strangers(browser: Browser, address: str, seen: Callable[[str], bool]) -> str:
    """What everybody else sees there, once it is that: an answer is kept for a second."""
    ends = time.monotonic() + 5
    while not seen(found := browser.fetch(address)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert seen(found), found
    return found


def count(page: Acting, table: sa.Table) -> int:
    with page.mailing.store.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_subscribe_confirm_read_unsubscribe(reader: Browser, page: Acting, shots: Path) -> None:
    reader.open(f"{page.address}/")
    reader.follow("aside a[href='/subscribe']")
    look_at(reader, "subscribe", shots)
    for choice in ("[name=every][value=day]", "[name=group][value=sequence]"):
        reader.value(f"document.querySelector('{choice}').click()")
    reader.value("document.querySelectorAll('[name=search]')[0].focus()")
    reader.type("alpha")
    page.fill(reader, "/subscribe", address=READER)
    look_at(reader, "subscribe-asked", shots)
    assert active(page.mailing.store) == []
    reader.open(page.mailed(READER, "subscribe/link"))
    look_at(reader, "subscribe-confirm", shots)
    page.press(reader, "/subscribe/link")
    look_at(reader, "subscribed", shots)
    (found,) = active(page.mailing.store)
    assert (found.choices.groups, found.choices.searches, found.choices.every) == (
        ("sequence",),
        ("alpha",),
        "day",
    )
    assert page.service.queue()["queued"] == 1
    assert page.service.sender().run().accepted == 1
    digest = page.mailing.inbox.to(READER)[-1]
    assert "Alpha works" in text_of(digest)
    assert digest["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    reader.open(page.mailed(READER, "unsubscribe"))
    look_at(reader, "unsubscribe", shots)
    assert count(page, SUBSCRIPTION) == 1
    page.press(reader, "/unsubscribe")
    look_at(reader, "unsubscribed", shots)
    assert count(page, SUBSCRIPTION) == 0
    assert reader.problems == []


def test_sign_in_vote_submit_and_leave(reader: Browser, page: Acting, shots: Path) -> None:
    voter = "voter@example.net"
    reader.open(f"{page.address}/paper/{PAPER}")
    reader.follow(".acting a[href^='/vote']")
    assert "Sign in first" in text(reader)
    look_at(reader, "sign-in", shots)
    page.fill(reader, "/sign-in", address=voter)
    reader.open(page.mailed(voter, "sign-in/link"))
    page.press(reader, "/sign-in/link")
    look_at(reader, "vote", shots)  # where the reader was going
    page.press(reader, "/vote")
    assert reader.value("location.pathname") == f"/paper/{PAPER}"
    assert "1 vote" in text(reader)
    look_at(reader, "voted", shots)
    strangers(reader, f"{page.address}/", lambda found: "1 vote" in found)
    strangers(reader, f"{page.address}/paper/{PAPER}.json", lambda found: json.loads(found)["votes"] == 1)
    page.press(reader, "/vote")
    assert "1 vote" not in text(reader)
    reader.open(f"{page.address}/submit")
    look_at(reader, "submit", shots)
    page.fill(reader, "/submit", arxiv="https://arxiv.org/abs/2402.18668v2")
    look_at(reader, "submitted", shots)
    assert submissions(page.mailing.store) == ["2402.18668"]
    reader.open(f"{page.address}/account")
    assert "waits for the next pull" in text(reader)
    look_at(reader, "account", shots)
    before = count(page, PERSON)
    reader.value("document.querySelector('[name=sure]').click()")
    page.press(reader, "/account")
    assert count(page, PERSON) == before - 1
    assert count(page, VOTE) == 0
    assert [line for line in reader.problems if "403" not in line] == []  # the page that asks to sign in


def test_curators_feature_describe_and_remove_on_the_papers_page(
    reader: Browser, page: Acting, shots: Path
) -> None:
    page.sign_in(reader, EDITOR)
    reader.open(f"{page.address}/paper/{PAPER}")
    reader.value("document.querySelector('summary').click()")
    look_at(reader, "curate-paper", shots)
    reader.value("document.querySelector('[name=featured]').click()")
    page.fill(reader, "/curate", note="Read section 3 first.")
    assert all(words in text(reader) for words in ("featured", "Read section 3 first."))
    look_at(reader, "featured-paper", shots)
    reader.open(f"{page.address}/")
    assert reader.value("document.querySelector('aside h2').innerText") == "Featured"
    assert text(reader).count("Read section 3 first.") == 2
    look_at(reader, "featured-home", shots)
    told = json.loads(
        strangers(reader, f"{page.address}/index.json", lambda found: bool(json.loads(found)["featured"]))
    )
    assert [(card["key"], card["note"]) for card in told["featured"]] == [(PAPER, "Read section 3 first.")]
    assert told["papers"][0]["featured"]
    reader.open(f"{page.address}/paper/{PAPER}")
    reader.value("document.querySelector('[name=hidden]').click()")
    page.press(reader, "/curate")
    assert "removed from every list" in text(reader)
    strangers(reader, f"{page.address}/index.json", lambda found: json.loads(found)["total"] == 0)
    reader.open(f"{page.address}/curate")
    look_at(reader, "curate", shots)
    reader.follow(".rows a[href^='/curate']")
    for box in ("hidden", "featured"):
        reader.value(f"document.querySelector('[name={box}]').click()")
    page.fill(reader, "/curate", note="")
    assert "featured" not in text(reader).lower()
    assert reader.problems == []


def test_the_keyboard_alone_subscribes(reader: Browser, page: Acting) -> None:
    reader.open(f"{page.address}/subscribe")
    reached = []
    for _ in range(40):
        reader.press("Tab")
        found = reader.value(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.name || e.innerText, s.outlineStyle !== 'none' || s.position === 'static']; })()"
        )
        assert found[1], found
        reached.append(found[0])
        if found[0] == "address":
            reader.type("keys@example.net")
        if found[0] == "Subscribe":
            break
    wanted = ["address", "every", "group", "group", "search", "search", "search", "Subscribe"]
    assert reached[-len(wanted) :] == wanted
    reader.press("Enter")
    reader.settle(f"{page.address}/subscribe")
    page.mailed("keys@example.net", "subscribe/link")


def test_what_is_typed_stays_words(reader: Browser, page: Acting) -> None:
    """Every field of every form, with script allowed: nothing runs, nothing breaks, nobody else gets a letter."""
    reader.look(1280, scripts=True)
    page.sign_in(reader, EDITOR)
    before = {table: count(page, table) for table in (SUBSCRIPTION, PERSON)}

    def unharmed() -> None:
        assert reader.value("window.ran") is None
        assert reader.value("document.querySelectorAll('main script, main img, main svg').length") == 0
        assert "49" not in text(reader)
        assert "Something went wrong" not in text(reader)

    reader.open(f"{page.address}/submit")
    page.fill(reader, "/submit", arxiv=EVIL)
    unharmed()
    reader.open(f"{page.address}/curate?paper={PAPER}")
    page.fill(reader, "/curate", note=EVIL)
    unharmed()
    reader.open(f"{page.address}/curate?paper={PAPER}")
    unharmed()
    assert reader.value("document.querySelector('textarea').value") == plain(EVIL, 1000)
    reader.open(f"{page.address}/")
    unharmed()
    reader.open(f"{page.address}/subscribe")
    reader.value("document.querySelector('form.stacked').noValidate = true")
    page.fill(reader, "/subscribe", address=f"a@example.org, {EVIL}")
    assert "it is no e-mail address" in text(reader)
    unharmed()
    reader.open(f"{page.address}/subscribe")
    reader.value(f"document.querySelector('[name=every]:checked').value = {json.dumps(EVIL)}")
    for place, evil in enumerate((EVIL, EVIL[100:])):
        reader.value(f"document.querySelectorAll('[name=search]')[{place}].value = {json.dumps(evil)}")
    reader.value(f"document.querySelector('[name=group]').value = {json.dumps(EVIL)}")
    reader.value("document.querySelector('[name=group]').checked = true")
    page.fill(reader, "/subscribe", address="evil@example.net")
    reader.open(page.mailed("evil@example.net", "subscribe/link"))
    page.press(reader, "/subscribe/link")
    unharmed()
    (found,) = [one for one in active(page.mailing.store) if one.address == "evil@example.net"]
    assert found.choices.groups == ()
    assert len(found.choices.searches) == 2
    page.service.queue()
    page.service.sender().run()
    assert not any("a@example.org" in address for address, _ in page.mailing.inbox.accepted)
    assert (count(page, SUBSCRIPTION), count(page, PERSON)) == (before[SUBSCRIPTION] + 1, before[PERSON])
    assert [line for line in reader.problems if "400" not in line] == []
