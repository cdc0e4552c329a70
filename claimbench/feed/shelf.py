"""The shelf's papers in the list, and what the ledger has judged of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from claimbench import shelf as shelves
from claimbench.feed.entry import ABSTRACT_LIMIT, TITLE_LIMIT, Entry, arxiv_id, names, plain
from claimbench.feed.listing import SHELF, Listing, from_row, merged
from claimbench.feed.schema import LISTING, MEASURED
from claimbench.feed.store import PageStore, by_key, moment, write_listings
from claimbench.ledger import TRIAL_SET, VERDICT, Ledger
from claimbench.plan import FIRST_SEED


def sync_shelf(store: PageStore, shelf: shelves.Shelf, ledger: Ledger | None = None) -> dict[str, int]:
    """Bring the shelf's papers into the list and refresh what was measured of them.

    A paper with an arXiv id is the listing of that id, whichever came first; one that leaves the shelf keeps its
    listing and loses its link to the shelf. The ledger is only read: sets that count on a paper's row (published
    sizes and subjects, seeds 1000 and up, no smoke). Returns counts: papers, added, changed, measured. Doing it
    again changes nothing.
    """
    added = moment()
    papers = shelf.entries
    with store.write() as connection:
        _rename(connection, papers)
        known = _known(connection, papers)
        wanted = {
            key: replace(listing, shelf_id=None)
            for key, listing in known.items()
            if listing.shelf_id is not None and listing.shelf_id not in papers
        }
        for paper in papers.values():
            entry = _entry(paper)
            listing = merged(known.get(entry.key), entry, SHELF, paper.group, added)
            topics = tuple(dict.fromkeys((*entry.topics, *listing.topics)))
            wanted[entry.key] = replace(listing, shelf_id=paper.id, group_name=paper.group, topics=topics)
        write_listings(connection, list(wanted.values()), known)
        measured = _refresh(connection, _judged(ledger, papers) if ledger is not None else [])
    new = sum(key not in known for key in wanted)
    changed = sum(key in known and listing != known[key] for key, listing in wanted.items())
    return {"papers": len(papers), "added": new, "changed": changed, "measured": measured}


def _entry(paper: shelves.Entry) -> Entry:
    identity = arxiv_id(paper.arxiv)
    key, address = _key(paper), f"https://arxiv.org/abs/{identity[0]}" if identity else ""
    return Entry(
        key=key,
        title=plain(paper.title, TITLE_LIMIT),
        published=_estimate(paper, identity[0] if identity else ""),
        link=address,
        arxiv=identity[0] if identity else "",
        abstract=plain(paper.summary, ABSTRACT_LIMIT),
        authors=names(paper.authors),
        topics=names(topic.lower() for topic in paper.topics),
    )


def _key(paper: shelves.Entry) -> str:
    identity = arxiv_id(paper.arxiv)
    return f"arxiv:{identity[0]}" if identity else f"shelf:{paper.id}"


def _estimate(paper: shelves.Entry, arxiv: str) -> str:
    """A day to stand for the month that an arXiv id names, else for the year; a source that knows replaces it."""
    digits = arxiv.rsplit("/", 1)[-1][:4]
    if len(digits) == 4 and 1 <= int(digits[2:]) <= 12:
        century = 1900 if digits >= "9101" and "/" in arxiv else 2000
        return f"{century + int(digits[:2])}-{digits[2:]}-01"
    return f"{paper.year}-01-01"


def _rename(connection: sa.Connection, papers: dict[str, shelves.Entry]) -> None:
    """A paper listed by its shelf id that has got an arXiv id since keeps its row, with its votes, if it can."""
    old = by_key(connection, [f"shelf:{name}" for name in papers])
    taken = by_key(connection, [_key(paper) for paper in papers.values()])
    for name, paper in papers.items():
        listing, key = old.get(f"shelf:{name}"), _key(paper)
        if listing is None or key == listing.key:
            continue
        values: dict[str, Any] = {"key": key, "arxiv": key.removeprefix("arxiv:")}
        if key in taken:  # the arXiv listing goes on; this one would be the same paper twice
            values = {"shelf_id": None, "hidden": 1}
        connection.execute(LISTING.update().where(LISTING.c.id == listing.id).values(**values))


def _known(connection: sa.Connection, papers: dict[str, shelves.Entry]) -> dict[str, Listing]:
    """What stands under the papers' keys, and whatever else points at the shelf."""
    found = by_key(connection, [_key(paper) for paper in papers.values()])
    rows = connection.execute(sa.select(LISTING).where(LISTING.c.shelf_id.is_not(None)))
    return found | {row.key: from_row(row) for row in rows}


def _judged(ledger: Ledger, papers: dict[str, shelves.Entry]) -> list[dict[str, Any]]:
    """The sets that count on a paper's row, with the moment of their first verdict and the state of their last."""
    columns = (TRIAL_SET.c.uid, TRIAL_SET.c.paper, TRIAL_SET.c.claim, TRIAL_SET.c.scale, TRIAL_SET.c.plan)
    query = (
        sa.select(*columns, VERDICT.c.state, VERDICT.c.created)
        .join(VERDICT, VERDICT.c.set_uid == TRIAL_SET.c.uid)
        .where(TRIAL_SET.c.own == 0, TRIAL_SET.c.scale != "smoke")
        .order_by(VERDICT.c.id)
    )
    found: dict[str, dict[str, Any]] = {}
    with ledger.read() as connection:
        for row in connection.execute(query):
            if row.paper not in papers or json.loads(row.plan).get("first_seed", 0) < FIRST_SEED:
                continue
            kept = found.setdefault(
                row.uid,
                {
                    "set_uid": row.uid,
                    "key": _key(papers[row.paper]),
                    "claim": row.claim,
                    "scale": row.scale,
                    "judged": row.created,
                },
            )
            kept["state"] = row.state
    return list(found.values())


def _refresh(connection: sa.Connection, judged: list[dict[str, Any]]) -> int:
    ids = {key: listing.id for key, listing in by_key(connection, [row["key"] for row in judged]).items()}
    wanted = {
        row["set_uid"]: {
            "listing": ids[row["key"]],
            **{n: row[n] for n in ("set_uid", "claim", "scale", "state", "judged")},
        }
        for row in judged
    }
    known = {row.set_uid: dict(row._mapping) for row in connection.execute(sa.select(MEASURED))}
    stale = [uid for uid, row in known.items() if wanted.get(uid) != row]
    for uid in stale:
        connection.execute(MEASURED.delete().where(MEASURED.c.set_uid == uid))
    fresh = [row for uid, row in wanted.items() if known.get(uid) != row]
    if fresh:
        connection.execute(MEASURED.insert(), fresh)
    return len(wanted)
