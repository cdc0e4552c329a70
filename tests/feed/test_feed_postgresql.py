"""The page's store on a PostgreSQL server gives what it gives in a file: the same steps on both, compared."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from test_feed_store import paper, save
from test_feed_trending import NOW, SCORE, listing
from toy import MakePaper

from claimbench import bench
from claimbench.errors import UserError
from claimbench.feed.entry import Problem
from claimbench.feed.lock import pulling
from claimbench.feed.schema import MEASURED, METADATA, PULL, SIGHTING, VOTE
from claimbench.feed.shelf import sync_shelf
from claimbench.feed.store import PageStore
from claimbench.feed.trending import DAYS, rank
from claimbench.ledger import Ledger
from claimbench.shelf import Shelf

MOMENTS = {"added", "started", "finished", "found"}  # columns that differ by when a test ran


@pytest.fixture
def both(tmp_path: Path, postgres_url: str) -> Iterator[tuple[PageStore, PageStore]]:
    with PageStore(tmp_path / "p.sqlite") as here, PageStore(postgres_url) as there:
        yield here, there


def dump(store: PageStore) -> dict[str, list[dict[str, Any]]]:
    with store.read() as connection:
        found = {table.name: connection.execute(sa.select(table)).all() for table in METADATA.sorted_tables}
    return {
        name: sorted(({k: v for k, v in row._mapping.items() if k not in MOMENTS} for row in rows), key=repr)
        for name, rows in found.items()
    }


def test_pulled_papers_are_the_same_on_both(both: tuple[PageStore, PageStore]) -> None:
    dumps = []
    for store in both:
        problems = [Problem("x", "it has no title")] * 2
        page = [
            paper(2),
            paper(1, "2501.00002", title="Ünïcode ✓ 100%"),
            paper(0, "2501.00003", day="2025-01-05", upvotes=3),
        ]
        save(store, page, problems=problems)
        save(store, [paper(3, categories=["cs.CL"], published="2025-01-02")])
        save(store, [paper(0, "2501.00003", day="2025-01-05", upvotes=2**40)], "list")
        (one,) = store.listings(["arxiv:2501.00002"]).values()
        store.put([replace(one, hidden=True)])
        assert [found.arxiv for found in store.newest()] == ["2501.00001", "2501.00003"]
        assert store.upvotes(store.listings(["arxiv:2501.00003"])["arxiv:2501.00003"].id) == 2**40
        dumps.append(dump(store))
    assert dumps[0] == dumps[1]
    assert [len(dumps[0][name]) for name in ("listing", "problem", PULL.name)] == [3, 1, 2]


def test_rankings_are_the_same_on_both(both: tuple[PageStore, PageStore]) -> None:
    draw = random.Random(5)

    def moment() -> datetime:
        return NOW - timedelta(hours=draw.randrange(24 * 40), minutes=draw.randrange(60))

    papers = [
        listing(
            n,
            moment().date().isoformat(),
            topics=("pruning",) * draw.randrange(2),
            group_name=draw.choice(["", "vision"]),
            hidden=n % 10 == 0,
        )
        for n in range(1, 61)
    ]
    pairs = {(draw.randrange(1, 40), draw.randrange(1, 61)): moment().isoformat() for _ in range(300)}
    votes = [{"person": p, "listing": n, "created": t} for (p, n), t in pairs.items()]
    seen = {(draw.randrange(1, 61), moment().date().isoformat()): draw.randrange(99) for _ in range(90)}
    lists = [{"listing": n, "source": "list", "day": d, "upvotes": u} for (n, d), u in seen.items()]
    same = {"claim": "c", "scale": "quick", "state": "fails"}
    sets = [
        {"set_uid": str(i), "listing": draw.randrange(1, 61), "judged": moment().isoformat(), **same}
        for i in range(30)
    ]
    for store in both:
        store.put(papers)
        with store.write() as connection:
            for table, rows in ((VOTE, votes), (SIGHTING, lists), (MEASURED, sets)):
                connection.execute(table.insert(), rows)
    for window in DAYS:
        for day in (date(2025, 3, 31), date(2025, 3, 20)):
            for filters in ({}, {"group": "vision"}, {"topic": "pruning"}, {"topic": "cs.AI"}):
                first, second = (rank(s, SCORE, window=window, day=day, now=NOW, **filters) for s in both)
                assert first == second
                assert bool(first.papers) == (filters != {"topic": "cs.AI"})


def test_the_shelf_and_its_verdicts_reach_a_store_on_a_server(
    both: tuple[PageStore, PageStore], tmp_path: Path, postgres_url: str, make_paper: MakePaper
) -> None:
    make_paper("toy")
    shelf = Shelf([tmp_path / "shelf"])
    for store, place in zip(both, (tmp_path / "l.sqlite", postgres_url), strict=True):
        with Ledger(place) as ledger:
            (outcome,) = bench.run("toy", shelf=shelf, ledger=ledger, may_trust=lambda root: True, jobs=1)
            assert outcome.verdict is not None
            assert sync_shelf(store, shelf, ledger) == {"papers": 1, "added": 1, "changed": 0, "measured": 1}
            assert sync_shelf(store, shelf, ledger) == {"papers": 1, "added": 0, "changed": 0, "measured": 1}
    first, second = ([(r["claim"], r["state"]) for r in dump(store)["measured"]] for store in both)
    assert first == second == [("larger", "holds")]


def test_one_pull_at_a_time_on_a_server(postgres_url: str) -> None:
    with (
        PageStore(postgres_url) as store,
        PageStore(postgres_url) as other,
        pulling(store),
        pytest.raises(UserError, match="another pull is under way"),
        pulling(other),
    ):
        pass
