"""A leaderboard: every arm measured on one task, quality against cost, with the Pareto front."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.requests import Request

from claimbench.report import number
from claimbench.web.answers import Missing, Page, choice, drawing, whole
from claimbench.web.board import Board
from claimbench.web.cards import claim_path, paper_path, shortened
from claimbench.web.frontier import frontier_plot
from claimbench.web.pages.home import Link
from claimbench.web.pages.paper import machine_name
from claimbench.web.site import Site
from claimbench.web.tasks import Line, Task, lines, point_words, tasks


@dataclass(frozen=True)
class Row:
    """An arm as the table shows it."""

    line: Line
    quality: str
    cost: str


@dataclass(frozen=True)
class LeaderboardView:
    """The choices are links, so that each view of the task has an address of its own."""

    name: str
    path: str
    paper: str
    paper_path: str
    title: str
    settings: list[Link]  # scale and machine
    points: list[Link]
    qualities: list[Link]
    costs: list[Link]
    point: str
    quality: str
    cost: str
    better: str
    rows: list[Row]
    plot: Markup
    claims: list[Link]
    machine: str
    machine_path: str
    stale: bool


@dataclass(frozen=True)
class TaskLine:
    path: str
    name: str
    title: str
    arms: list[str]
    points: int
    qualities: list[str]
    costs: list[str]
    scales: list[str]


@dataclass(frozen=True)
class LeaderboardsView:
    tasks: list[TaskLine]


def leaderboard_view(
    board: Board, found: list[Task], *, setting: int, point: int, quality: str, cost: str
) -> LeaderboardView:
    """found: the task's settings. setting and point are counted from 1."""
    task = found[setting - 1]
    chosen = {"setting": setting, "point": point, "quality": quality, "cost": cost}

    def links(name: str, choices: list[tuple[str, int | str]]) -> list[Link]:
        return [
            Link(words, f"{task.path}?{urlencode({**chosen, name: value})}", value == chosen[name])
            for words, value in choices
        ]

    arms = lines(board, task, task.points[point - 1], quality, cost)
    words = [metric_words(task, name) for name in (quality, cost)]
    first = task.sets[-1]
    return LeaderboardView(
        name=task.name,
        path=task.path,
        paper=task.paper,
        paper_path=paper_path(task.paper),
        title=board.entries[task.paper].title,
        settings=[
            Link(link.label, f"{task.path}?setting={i}", i == setting)
            for i, link in enumerate([_setting(t) for t in found], 1)
        ],
        points=links("point", [(point_words(p), i) for i, p in enumerate(task.points, 1)]),
        qualities=links("quality", [(metric_words(task, name), name) for name in task.quality]),
        costs=links("cost", [(metric_words(task, name), name) for name in task.cost]),
        point=point_words(task.points[point - 1]),
        quality=words[0],
        cost=words[1],
        better=str(task.metrics[quality].better),
        rows=[
            Row(
                line,
                _spread(line.quality, line.quality_low, line.quality_high),
                _spread(line.cost, line.cost_low, line.cost_high),
            )
            for line in arms
        ],
        plot=_plot(task, arms, words, point_words(task.points[point - 1]), quality),
        claims=[Link(b.row.claim, claim_path(b.row.paper, b.row.claim)) for b in task.sets],
        machine=machine_name(first),
        machine_path=f"/machine/{quote(task.machine)}",
        stale=any(board.row(brief).stale for brief in task.sets),
    )


def _plot(task: Task, arms: list[Line], words: list[str], point: str, quality: str) -> Markup:
    if not arms:
        return Markup("")
    higher = task.metrics[quality].better == "higher"
    return drawing(
        frontier_plot(arms, title=f"{task.name}, {point}", quality=words[0], cost=words[1], higher=higher)
    )


def _setting(task: Task) -> Link:
    return Link(f"{task.scale}, {machine_name(task.sets[-1])}", task.path)


def _spread(middle: float, low: float, high: float) -> str:
    return number(middle) + ("" if low == high else f" ({number(low)} to {number(high)})")


def metric_words(task: Task, name: str) -> str:
    metric = task.metrics[name]
    return (metric.label or name) + (f", {metric.unit}" if metric.unit else "")


def leaderboards_view(board: Board) -> LeaderboardsView:
    grouped: dict[str, list[Task]] = {}
    for task in tasks(board):
        grouped.setdefault(task.path, []).append(task)
    made = []
    for path, found in grouped.items():
        task = found[0]
        arms = dict.fromkeys(arm for brief in task.sets for arm in brief.row.plan["arms"])
        made.append(
            TaskLine(
                path=path,
                name=task.name,
                title=board.entries[task.paper].title,
                arms=list(arms),
                points=len(task.points),
                qualities=[metric_words(task, name) for name in task.quality],
                costs=[metric_words(task, name) for name in task.cost],
                scales=list(dict.fromkeys(t.scale for t in found)),
            )
        )
    return LeaderboardsView(made)


def handle(site: Site, request: Request) -> LeaderboardView:
    board = site.board()
    paper, measure = request.path_params["paper"], request.path_params["measure"]
    found = [task for task in tasks(board) if (task.paper, task.measure) == (paper, measure)]
    if not found:
        raise Missing(f"There is no leaderboard {shortened(f'{paper}/{measure}', 120)} here.")
    setting = whole(request, "setting", 1, len(found))
    task = found[setting - 1]
    return leaderboard_view(
        board,
        found,
        setting=setting,
        point=whole(request, "point", len(task.points), len(task.points)),
        quality=choice(request, "quality", list(task.quality)),
        cost=choice(request, "cost", list(task.cost)),
    )


def handle_all(site: Site, request: Request) -> LeaderboardsView:
    return leaderboards_view(site.board())


PAGE = Page("/leaderboard/{paper}/{measure}", "page/leaderboard.html", handle)
ALL = Page("/leaderboards", "page/leaderboards.html", handle_all)
