"""Verdicts, list and index follow ledger and shelf beside the requests, which never judge anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from served import LISTED, Served
from toy import MakePaper

from claimbench import bench
from claimbench.ledger import VERDICT, Ledger
from claimbench.shelf import Shelf
from claimbench.web.maintenance import (
    Maintenance,
    bring_up_to_date,
    existing_index,
    index_folder,
    judge_missing,
)


@pytest.fixture
def unjudged(make_paper: MakePaper, make_page: Callable[..., Served], tmp_path: Path) -> Served:
    """A page whose ledger holds a measured set without a verdict."""
    make_paper()
    with Ledger(tmp_path / "l.sqlite") as ledger:
        bench.run(
            "toy", shelf=Shelf([tmp_path / "shelf"]), ledger=ledger, may_trust=lambda root: True, jobs=1
        )
        with ledger.write() as connection:
            connection.execute(sa.delete(VERDICT))
    return make_page()


def verdicts(page: Served) -> int:
    with page.ledger.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(VERDICT)) or 0


def test_requests_judge_nothing_and_maintenance_does(
    unjudged: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setattr("claimbench.rules.judging.judge", None)
        for path in ("/", "/paper/toy", "/claim/toy/larger", "/leaderboards", "/feed.atom"):
            assert unjudged.get(path).status_code == 200
    assert verdicts(unjudged) == 0
    judge_missing(unjudged.ledger, unjudged.shelf)
    assert verdicts(unjudged) == 1
    judge_missing(unjudged.ledger, unjudged.shelf)
    assert verdicts(unjudged) == 1


def test_the_index_follows_the_shelf(make_page: Callable[..., Served], make_paper: MakePaper) -> None:
    make_paper()
    page = make_page()
    assert page.app.site.index.search("other", mode="words").hits == []
    make_paper("other")
    page.app.site.__post_init__()  # as if the seconds for which the shelf is held had passed
    bring_up_to_date(page.app.site)
    assert [hit.key for hit in page.app.site.index.search("other", mode="words").hits] == ["other"]
    bring_up_to_date(page.app.site, listings=False)
    assert len(page.app.site.index) == 2
    assert [listing.shelf_id for listing in page.store.newest()] == ["other", "toy"]


def test_machines_on_a_server_search_what_any_of_them_wrote(
    make_page: Callable[..., Served],
    make_paper: MakePaper,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_paper()
    here = make_page(LISTED, place=postgres_url)
    monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path / "another machine's"))
    there = make_page(place=postgres_url)
    roots = [*here.shelf.roots]
    assert {page.app.site.index.storage.folder for page in (here, there)} > {index_folder(there.store, roots)}
    for page in (here, there):
        found = page.get("/search.json?q=diferences").json()
        assert [hit["card"]["key"] for hit in found["found"]] == ["arxiv:2401.00002"]
        assert [(each["word"], each["instead"]) for each in found["corrections"]] == [
            ("diferences", "differences")
        ]
    there.store.put(
        [replace(LISTED[1], key="arxiv:2401.00003", arxiv="2401.00003", title="Pruned to nothing")]
    )
    for indexed in (False, True):
        here.app.site.__post_init__()  # as if the second for which the index is held had passed
        assert ("Pruned to nothing" in here.get("/search?q=diferences").text) == indexed
        bring_up_to_date(there.app.site)
    index = existing_index(here.store, roots)
    assert index is not None
    assert len(index) == 4
    for one in (index, here.app.site.index, there.app.site.index):
        one.close()


def test_one_of_several_does_the_work(
    make_page: Callable[..., Served], make_paper: MakePaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_paper()
    page = make_page()
    done: list[str] = []
    monkeypatch.setattr(
        "claimbench.web.maintenance.bring_up_to_date", lambda site, listings: done.append("once")
    )
    two = [Maintenance(page.app.site, every=0.05, meaning=False) for _ in range(2)]
    for one in two:
        one.start()
    time.sleep(0.5)
    assert done == ["once"]
    for one in two:
        one.stop()
