"""The community's tables, in the page's store. The vote table is the page's own.

Addresses stand in `person`, `subscription` and `mail_link` alone, as they were given, and go with their rows. Whatever
looks one up or counts its requests uses `address_hash`, keyed by the page's secret, which no database holds.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from claimbench.feed.schema import METADATA
from claimbench.ledger.schema import INTEGER

_text, _int = sa.Text, INTEGER


def _col(name: str, kind: Any = _text, *key: sa.ForeignKey, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, *key, nullable=options.pop("nullable", False), **options)


PERSON = sa.Table(
    "person",
    METADATA,
    _col("id", _int, primary_key=True),
    _col("address"),
    _col("address_hash", unique=True),
    _col("created"),
)
VISIT = sa.Table(  # a browser that is signed in
    "visit",
    METADATA,
    _col("token_hash", primary_key=True),
    _col("person", _int, sa.ForeignKey("person.id", ondelete="CASCADE"), index=True),
    _col("expires"),
)
MAIL_LINK = sa.Table(  # what a mailed link does; `used` makes it a single use
    "mail_link",
    METADATA,
    _col("id", primary_key=True),
    _col("purpose"),  # sign-in or subscribe
    _col("address"),
    _col("address_hash", index=True),
    _col("choices"),  # JSON, of a subscription
    _col("expires"),
    _col("used", nullable=True),
)
SUBSCRIPTION = sa.Table(
    "subscription",
    METADATA,
    _col("id", primary_key=True),  # random: it stands in unsubscribe links
    _col("address"),
    _col("address_hash", unique=True),
    _col("choices"),  # JSON: groups, searches
    _col("every"),  # day or week
    _col("state"),  # active, or stopped by the address's own server
    _col("confirmed"),
    _col("told", _int),  # news up to this serial stand in an accepted digest, or came before the subscription
    _col("covered"),  # the end of the time that accepted digests cover
)
NEWS = sa.Table(  # judged sets in the order in which the page learnt of them: the moment of a verdict may be earlier
    "news", METADATA, _col("serial", _int, primary_key=True), _col("set_uid", unique=True), _col("seen")
)
LETTER = sa.Table(  # the outbox
    "letter",
    METADATA,
    _col("id", _int, primary_key=True),
    _col("subscription", _text, sa.ForeignKey("subscription.id", ondelete="CASCADE"), nullable=True),
    _col("period", nullable=True),  # 2025-01-31 or 2025-W05
    _col("link", _text, sa.ForeignKey("mail_link.id", ondelete="CASCADE"), nullable=True),
    _col("message_id", unique=True),
    _col(
        "message"
    ),  # a digest as composed; empty once it is done with, and for links, which are made when sent
    _col("told", _int),
    _col("covered"),
    _col("state"),  # queued, transmitting, accepted, in doubt, refused
    _col("attempts", _int),
    _col("due"),  # not tried before
    _col("owner"),  # which sender has it; empty if none
    _col("until"),  # a sender that was silent for longer is gone
    _col("reason"),  # the status of the last failure, without the server's words: they may name the address
    _col("created"),
    sa.UniqueConstraint("subscription", "period"),
    sa.Index("letter_due", "state", "due"),
)
SUBMISSION = sa.Table(
    "submission",
    METADATA,
    _col("arxiv", primary_key=True),
    _col("person", _int, nullable=True),  # empty once that person's data are deleted
    _col("state"),  # waiting; listed; refused, and may be submitted again; declined by a curator, for good
    _col("created"),
    _col("reason", server_default=""),  # of a refusal
)
RATE = sa.Table(  # how often somebody asked in a span of time
    "rate",
    METADATA,
    _col("who", primary_key=True),  # a keyed hash
    _col("span", primary_key=True),
    _col("count", _int),
    _col("expires", index=True),
)
