"""The page's tables, their version, and how an older store becomes a current one.

Days are ISO dates and moments are ISO 8601 in UTC, both as text, so that every database orders them alike. Lists are
JSON text.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from claimbench.ledger.schema import INTEGER, Migration

SCHEMA_VERSION = 3

METADATA = sa.MetaData()
_text, _int = sa.Text, INTEGER


def _col(name: str, kind: Any = _text, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=options.pop("nullable", False), **options)


def _listing(**options: Any) -> sa.Column[Any]:
    return sa.Column("listing", _int, sa.ForeignKey("listing.id"), nullable=False, **options)


META = sa.Table("meta", METADATA, _col("name", primary_key=True), _col("value"))
CURATED = "curated"  # a name in it: the value is another one whenever a curator has changed something
LISTING = sa.Table(
    "listing",
    METADATA,
    _col("id", _int, primary_key=True),
    _col("key", unique=True),  # arxiv:2402.18668, shelf:based or url:DIGEST
    _col("arxiv"),  # without its version; empty where there is none
    _col("version", _int),  # of the arXiv text that is described here; 0 where the source did not say
    _col("described"),  # who described it: a source's name, or "shelf"
    _col("title"),
    _col("abstract"),
    _col("authors"),
    _col("categories"),
    _col("topics"),
    _col("group_name"),
    _col("link"),
    _col("published"),
    _col("updated"),
    _col("added"),
    _col("shelf_id", nullable=True),
    _col("featured", _int),
    _col("note"),
    _col("hidden", _int),
    sa.Index("listing_published", "published", "hidden"),
    sa.Index("listing_group", "group_name", "published"),
    sa.Index("listing_shelf", "shelf_id"),
)
sa.Index(  # of the few that are hidden: one over all would tempt planners to walk every visible listing
    "listing_hidden",
    LISTING.c.id,
    sqlite_where=LISTING.c.hidden == 1,
    postgresql_where=LISTING.c.hidden == 1,
)
FEATURED = sa.Index(
    "listing_featured",
    LISTING.c.published,
    sqlite_where=LISTING.c.featured == 1,
    postgresql_where=LISTING.c.featured == 1,
)
TOPIC = sa.Table(  # topics and categories once more, a row each: what a page filters by
    "listing_topic",
    METADATA,
    _listing(primary_key=True),
    _col("topic", primary_key=True),
    _col("published"),  # the listing's, so that a filtered window is one walk over an index
    sa.Index("topic_published", "topic", "published", "listing"),
)
SIGHTING = sa.Table(  # what a community list said of a paper on its page of that day
    "sighting",
    METADATA,
    _listing(primary_key=True),
    _col("source", primary_key=True),
    _col("day", primary_key=True),
    _col("upvotes", _int),
    sa.Index("sighting_day", "day", "listing"),
)
MEASURED = sa.Table(  # the ledger's judged sets of shelf papers, refreshed by `sync_shelf`
    "measured",
    METADATA,
    _col("set_uid", primary_key=True),
    _listing(),
    _col("claim"),
    _col("scale"),
    _col("state"),
    _col("judged"),  # the moment of the set's first verdict: judging again measures nothing
    sa.Index("measured_judged", "judged", "listing"),
    sa.Index("measured_listing", "listing"),
)
VOTE = sa.Table(
    "vote",
    METADATA,
    _col("person", _int, primary_key=True),
    _listing(primary_key=True),
    _col("created"),
    sa.Index("vote_listing", "listing"),
    sa.Index("vote_created", "created", "listing"),
)
PULL = sa.Table(
    "pull",
    METADATA,
    _col("id", _int, primary_key=True),
    _col("source"),
    _col("window"),  # FIRST..LAST
    _col("cursor"),  # where the source goes on; empty at the start
    _col("state"),  # running, failed, done; a pull that was killed stays "running" and is gone on with
    _col("reason"),
    _col("counts"),
    _col("started"),
    _col("finished", nullable=True),
    sa.UniqueConstraint("source", "window"),
)
PROBLEM = sa.Table(
    "problem",
    METADATA,
    _col("id", _int, primary_key=True),
    _col("source"),
    _col("entry"),
    _col("reason"),
    _col("found"),
    sa.UniqueConstraint("source", "entry", "reason"),
)
LOCK = sa.Table(
    "pull_lock", METADATA, _col("name", primary_key=True), _col("owner"), _col("expires", sa.Float(53))
)


def _third(connection: sa.Connection) -> None:
    """Why a submission was refused, and an index of what is featured."""
    names = {column["name"] for column in sa.inspect(connection).get_columns("submission")}
    if "reason" not in names:  # a store of the first version got the table a moment ago
        connection.exec_driver_sql("ALTER TABLE submission ADD COLUMN reason TEXT DEFAULT '' NOT NULL")
    FEATURED.create(connection, checkfirst=True)


MIGRATIONS: dict[int, Migration] = {  # from version -> what brings the schema to the next one
    1: METADATA.create_all,  # the community's tables
    2: _third,
}
