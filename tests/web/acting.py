"""A page on which readers may do everything, served at a real port, with a mail server that is read like a mailbox."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from browser import Browser
from readers import KEYS, Mailing
from smtp_server import PASSWORD, text_of

from claimbench.community.routes import Community
from claimbench.community.service import Service
from claimbench.community.settings import CommunitySettings
from claimbench.feed.settings import Settings
from claimbench.ledger import Ledger
from claimbench.search import Index
from claimbench.shelf import Shelf
from claimbench.web.app import Application, create_app
from claimbench.web.maintenance import bring_up_to_date

EDITOR = "editor@example.net"


@dataclass
class Acting:
    """The page at `address`; `service` sends for it. opened: links of letters."""

    address: str
    mailing: Mailing
    service: Service
    opened: set[str] = field(default_factory=set)

    def mailed(self, to: str, page: str) -> str:
        """The link to this page in a letter to somebody, once one has arrived that was not opened yet."""
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            for message in self.mailing.inbox.to(to):
                found = re.search(rf"{self.address}/{page}\?t=\S+", text_of(message))
                if found and found[0] not in self.opened:
                    self.opened.add(found[0])
                    return found[0]
            time.sleep(0.01)
        raise AssertionError(f"no letter to {to} has a link to {page}")

    def sign_in(self, browser: Browser, address: str) -> None:
        """As a reader does it: the form, the letter, the button."""
        browser.open(f"{self.address}/sign-in")
        self.fill(browser, "/sign-in", address=address)
        browser.open(self.mailed(address, "sign-in/link"))
        self.press(browser, "/sign-in/link")

    def fill(self, browser: Browser, action: str, **texts: str) -> None:
        """Type into the fields of the form with this action, and press its button."""
        for name, text in texts.items():
            field = f'document.querySelector(\'form[action="{action}"] [name="{name}"]\')'
            browser.value(f"{field}.value = ''; {field}.focus()")
            browser.type(text)
        self.press(browser, action)

    def press(self, browser: Browser, action: str) -> None:
        browser.follow(f'form[action="{action}"] button')


@contextmanager
def at_a_port(app: Application, listening: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield
    server.should_exit = True
    thread.join(10)


@contextmanager
def acting_page(mailing: Mailing, shelf: Path) -> Iterator[Acting]:
    """Over the listings of `mailing` and an empty shelf in the folder `shelf`."""
    shelf.mkdir(exist_ok=True)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    community = CommunitySettings(
        url=address, actions=["subscribe", "vote", "submit"], curators=[EDITOR], links_per_client=1000
    )
    settings = Settings(mail=mailing.settings, community=community, folder=mailing.folder)
    index = Index(mailing.folder / "index")
    service = Service(mailing.store, settings, mailing.settings, KEYS, PASSWORD, index=index)
    found = Community(service, ["sequence", "vision"])
    app = create_app(
        settings,
        ledger=Ledger(mailing.folder / "ledger.sqlite"),
        shelf=Shelf([shelf]),
        store=mailing.store,
        index=index,
        routes=found.routes,
        context=found.context,
        personal=found.personal,
    )
    bring_up_to_date(app.site)
    with at_a_port(app, listening):
        yield Acting(address, mailing, service)
