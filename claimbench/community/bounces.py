"""Bounces: delivery reports (RFC 3464) in files, which stop the addresses that letters did not reach for good.

A report is believed only if it returns the Message-ID of a letter of ours, which nobody can guess; whose subscription
that letter was, and not whom the report names, decides what is stopped.
"""

from __future__ import annotations

import mailbox
import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import Message
from pathlib import Path

import sqlalchemy as sa

from claimbench.community.outbox import stop_subscription
from claimbench.community.schema import LETTER, SUBSCRIPTION
from claimbench.errors import UserError
from claimbench.feed.store import PageStore

LARGEST = 10 << 20  # bytes of a report
_MESSAGE_ID = re.compile(r"<?([0-9a-f]{40})@[A-Za-z0-9.-]+>?")
_FAILED = re.compile(r"\s*5\.\d{1,3}\.\d{1,3}\b")


def read_bounces(store: PageStore, paths: list[Path]) -> dict[str, int]:
    """Read files (a message, or an mbox) and folders of such. Counts: reports, stopped, others. Raises UserError."""
    counts = dict.fromkeys(("reports", "stopped", "others"), 0)
    for message in _messages(paths):
        name = failed_letter(message)
        subscription = None
        if name is not None:
            with store.write() as connection:
                subscription = connection.scalar(
                    sa.select(LETTER.c.subscription)
                    .join(SUBSCRIPTION, SUBSCRIPTION.c.id == LETTER.c.subscription)
                    .where(LETTER.c.message_id == name, SUBSCRIPTION.c.state == "active")
                    .where(LETTER.c.created >= SUBSCRIPTION.c.confirmed)
                )
                if subscription is not None:
                    stop_subscription(connection, subscription)
        counts["reports" if name is not None else "others"] += 1
        counts["stopped"] += subscription is not None
    return counts


def failed_letter(message: Message) -> str | None:
    """The returned Message-ID of a report of permanent failure; None for anything else."""
    if message.get_content_type() != "multipart/report":
        return None
    failed, name = False, None
    for part in message.walk():
        kind = part.get_content_type()
        if kind == "message/delivery-status":
            failed |= any(_permanent(block) for block in part.get_payload() if isinstance(block, Message))
        elif kind in ("message/rfc822", "text/rfc822-headers"):
            payload = part.get_payload()
            returned = (
                payload[0]
                if isinstance(payload, list) and payload
                else message_from_bytes(part.get_payload(decode=True) or b"")  # type: ignore[arg-type]  # bytes
            )
            match = _MESSAGE_ID.fullmatch(str(returned["Message-ID"] or "").strip())  # type: ignore[index]  # a Message
            name = match[1] if match else name
    return name if failed else None


def _permanent(block: Message) -> bool:
    action, status = str(block.get("Action", "")), str(block.get("Status", ""))
    return action.strip().lower() == "failed" and _FAILED.match(status) is not None


def _messages(paths: list[Path]) -> Iterator[Message]:
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            try:
                with file.open("rb") as opened:
                    beginning = opened.read(5)
                    rest = b"" if beginning == b"From " else opened.read(LARGEST)
                if beginning == b"From ":
                    yield from mailbox.mbox(file, create=False)
                else:
                    yield message_from_bytes(beginning + rest, policy=policy.compat32)
            except OSError as error:
                raise UserError(f"{file}: cannot be read: {error.strerror}") from None
