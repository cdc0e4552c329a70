"""One listing a paper, whatever the order of sources; the same again changes nothing; the shelf in the same list."""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import MakePaper

from claimbench.errors import UserError
from claimbench.feed import schema
from claimbench.feed.entry import Entry, Page, Problem, Window, entry
from claimbench.feed.listing import Listing, merged
from claimbench.feed.lock import LostLock, pulling
from claimbench.feed.schema import LOCK, MEASURED, SIGHTING, TOPIC
from claimbench.feed.shelf import sync_shelf
from claimbench.feed.store import PageStore
from claimbench.ledger import Ledger
from claimbench.rules.verdict import Verdict
from claimbench.shelf import Shelf

DAY = date(2025, 1, 5)
WINDOW = Window(DAY, DAY)
STATE = ("listing", "listing_topic", "sighting", "measured", "problem")


def paper(version: int = 1, identity: str = "2501.00001", **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "title": f"Title v{version}",
        "published": "2025-01-01",
        "abstract": f"Abstract v{version}",
        "categories": ["cs.LG"],
    }
    return entry(arxiv=(identity, version), **(fields | changes))


def save(
    store: PageStore, entries: list[Entry], source: str = "arxiv", problems: list[Problem] | None = None
) -> None:
    run = store.begin_pull(source, WINDOW)
    run = store.save_page(run, Page(entries, problems or []), lambda categories: "")
    store.end_pull(run)


def dump(path: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as connection:
        return {name: sorted(connection.execute(f"select * from {name}"), key=repr) for name in STATE}


def test_the_same_page_again_changes_nothing(tmp_path: Path) -> None:
    with PageStore(tmp_path / "p.sqlite") as store:
        page = [paper(2), paper(1, "2501.00002"), paper(0, "2501.00003", day="2025-01-05", upvotes=3)]
        problems = [Problem("x", "it has no title")] * 2
        save(store, page, problems=problems)
        before = dump(tmp_path / "p.sqlite")
        assert [len(before[name]) for name in STATE] == [3, 3, 1, 0, 1]
        save(store, page, problems=problems)
        save(store, [paper(1)], "other")  # an older version from elsewhere
        assert dump(tmp_path / "p.sqlite") == before
        assert store.pulls("arxiv")[0].counts == {
            "pages": 1,
            "entries": 3,
            "added": 0,
            "changed": 0,
            "problems": 2,
        }


def test_a_later_version_replaces_and_keeps_what_people_set(tmp_path: Path) -> None:
    with PageStore(tmp_path / "p.sqlite") as store:
        save(store, [paper(1)])
        (first,) = store.listings(["arxiv:2501.00001"]).values()
        store.put([replace(first, featured=True, note="worth a look", group_name="sequence")])
        save(store, [paper(3, categories=["cs.CL"], published="2025-01-02")])
        (listing,) = store.newest()
        assert (listing.version, listing.title, listing.published) == (3, "Title v3", "2025-01-02")
        assert (listing.id, listing.added, listing.featured, listing.note) == (
            first.id,
            first.added,
            True,
            "worth a look",
        )
        assert listing.group_name == "sequence"
        with store.read() as connection:
            assert connection.execute(sa.select(TOPIC)).all() == [(first.id, "cs.CL", "2025-01-02")]


VERSIONED = [paper(0, abstract="", authors=["A. Author"]), paper(1), paper(2), paper(3, categories=[])]


@given(st.permutations(range(4)), st.integers(0, 3))
@settings(deadline=None)
def test_the_order_of_versions_does_not_matter(order: list[int], again: int) -> None:
    def fold(places: list[int]) -> Listing:
        listing = None
        for at in places:
            listing = merged(listing, VERSIONED[at], f"s{at}", "", "now")
        assert listing is not None
        return listing

    listing = fold([*order, again])
    assert listing == fold(order)
    assert (listing.version, listing.title, listing.abstract) == (3, "Title v3", "Abstract v3")
    assert (listing.authors, listing.categories) == (("A. Author",), ("cs.LG",))


def test_what_a_list_says_of_a_day_is_updated_and_other_days_stay(tmp_path: Path) -> None:
    with PageStore(tmp_path / "p.sqlite") as store:
        for day, upvotes in (("2025-01-05", 3), ("2025-01-06", 9), ("2025-01-05", 4)):
            save(store, [paper(0, day=day, upvotes=upvotes)], "list")
        with store.read() as connection:
            rows = connection.execute(
                sa.select(SIGHTING.c.day, SIGHTING.c.upvotes).order_by(SIGHTING.c.day)
            ).all()
        assert rows == [("2025-01-05", 4), ("2025-01-06", 9)]
        (listing,) = store.newest()
        assert store.upvotes(listing.id) == 9


def test_newest_leaves_out_what_is_hidden(tmp_path: Path) -> None:
    with PageStore(tmp_path / "p.sqlite") as store:
        save(
            store,
            [paper(1, f"2501.0000{n}", title=f"Über 100% {n}", published=f"2025-01-0{n}") for n in (1, 2, 3)],
        )
        one = store.listings(["arxiv:2501.00003"])["arxiv:2501.00003"]
        store.put([replace(one, hidden=True)])
        assert [found.arxiv for found in store.newest()] == ["2501.00002", "2501.00001"]
        assert [found.arxiv for found in store.newest(1)] == ["2501.00002"]


def test_a_store_from_the_future_or_of_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    PageStore(tmp_path / "p.sqlite").close()
    with sqlite3.connect(tmp_path / "p.sqlite") as connection:
        connection.execute("update meta set value = '99' where name = 'schema'")
    with pytest.raises(UserError, match=rf"page store: .* has schema 99, .* knows {schema.SCHEMA_VERSION}"):
        PageStore(tmp_path / "p.sqlite")
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(
        UserError, match=r"page store: .*not a database; free it, or choose another with --store"
    ):
        PageStore(tmp_path / "text.sqlite")


def test_one_pull_at_a_time(tmp_path: Path) -> None:
    with PageStore(tmp_path / "p.sqlite") as store, PageStore(tmp_path / "p.sqlite") as other:
        with pulling(store), pytest.raises(UserError, match="another pull is under way"), pulling(other):
            pass
        with pulling(other) as owner, other.write() as connection:
            connection.execute(LOCK.update().values(owner=f"{owner.rsplit(' ', 2)[0]} 999999999 1.00"))
        with pulling(store):  # its holder is gone
            pass


def test_a_pull_that_lost_its_lock_writes_nothing(tmp_path: Path) -> None:
    with PageStore(tmp_path / "p.sqlite") as store:
        run = store.begin_pull("arxiv", WINDOW)
        with pulling(store) as owner:
            with store.write() as connection:
                connection.execute(LOCK.update().values(owner="somebody 1 1.0"))
            with pytest.raises(LostLock):
                store.save_page(run, Page([paper()]), lambda categories: "", owner)
        assert store.newest() == []


# --- the shelf ---


def test_the_shelf_is_in_the_same_list(tmp_path: Path, make_paper: MakePaper) -> None:
    make_paper("toy")
    folder = make_paper("other", group="data")
    text = (folder / "paper.toml").read_text()
    (folder / "paper.toml").write_text(text.replace("year", 'arxiv = "2501.00001"\nyear', 1))
    shelf = Shelf([tmp_path / "shelf"])
    with PageStore(tmp_path / "p.sqlite") as store:
        save(store, [paper(1)])
        counts = sync_shelf(store, shelf)
        assert (counts["papers"], counts["added"], counts["changed"]) == (2, 1, 1)
        found = store.listings(["arxiv:2501.00001", "shelf:toy"])
        both, own = found["arxiv:2501.00001"], found["shelf:toy"]
        assert (both.shelf_id, both.group_name, both.title, both.published) == (
            "other",
            "data",
            "Title v1",
            "2025-01-01",
        )
        assert (own.shelf_id, own.group_name, own.described) == ("toy", "theory", "shelf")
        before = dump(tmp_path / "p.sqlite")
        assert sync_shelf(store, Shelf([tmp_path / "shelf"])) == {
            "papers": 2,
            "added": 0,
            "changed": 0,
            "measured": 0,
        }
        assert dump(tmp_path / "p.sqlite") == before


def test_arxiv_replaces_the_shelfs_estimate_whichever_came_first(
    tmp_path: Path, make_paper: MakePaper
) -> None:
    folder = make_paper("toy")
    text = (folder / "paper.toml").read_text()
    (folder / "paper.toml").write_text(text.replace("year", 'arxiv = "2501.00001"\nyear', 1))
    kept = []
    for order in itertools.permutations(("shelf", "list", "arxiv")):
        with PageStore(tmp_path / f"{'-'.join(order)}.sqlite") as store:
            for step in order:
                if step == "shelf":
                    sync_shelf(store, Shelf([tmp_path / "shelf"]))
                    (listing,) = store.newest()
                    assert listing.published in ("2025-01-01", "2025-01-17")  # the month its id names
                elif step == "list":
                    save(store, [paper(0, published="2025-01-17", topics=["a topic"])], "list")
                else:
                    save(store, [paper(2, published="2025-01-17")], "arxiv")
            (listing,) = store.newest()
            kept.append(replace(listing, id=0, added="", topics=tuple(sorted(listing.topics))))
    assert len(set(kept)) == 1
    assert (kept[0].shelf_id, kept[0].published, kept[0].title) == ("toy", "2025-01-17", "Title v2")


def test_a_shelf_paper_that_gets_an_arxiv_id_keeps_its_row_and_one_that_leaves_keeps_its_listing(
    tmp_path: Path, make_paper: MakePaper
) -> None:
    folder = make_paper("toy")
    with PageStore(tmp_path / "p.sqlite") as store:
        sync_shelf(store, Shelf([tmp_path / "shelf"]))
        (first,) = store.newest()
        text = (folder / "paper.toml").read_text()
        (folder / "paper.toml").write_text(text.replace("year", 'arxiv = "2501.00001"\nyear', 1))
        sync_shelf(store, Shelf([tmp_path / "shelf"]))
        (second,) = store.newest()
        assert (first.key, second.key, second.id) == ("shelf:toy", "arxiv:2501.00001", first.id)
        (folder / "paper.toml").unlink()
        sync_shelf(store, Shelf([tmp_path / "shelf"]))
        (third,) = store.newest()
        assert (third.key, third.shelf_id) == ("arxiv:2501.00001", None)


def test_verdicts_that_count_come_from_the_ledger(tmp_path: Path, make_paper: MakePaper) -> None:
    make_paper("toy")
    shelf = Shelf([tmp_path / "shelf"])
    common: dict[str, Any] = {"environment": "e", "replication": 0, "rules_digest": "r", "claim_text": "{}"}
    verdict = Verdict("holds", "", "quick", [], [1000], 1, [5], 0, 0, 0)
    with Ledger(tmp_path / "l.sqlite") as ledger, PageStore(tmp_path / "p.sqlite") as store:
        for number, (name, scale, own, seed) in enumerate(
            [
                ("toy", "quick", False, 1000),
                ("toy", "quick", True, 1000),
                ("toy", "smoke", False, 1000),
                ("toy", "quick", False, 0),
                ("gone", "quick", False, 1000),
            ]
        ):
            plan = {"first_seed": seed}
            row = ledger.create_set(
                paper=name,
                claim="larger",
                scale=scale,
                own=own,
                fingerprint=str(number),
                plan=plan,
                **common,
            )
            ledger.save_verdict(row.uid, verdict, "s")
        assert sync_shelf(store, shelf, ledger)["measured"] == 1
        (counted,) = [
            s for s in ledger.sets(paper="toy") if not s.own and s.scale == "quick" and s.plan["first_seed"]
        ]
        ledger.save_verdict(
            counted.uid, replace(verdict, state="fails"), "t"
        )  # judged again: state, not moment
        with store.read() as connection:
            first = connection.execute(sa.select(MEASURED)).one()
        sync_shelf(store, shelf, ledger)
        with store.read() as connection:
            second = connection.execute(sa.select(MEASURED)).one()
        assert (first.set_uid, first.state, second.state) == (counted.uid, "holds", "fails")
        assert first.judged == second.judged
