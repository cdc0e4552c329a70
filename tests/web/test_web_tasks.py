"""Leaderboards: which metrics are costs, who stands on the front, and that machines never mix."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from served import Served

from claimbench.paper import Metric
from claimbench.report import report
from claimbench.summaries import summarise
from claimbench.web.tasks import is_cost, lines, pareto, tasks

values = st.integers(-3, 3).map(float)


@given(st.lists(st.tuples(values, values), max_size=12))
def test_the_front_is_what_nobody_beats(found: list[tuple[float, float]]) -> None:
    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] >= b[0] and a[1] <= b[1] and a != b

    expected = {place for place, one in enumerate(found) if not any(beats(other, one) for other in found)}
    assert pareto(found) == expected


def test_what_is_spent_is_a_cost_and_nothing_else() -> None:
    def metric(unit: str = "", kind: str = "mean", better: str = "lower") -> Metric:
        return Metric.model_validate({"kind": kind, "unit": unit, "better": better})

    assert is_cost("seconds", metric("s", "time"))
    assert is_cost("state_bytes", metric("bytes", "exact"))
    assert is_cost("flops_blocks", metric("FLOPs", "exact"))
    assert is_cost("peak", metric("MiB"))
    assert not is_cost("kl", metric("nats a token"))
    assert not is_cost("perplexity", metric())
    assert not is_cost("tokens_recalled", metric("tokens", better="higher"))


def test_an_arm_stands_with_the_numbers_of_the_report(published: Served) -> None:
    board = published.app.site.board()
    (task,) = [task for task in tasks(board) if task.name == "s4/kernel-cost"]
    (row,) = report("s4/kernel-cost", ledger=published.ledger, shelf=published.shelf)
    cells = summarise(row.claim, row.set.plan, row.judged)
    for point, cost in itertools.product(task.points, task.cost):
        found = lines(board, task, point, "error", cost)
        assert {line.arm for line in found} == set(row.set.plan["arms"])
        for line in found:
            (cell,) = [c for c in cells if (c.arm, c.point, c.metric) == (line.arm, point, cost)]
            assert (line.cost, line.cost_low, line.cost_high) == (cell.middle, cell.low, cell.high)
        assert [line.quality for line in found] == sorted(
            line.quality for line in found
        )  # an error: lower is better
        assert any(line.front for line in found)


def test_the_page_draws_every_arm_and_the_front(published: Served) -> None:
    text = published.get("/leaderboard/s4/kernel-cost?point=4&cost=seconds&quality=error").text
    view = published.get("/leaderboard/s4/kernel-cost.json?point=4&cost=seconds&quality=error").json()
    start = text.index('<svg xmlns="http://www.w3.org/2000/svg" class="plot frontier"')
    svg = ET.fromstring(text[start : text.index("</svg>", start) + 6])
    arms = [element.attrib["data-arm"] for element in svg.iter() if "data-arm" in element.attrib]
    assert sorted(arms) == sorted(row["line"]["arm"] for row in view["rows"])
    front = [row for row in view["rows"] if row["line"]["front"]]
    drawn = [element for element in svg.iter() if "front" in element.attrib.get("class", "").split()]
    assert len(drawn) == (len(front) > 1)
    assert len(view["settings"]) == 1
    assert len(view["points"]) == 6
