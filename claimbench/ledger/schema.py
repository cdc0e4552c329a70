"""The ledger's tables, their version, and how an older ledger becomes a current one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from claimbench.ledger.summary import add_triggers, recount

SCHEMA_VERSION = 3

METADATA = sa.MetaData()
INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # 64 bits in both: SQLite's INTEGER is that wide
_text, _int, _real = sa.Text, INTEGER, sa.Float(53)


def _col(name: str, kind: Any = _text, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=options.pop("nullable", False), **options)


META = sa.Table("meta", METADATA, _col("name", primary_key=True), _col("value"))
ENVIRONMENT = sa.Table("environment", METADATA, _col("id", primary_key=True), _col("machine"), _col("facts"))
CODE = sa.Table("code", METADATA, _col("id", primary_key=True), _col("modules"), _col("packages"))
TRIAL = sa.Table(
    "trial",
    METADATA,
    _col("id", _int, primary_key=True),
    _col("key"),
    _col("environment"),
    _col("fence", _int),
    _col("code"),
    _col("paper"),
    _col("measure"),
    _col("arm"),
    _col("point"),
    _col("seed", _int),
    _col("size"),
    _col("subjects"),
    _col("device"),
    _col("dtype"),
    _col("threads", _int),
    _col("tuned"),
    _col("company"),
    _col("status"),
    _col("metrics"),
    _col("failure"),
    _col("seconds", _real),
    _col("peak_bytes", sa.BigInteger),
    _col("timing"),
    _col("artefacts"),
    _col("created"),
    sa.UniqueConstraint("key", "environment", "fence"),
    sa.Index("trial_paper", "paper", "measure"),
)
TRIAL_SET = sa.Table(
    "trial_set",
    METADATA,
    _col("uid", primary_key=True),
    _col("serial", _int, unique=True),
    _col("paper"),
    _col("claim"),
    _col("scale"),
    _col("environment"),
    _col("fingerprint"),
    _col("replication", _int),
    _col("own", _int),
    _col("plan"),
    _col("rules_digest"),
    _col("claim_text"),
    _col("created"),
    sa.Index("set_claim", "paper", "claim", "serial"),
    sa.Index("set_fingerprint", "fingerprint", "environment"),
)
MEMBER = sa.Table(
    "member",
    METADATA,
    _col("set_uid", primary_key=True),
    _col("key", primary_key=True),
    _col("seed", _int),
    _col("trial", _int, nullable=True),
    sa.Index("member_key", "key"),
)
VERDICT = sa.Table(
    "verdict",
    METADATA,
    _col("id", _int, primary_key=True),
    _col("set_uid", index=True),
    _col("state"),
    _col("content"),
    _col("stamp"),
    _col("created"),
)
PLANNED = sa.Table(  # what a worker on another machine needs to run a set: never published
    "planned",
    METADATA,
    _col("id", primary_key=True),
    _col("paper"),
    _col("claim"),
    _col("scale"),
    _col("environment"),
    _col("content"),
    _col("done", _int),
    _col("created"),
    sa.Index("planned_open", "done", "environment"),
)
CARRY = sa.Table(  # a recheck found the same numbers under changed code: the set counts as measured with it
    "carry",
    METADATA,
    _col("id", _int, primary_key=True),
    _col("set_uid", index=True),
    _col("code"),
    _col("trials", _int),
    _col("created"),
)
SUMMARY = sa.Table(  # kept by triggers: see `summary`
    "summary",
    METADATA,
    _col("set_uid", primary_key=True),
    _col("planned", _int),
    _col("filled", _int),
    _col("changes", _int),
    _col("judged_at", _int),  # the number of changes when the latest verdict was given; 0: never
    _col("state"),
    _col("members"),  # digest of what was judged; empty if nobody has looked
    _col("cells"),  # the arms' numbers in short, for leaderboards
)
LEASE = sa.Table(
    "lease",
    METADATA,
    _col("key", primary_key=True),
    _col("environment", primary_key=True),
    _col("owner"),
    _col("expires", _real),
    _col("fence", _int),
    sa.Index("lease_owner", "owner"),  # few are held at a time, of all that ever were
)
ARTEFACT = sa.Table(
    "artefact",
    METADATA,
    _col("key", primary_key=True),
    _col("environment"),
    _col("seconds", _real),
    _col("created"),
)

Migration = Callable[[sa.Connection], None]


def _add_plans(connection: sa.Connection) -> None:
    PLANNED.create(connection)


def _add_summaries(connection: sa.Connection) -> None:
    for index in LEASE.indexes:
        index.create(connection, checkfirst=True)
    SUMMARY.create(connection)
    recount(connection)
    add_triggers(connection)


@sa.event.listens_for(METADATA, "after_create")
def _with_triggers(_target: sa.MetaData, connection: sa.Connection, **_: Any) -> None:
    add_triggers(connection)


MIGRATIONS: dict[int, Migration] = {  # from version -> what brings the schema to the next one
    1: _add_plans,
    2: _add_summaries,
}
