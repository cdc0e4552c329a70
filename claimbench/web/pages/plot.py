"""An interactive plot of one set: loads plotly from its wheel when it is asked for, under a policy of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request

from claimbench.plots.axes import is_geometric, spans_decades
from claimbench.plots.drawing import DARK, LIGHT
from claimbench.summaries import panels, summarise
from claimbench.web.answers import Missing, Page
from claimbench.web.board import Board, SetBrief
from claimbench.web.cards import claim_path
from claimbench.web.headers import PLOT_POLICY
from claimbench.web.site import Site


@dataclass(frozen=True)
class Series:
    """An arm: as many values in each list as the panel has points; None where there is no number."""

    name: str
    x: list[int | float | str | bool]
    y: list[float | None]
    above: list[float | None]  # from the middle to the highest seed
    below: list[float | None]


@dataclass(frozen=True)
class PlotPanel:
    title: str
    along: str
    metric: str
    log_x: bool
    log_y: bool
    series: list[Series]


@dataclass(frozen=True)
class PlotView:
    uid: str
    name: str
    path: str
    state: str
    sign: str
    available: bool  # whether plotly is installed
    panels: list[PlotPanel]
    light: list[str]  # colours of the arms
    dark: list[str]


def plot_view(board: Board, brief: SetBrief) -> PlotView:
    row = board.row(brief)
    cells = summarise(row.claim, row.set.plan, row.judged)
    found: list[PlotPanel] = []
    for name in dict.fromkeys(cell.metric for cell in cells):
        metric = row.claim.metrics[name]
        label = (metric.label or name) + (f", {metric.unit}" if metric.unit else "")
        at = {(c.arm, frozenset(c.point.items())): c for c in cells if c.metric == name}
        for panel in panels(row.claim, row.set.plan["points"]):
            x = [point[panel.along] for point in panel.points]
            series = []
            for arm in row.set.plan["arms"]:
                along = [at[(arm, frozenset(point.items()))] for point in panel.points]
                series.append(
                    Series(
                        arm,
                        x,
                        [_number(c.middle) for c in along],
                        [_number(c.high - c.middle) for c in along],
                        [_number(c.middle - c.low) for c in along],
                    )
                )
            numeric = [float(v) for v in x if isinstance(v, int | float) and not isinstance(v, bool)]
            values = [value for one in series for value in one.y if value is not None]
            rest = ", ".join(f"{k}={v}" for k, v in panel.rest.items())
            found.append(
                PlotPanel(
                    title=f"{label} along {panel.along}" + (f", {rest}" if rest else ""),
                    along=panel.along,
                    metric=label,
                    log_x=len(numeric) == len(x) and is_geometric(numeric),
                    log_y=spans_decades(values),
                    series=series,
                )
            )
    arms = [f"arm-{n}" for n in range(8)]
    return PlotView(
        uid=brief.row.uid,
        name=f"{row.paper.id}/{row.claim.id}",
        path=claim_path(row.paper.id, row.claim.id),
        state=brief.state,
        sign=brief.sign,
        available=library() is not None,
        panels=found,
        light=[LIGHT[name] for name in arms],
        dark=[DARK[name] for name in arms],
    )


def _number(value: float) -> float | None:
    return value if value - value == 0 else None


@cache
def library() -> Path | None:
    """plotly's script in its wheel."""
    found = find_spec("plotly")
    folders = found.submodule_search_locations if found is not None else None
    path = Path(next(iter(folders)), "package_data", "plotly.min.js") if folders else None
    return path if path is not None and path.is_file() else None


def handle(site: Site, request: Request) -> PlotView:
    board = site.board()
    brief = board.find(request.path_params["uid"])
    if brief is None:
        raise Missing("There is no such set here.")
    return plot_view(board, brief)


PAGE = Page("/plot/{uid}", "page/plot.html", handle, headers={"content-security-policy": PLOT_POLICY})
