"""Quality against cost as SVG: a mark for each arm, its range over seeds, and the Pareto front as a line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from claimbench.plots.axes import Axis, labelled, spanning, spans_decades
from claimbench.plots.drawing import COLOURS, MARKERS, WIDTH, Canvas, printable, text_width, wrapped
from claimbench.web.tasks import Line

HEIGHT = 230.0  # of the plotting area


def frontier_plot(
    lines: Sequence[Line], *, title: str, quality: str, cost: str, higher: bool, standalone: bool = False
) -> str:
    """SVG. quality, cost: words of the axes. higher: whether more quality is a higher number; up is better always."""
    described = "; ".join(
        f"{line.arm}: {line.quality:.4g} at {line.cost:.4g}" + (", on the front" if line.front else "")
        for line in lines
    )
    canvas = Canvas("frontier", title, f"{quality} against {cost}. {described}.")
    log_cost = spans_decades([line.cost for line in lines])
    log_quality = spans_decades([line.quality for line in lines])
    y = 4.0
    words = (
        quality
        + (" (log scale)" if log_quality else "")
        + ("" if higher else " – lower is better, so the axis points down")
    )
    for text in wrapped(words, WIDTH - 8.0, 11.5):
        y += 14.0
        canvas.text(4.0, y, text, "small")
    top, bottom = y + 10.0, y + 10.0 + HEIGHT
    values = [v for line in lines for v in (line.quality_low, line.quality_high)]
    up = spanning(values, bottom if higher else top, top if higher else bottom, log=log_quality)
    rows = labelled(up)
    left = 12.0 + max((text_width(words, 11.5) for _, words in rows), default=20.0)
    across = spanning(
        [v for line in lines for v in (line.cost_low, line.cost_high)], left + 8.0, WIDTH - 14.0, log=log_cost
    )
    for value, words in rows:
        canvas.line(left, up(value), WIDTH - 6.0, up(value), "grid")
        canvas.text(left - 6.0, up(value) + 4.0, words, "small end tick")
    _ticks(canvas, across, bottom)
    front = sorted((line for line in lines if line.front), key=lambda line: line.cost)
    corners = [(across(line.cost), up(line.quality)) for line in front]
    if len(corners) > 1:
        steps = [
            corners[0],
            *(p for a, b in pairwise(corners) for p in ((b[0], a[1]), b)),
        ]
        canvas.add("polyline", "sure front", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in steps))
    for line in reversed(lines):
        _mark(canvas, line, across, up)
    canvas.text(
        (left + WIDTH) / 2, bottom + 34.0, cost + (" (log scale)" if across.log else ""), "small middle"
    )
    ordered = sorted(lines, key=lambda line: line.place)
    entries: list[tuple[str, str, bool, str | None, str]] = [
        (MARKERS[n % len(MARKERS)], f"arm-{n % COLOURS}", n < len(MARKERS), None, line.arm)
        for line in ordered
        for n in (line.place,)
    ]
    canvas.height = canvas.legend(entries, bottom + 44.0) + 2.0
    return canvas.render(standalone=standalone)


def _ticks(canvas: Canvas, across: Axis, bottom: float) -> None:
    free = -1.0
    for value, words in labelled(across):
        x, half = across(value), text_width(words, 11.5) / 2
        canvas.line(x, bottom, x, bottom + 4.0, "grid")
        if x - half > free and x + half <= WIDTH:
            canvas.text(x, bottom + 17.0, words, "small middle tick")
            free = x + half + 4.0
    canvas.line(across.start - 8.0, bottom, across.end + 8.0, bottom, "grid")


def _mark(canvas: Canvas, line: Line, across: Axis, up: Axis) -> None:
    colour = f"arm-{line.place % COLOURS}"
    x, y = across(line.cost), up(line.quality)
    canvas.line(across(line.cost_low), y, across(line.cost_high), y, f"line stroke-{colour} whisker")
    canvas.line(x, up(line.quality_low), x, up(line.quality_high), f"line stroke-{colour} whisker")
    shape = MARKERS[line.place % len(MARKERS)]
    canvas.marker(shape, x, y, colour, filled=line.place < len(MARKERS), size=5.0 if line.front else 4.0).set(
        "data-arm", printable(line.arm)
    )
