"""Delivery reports stop the subscription whose letter they return, and nothing else."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest
from readers import DAY, NOW, Mailing, judge, subscribe

from claimbench.community.bounces import read_bounces
from claimbench.community.store import active


def report(message_id: str, *, action: str = "failed", status: str = "5.1.1") -> bytes:
    """As RFC 3464 has it, for somebody else: whom it names must not matter."""
    returned = EmailMessage()
    returned["Message-ID"] = message_id
    returned["From"] = "papers@example.org"
    returned.set_content("hello")
    text = (
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n'
        "From: mailer@example.net\r\nMIME-Version: 1.0\r\n\r\n"
        "--b\r\nContent-Type: text/plain\r\n\r\nIt failed.\r\n"
        "--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; mx.example.net\r\n\r\n"
        f"Final-Recipient: rfc822; other@example.net\r\nAction: {action}\r\nStatus: {status}\r\n\r\n"
        "--b\r\nContent-Type: message/rfc822\r\n\r\n"
    )
    return text.encode() + returned.as_bytes() + b"\r\n--b--\r\n"


@pytest.fixture
def name(mailing: Mailing) -> str:
    """The Message-ID of an accepted digest of one of two subscribers."""
    subscribe(mailing.store, "reader@example.net", NOW - DAY)
    subscribe(mailing.store, "other@example.net", NOW - DAY)
    judge(mailing.store, "claim-one")
    mailing.compose()
    assert mailing.send().accepted == 2
    return str(mailing.inbox.to("reader@example.net")[0]["Message-ID"])


def test_a_permanent_failure_stops_the_subscription_of_its_letter(mailing: Mailing, name: str) -> None:
    (mailing.folder / "bounces").mkdir()
    (mailing.folder / "bounces" / "1.eml").write_bytes(report(name))
    counts = read_bounces(mailing.store, [mailing.folder / "bounces"])
    assert counts == {"reports": 1, "stopped": 1, "others": 0}
    assert [found.address for found in active(mailing.store)] == ["other@example.net"]
    assert read_bounces(mailing.store, [mailing.folder / "bounces"])["stopped"] == 0
    subscribe(mailing.store, "reader@example.net", NOW + DAY)
    read_bounces(mailing.store, [mailing.folder / "bounces"])
    assert len(active(mailing.store)) == 2  # the report is of a letter from before it was confirmed anew


def test_an_mbox_is_read(mailing: Mailing, name: str, tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.write_bytes(b"From mailer Mon Mar  3 06:00:00 2025\n" + report(name).replace(b"\r\n", b"\n") + b"\n")
    assert read_bounces(mailing.store, [box]) == {"reports": 1, "stopped": 1, "others": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"action": "delayed", "status": "4.2.2"},
        {"status": "4.4.1"},
        {"message_id": f"<{'0' * 40}@example.org>"},
        {"message_id": "<guess@example.org>"},
    ],
)
def test_delays_and_forgeries_stop_nobody(mailing: Mailing, name: str, change: dict[str, str]) -> None:
    (mailing.folder / "b.eml").write_bytes(report(**{"message_id": name, **change}))
    (mailing.folder / "c.eml").write_bytes(b"Subject: I am on holiday\r\n\r\nMessage-ID: " + name.encode())
    counts = read_bounces(mailing.store, [mailing.folder / "b.eml", mailing.folder / "c.eml"])
    assert counts["stopped"] == 0
    assert len(active(mailing.store)) == 2
