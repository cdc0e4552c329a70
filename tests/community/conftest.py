"""An SMTP server with a certificate of its own, and a page that sends by it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from readers import Mailing, listing
from smtp_server import USER, Inbox, start

from claimbench.community.settings import MailSettings
from claimbench.feed.store import PageStore


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def mailing(tmp_path: Path, authority: trustme.CA) -> Iterator[Mailing]:
    """Two listed papers, no verdict, no subscriber."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    (tmp_path / "authority.pem").write_bytes(authority.cert_pem.bytes())
    inbox = Inbox()
    controller = start(inbox, context)
    settings = MailSettings(
        host="127.0.0.1",
        port=controller.port,
        sender="papers@example.org",
        user=USER,
        certificates="authority.pem",
        timeout=10,
        backoff=60,
    )
    with PageStore(tmp_path / "page.sqlite") as store:
        store.put([listing("2503.00001", "Alpha works"), listing("2503.00002", "Beta works", "vision")])
        yield Mailing(store, settings, inbox, tmp_path)
    controller.stop()
