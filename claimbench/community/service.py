"""Settings, secrets and store, put together for what sends: the command line and the page."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from claimbench.community.digest import Statements, queue_digests
from claimbench.community.letters import Letters
from claimbench.community.outbox import Sender
from claimbench.community.papers import settle_submissions
from claimbench.community.searches import searches_of
from claimbench.community.settings import CommunitySettings, MailSettings
from claimbench.community.tokens import Keys, load_keys, read_secret, utc_now
from claimbench.errors import UserError
from claimbench.feed.settings import Settings
from claimbench.feed.store import PageStore
from claimbench.search import Index
from claimbench.shelf import Shelf

PASSWORD = "CLAIMBENCH_SMTP_PASSWORD"


@dataclass(frozen=True)
class Service:
    """What is needed to send. clock: tells the time, in UTC. index: what saved searches ask; without it, words."""

    store: PageStore
    settings: Settings
    mail: MailSettings
    keys: Keys
    password: str = field(repr=False)
    statements: Statements = field(default_factory=dict, repr=False)
    clock: Callable[[], datetime] = utc_now
    index: Index | None = field(default=None, repr=False)

    @property
    def community(self) -> CommunitySettings:
        return self.settings.community

    @property
    def letters(self) -> Letters:
        return Letters(self.mail, self.keys, self.community.address, self.statements)

    def sender(self) -> Sender:
        letters = self.letters
        return Sender(
            self.store,
            self.mail,
            password=self.password,
            folder=self.settings.folder,
            make_link=lambda row, name: letters.link(row, name, self.clock()),
            clock=self.clock,
        )

    def queue(self) -> dict[str, int]:
        """Compose the digests that are due."""
        settle_submissions(self.store)
        now, letters = self.clock(), self.letters
        finds = searches_of(self.index)
        return queue_digests(
            self.store, self.settings.score, self.keys, lambda d, s: letters.digest(d, s, now), now, finds
        )


def statements_of(shelf: Shelf) -> Statements:
    """What each claim of the shelf says, by the ids of paper and claim."""
    return {
        (paper.id, claim["id"]): claim["statement"]
        for paper in shelf.entries.values()
        for claim in paper.claims
    }


def open_service(
    store: PageStore,
    settings: Settings,
    statements: Statements | None = None,
    index: Index | None = None,
) -> Service:
    """Raises UserError where mail is not configured, or a secret is missing or open to others."""
    mail = settings.mail
    if mail is None:
        raise UserError(
            f"{settings.folder / 'page.toml'}: mail is not configured; add [mail] with host and sender"
        )
    if not settings.community.url:
        raise UserError(
            f'{settings.folder / "page.toml"}: community.url is missing; add url = "https://papers.example.org"'
        )
    password = os.environ.get(PASSWORD, "")
    if not password and mail.password_file:
        password = read_secret(settings.folder / mail.password_file)
    if mail.user and not password:
        raise UserError(
            f"mail: user is set and no password; set {PASSWORD} or mail.password_file (mode 0600)"
        )
    return Service(store, settings, mail, load_keys(), password, statements or {}, index=index)
