"""The score against its formula written out, over random evidence; windows, neighbours, filters and pages."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from claimbench.errors import UserError
from claimbench.feed.listing import Listing
from claimbench.feed.schema import MEASURED, SIGHTING, VOTE
from claimbench.feed.settings import HalfLives, ScoreSettings
from claimbench.feed.store import PageStore
from claimbench.feed.trending import DAYS, WindowName, find_window, rank

NOW = datetime(2025, 3, 31, 15, 30, tzinfo=UTC)
SCORE = ScoreSettings(
    vote=1.5, upvote=0.7, verdict=2.0, fresh=0.4, half_life_days=HalfLives(day=0.4, week=2, month=7)
)


def listing(number: int, published: str, **changes: Any) -> Listing:
    return Listing(f"arxiv:{number}", f"Paper {number}", published, "https://a.example", "arxiv", **changes)


@pytest.fixture
def filled(tmp_path: Path) -> Any:
    """A store of 60 listings over 60 days with votes, lists and verdicts at random; and the same as plain lists."""
    rng = random.Random(5)

    def moment() -> datetime:
        return NOW - timedelta(hours=rng.randrange(0, 24 * 60), minutes=rng.randrange(60))

    papers = [
        listing(
            n,
            moment().date().isoformat(),
            categories=(rng.choice(["cs.LG", "cs.CL"]),),
            topics=("pruning",) * rng.randrange(2),
            group_name=rng.choice(["", "vision"]),
            hidden=n % 10 == 0,
        )
        for n in range(1, 61)
    ]
    votes = {(rng.randrange(1, 40), rng.randrange(1, 61)): moment().isoformat() for _ in range(400)}
    lists = {
        (rng.randrange(1, 61), rng.choice("ab"), moment().date().isoformat()): rng.randrange(99)
        for _ in range(90)
    }
    sets = [(rng.randrange(1, 61), moment().isoformat()) for _ in range(30)]
    with PageStore(tmp_path / "p.sqlite") as store:
        store.put(papers)
        with store.write() as connection:
            connection.execute(
                VOTE.insert(), [{"person": p, "listing": n, "created": t} for (p, n), t in votes.items()]
            )
            connection.execute(
                SIGHTING.insert(),
                [{"listing": n, "source": s, "day": d, "upvotes": u} for (n, s, d), u in lists.items()],
            )
            connection.execute(
                MEASURED.insert(),
                [
                    {
                        "set_uid": str(i),
                        "listing": n,
                        "claim": "c",
                        "scale": "quick",
                        "state": "fails",
                        "judged": t,
                    }
                    for i, (n, t) in enumerate(sets)
                ],
            )
        yield store, papers, votes, lists, sets


def expected(
    data: Any, window: WindowName, last: date, keep: Any = lambda paper: True
) -> list[tuple[str, float]]:
    """The docstring's formula, one listing at a time."""
    _, papers, votes, lists, sets = data
    first = last - timedelta(DAYS[window] - 1)
    end = min(NOW, datetime.combine(last + timedelta(1), datetime.min.time(), UTC)).replace(minute=0)
    half_life = getattr(SCORE.half_life_days, window)

    def decay(moment: datetime) -> float:
        return 2.0 ** (-max((end - moment.replace(minute=0)).total_seconds() / 86400, 0) / half_life)

    def over(day: str) -> datetime:
        return datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(1)

    def inside(text: str) -> bool:
        return first.isoformat() <= text[:10] <= last.isoformat()

    found = []
    for number, paper in enumerate(papers, 1):
        liked = [decay(datetime.fromisoformat(t)) for (_, n), t in votes.items() if n == number and inside(t)]
        listed = [
            math.log2(1 + u) * decay(over(d)) for (n, _, d), u in lists.items() if n == number and inside(d)
        ]
        judged = [decay(datetime.fromisoformat(t)) for n, t in sets if n == number and inside(t)]
        new = [decay(over(paper.published))] if inside(paper.published) else []
        if (liked or listed or judged or new) and not paper.hidden and keep(paper):
            score = SCORE.vote * sum(liked) + SCORE.upvote * max(listed, default=0)
            score += SCORE.verdict * math.log2(1 + sum(judged)) + SCORE.fresh * sum(new)
            found.append((score, paper.published, number, paper.key))
    return [(key, score) for score, _, _, key in sorted(found, reverse=True)]


@pytest.mark.parametrize("window", list(DAYS))
@pytest.mark.parametrize("last", [date(2025, 3, 31), date(2025, 3, 20), date(2025, 2, 10)])
def test_the_score_is_its_formula(filled: Any, window: WindowName, last: date) -> None:
    ranking = rank(filled[0], SCORE, window=window, day=last, now=NOW, limit=100)
    wanted = expected(filled, window, last)
    assert [paper.listing.key for paper in ranking.papers] == [key for key, _ in wanted]
    assert [paper.score for paper in ranking.papers] == pytest.approx([score for _, score in wanted])
    assert ranking.total == len(wanted) > 0
    assert not any(paper.listing.hidden for paper in ranking.papers)


@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        ({"group": "vision"}, lambda paper: paper.group_name == "vision"),
        ({"topic": "pruning"}, lambda paper: "pruning" in paper.topics),
        ({"topic": "cs.CL"}, lambda paper: "cs.CL" in paper.categories),
        (
            {"topic": "cs.CL", "group": "vision"},
            lambda p: "cs.CL" in p.categories and p.group_name == "vision",
        ),
        ({"topic": "nothing"}, lambda paper: False),
    ],
)
def test_filters_leave_exactly_theirs(filled: Any, filters: dict[str, str], keep: Any) -> None:
    ranking = rank(filled[0], SCORE, window="month", now=NOW, limit=100, **filters)
    wanted = expected(filled, "month", NOW.date(), keep)
    assert [(p.listing.key, pytest.approx(p.score)) for p in ranking.papers] == wanted


def test_pages_tile_the_ranking(filled: Any) -> None:
    whole = rank(filled[0], SCORE, window="month", now=NOW, limit=100).papers
    pages = [
        rank(filled[0], SCORE, window="month", now=NOW, offset=at, limit=7).papers for at in range(0, 77, 7)
    ]
    assert [paper for page in pages for paper in page] == whole


@pytest.mark.parametrize("filters", [{}, {"group": "vision"}, {"topic": "cs.LG"}])
@pytest.mark.parametrize("window", list(DAYS))
def test_walking_back_and_forth_meets_every_day_with_papers(
    filled: Any, window: WindowName, filters: dict[str, str]
) -> None:
    store, papers, *_ = filled
    days = {
        p.published
        for p in papers
        if not p.hidden
        and filters.get("group") in (None, p.group_name)
        and filters.get("topic") in (None, *p.categories)
    }

    def walk(start: date, towards: str) -> list[tuple[date, date]]:
        spans, at = [], start
        while True:
            ranking = rank(store, SCORE, window=window, day=at, now=NOW, **filters)
            spans.append((ranking.first, ranking.last))
            following = getattr(ranking, towards)
            if following is None:
                return spans
            assert (following < at) == (towards == "previous")
            at = following

    for spans in (walk(NOW.date(), "previous"), walk(date.fromisoformat(min(days)), "next")):
        met = {day for day in days if any(a <= date.fromisoformat(day) <= b for a, b in spans)}
        assert met == days


def test_with_nothing_else_the_newest_come_first(tmp_path: Path) -> None:
    with PageStore(tmp_path / "p.sqlite") as store:
        store.put(
            [
                listing(1, "2025-03-29"),
                listing(2, "2025-03-31"),
                listing(3, "2025-03-30"),
                listing(4, "2025-03-31"),
            ]
        )
        ranking = rank(store, ScoreSettings(), window="week", now=NOW)
        assert [p.listing.key for p in ranking.papers] == ["arxiv:4", "arxiv:2", "arxiv:3", "arxiv:1"]


def test_an_empty_store_has_an_empty_page(tmp_path: Path) -> None:
    with PageStore(tmp_path / "p.sqlite") as store:
        ranking = rank(store, ScoreSettings(), now=NOW)
        assert (ranking.papers, ranking.total, ranking.previous, ranking.next) == ([], 0, None, None)


def test_windows_have_names() -> None:
    with pytest.raises(UserError, match=r'--trending: no window "weak"; did you mean "week"'):
        find_window("--trending", "weak")
