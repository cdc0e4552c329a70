"""Comparisons as intervals against their bound: one row a cell, as a forest plot shows studies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from claimbench.plots.axes import Axis, labelled, spanning, spans_decades
from claimbench.plots.drawing import STATE_CLASS, WIDTH, Canvas, marker_path, text_width, wrapped

LEFT, RIGHT = 14.0, WIDTH - 14.0
LINE = 16.0
COMPACT_SHARE = 0.6  # words may take this much of a line that they share with the interval
MARKS = {
    "holds": ("circle", True, "holds"),
    "outside": ("cross", True, "outside the bound"),
    "unclear": ("circle", False, "unclear"),
    "reported": ("diamond", True, "reported, not judged"),
    "unjudged": ("bar", True, "not judged"),
}


@dataclass(frozen=True)
class Interval:
    """One cell. An infinite end is drawn as an arrow; a NaN estimate leaves the row to its words."""

    label: str
    value: str  # estimate and interval in words
    estimate: float
    low: float
    high: float
    state: str  # holds, outside, unclear, reported, unjudged
    paper: float | None = None  # the paper's own figure, in the same unit


def interval_plot(
    intervals: Sequence[Interval],
    *,
    title: str,
    axis: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    sure: float | None = None,
    log: bool = False,
    standalone: bool = False,
) -> str:
    """SVG of the cells of one rule. axis: what the horizontal axis shows. log: the effect is judged on logarithms."""
    bounds = [b for b in (at_least, at_most, sure) if b is not None]
    numbers = [
        n
        for i in intervals
        for n in (i.estimate, i.low, i.high, i.paper)
        if n is not None and math.isfinite(n)
    ]
    log = log or spans_decades([*numbers, *bounds])
    log = log and any(n > 0 for n in [*numbers, *bounds])
    layout = _layout(intervals)
    across = spanning([*numbers, *bounds], layout.left, layout.right, log=log, room=0.07)
    canvas = Canvas("intervals", title, describe_intervals(intervals, at_least, at_most, sure))
    top = 10.0 + LINE * _bound_rows(at_least, at_most, sure)
    bottom = top + sum(layout.height(i) for i in intervals) + 4.0
    _ground(canvas, across, top, bottom, at_least, at_most)
    _ticks(canvas, across, top, bottom)
    _bounds(canvas, across, bottom, at_least, at_most, sure)
    y = top
    for interval in intervals:
        _row(canvas, across, interval, layout, y)
        y += layout.height(interval)
    bottom += 20.0
    if axis:
        for line in wrapped(axis + (" (log scale)" if log else ""), RIGHT - LEFT, 11.5):
            canvas.text((layout.left + layout.right) / 2, bottom + 12.0, line, "small middle")
            bottom += LINE
    canvas.height = canvas.legend(_legend(intervals), bottom + 6.0) + 2.0
    return canvas.render(standalone=standalone)


def describe_intervals(
    intervals: Sequence[Interval], at_least: float | None, at_most: float | None, sure: float | None
) -> str:
    """The plot in words, for readers who do not see it."""
    bound = bound_words(at_least, at_most, sure)
    rows = [
        f"{i.label}: {i.value}, {MARKS[i.state][2]}"
        + (f", paper {i.paper:.4g}" if i.paper is not None else "")
        for i in intervals
    ]
    return f"Bound: {bound or 'none'}. " + "; ".join(rows) + "."


def bound_words(at_least: float | None, at_most: float | None, sure: float | None) -> str:
    """`at least 0.5, surely beyond 0`; empty without a bound."""
    named = (("at least", at_least), ("at most", at_most), ("surely beyond", sure))
    return ", ".join(f"{word} {bound:.4g}" for word, bound in named if bound is not None)


def _bound_rows(*bounds: float | None) -> int:
    return sum(bound is not None for bound in bounds)


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a row stand: on one line where there is room, else below each other."""

    compact: bool
    left: float  # of the axis
    right: float

    def height(self, interval: Interval) -> float:
        if self.compact:
            return 23.0
        lines, beside = _row_lines(interval)
        return LINE * (len(lines) + (not beside)) + 24.0


def _layout(intervals: Sequence[Interval]) -> _Layout:
    labels = max((text_width(i.label) for i in intervals), default=0.0) + 12.0
    values = max((text_width(i.value) for i in intervals), default=0.0) + 14.0
    if labels + values <= COMPACT_SHARE * (RIGHT - LEFT):
        return _Layout(True, LEFT + labels, RIGHT - values)
    return _Layout(False, LEFT, RIGHT)


def _row_lines(interval: Interval) -> tuple[list[str], bool]:
    """The label's lines, and whether the value stands beside the last of them."""
    lines = wrapped(interval.label, RIGHT - LEFT)
    return lines, text_width(lines[-1]) + text_width(interval.value) + 12.0 <= RIGHT - LEFT


def _ground(
    canvas: Canvas, across: Axis, top: float, bottom: float, at_least: float | None, at_most: float | None
) -> None:
    """Shade where the bound is met."""
    if at_least is None and at_most is None:
        return
    start = across.start if at_least is None else across(at_least)
    end = across.end if at_most is None else across(at_most)
    canvas.add("rect", "meets", x=start, y=top, width=max(end - start, 0.0), height=bottom - top)


def _ticks(canvas: Canvas, across: Axis, top: float, bottom: float) -> None:
    free = -math.inf
    for value, words in labelled(across):
        x, half = across(value), text_width(words, 11.5) / 2
        canvas.line(x, top, x, bottom, "grid")
        if x - half > free and x - half >= 0 and x + half <= WIDTH:
            canvas.text(x, bottom + 14.0, words, "small middle tick")
            free = x + half + 4.0
    canvas.line(across.start, bottom, across.end, bottom, "grid")


def _bounds(
    canvas: Canvas,
    across: Axis,
    bottom: float,
    at_least: float | None,
    at_most: float | None,
    sure: float | None,
) -> None:
    named = (("at least", at_least, "bound"), ("at most", at_most, "bound"), ("surely beyond", sure, "sure"))
    row = 0
    for word, bound, cls in named:
        if bound is None:
            continue
        x, y = across(bound), 8.0 + LINE * row
        canvas.line(x, y, x, bottom, cls)
        words = f"{word} {bound:.4g}"
        if x + text_width(words, 11.5) + 6.0 <= WIDTH:
            canvas.text(x + 5.0, y + 8.0, words, "small")
        else:
            canvas.text(x - 5.0, y + 8.0, words, "small end")
        row += 1


def _row(canvas: Canvas, across: Axis, interval: Interval, layout: _Layout, top: float) -> None:
    """Label, value and interval of one cell, below `top`."""
    if layout.compact:
        y = top + 13.0
        canvas.text(LEFT, y + 4.3, interval.label)
        canvas.text(RIGHT, y + 4.3, interval.value, "end value")
    else:
        y = top
        lines, beside = _row_lines(interval)
        for line in lines:
            y += LINE
            canvas.text(LEFT, y, line, "over")
        y += 0.0 if beside else LINE
        canvas.text(RIGHT, y, interval.value, "end over value")
        y += 13.0
    _extent(canvas, across, interval, y)


def _extent(canvas: Canvas, across: Axis, interval: Interval, y: float) -> None:
    """The interval with its estimate, at height y, and the paper's figure above it."""
    colour = STATE_CLASS[interval.state]
    shape, filled, _ = MARKS[interval.state]

    def usable(value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not across.log)

    if interval.state != "unjudged" and not (math.isnan(interval.low) or math.isnan(interval.high)):
        x1 = across(interval.low) if usable(interval.low) else across.start
        x2 = across(interval.high) if usable(interval.high) else across.end
        if interval.high == math.inf or usable(interval.high):
            canvas.line(x1, y, x2, y, f"line stroke-{colour} extent")
            for end, x, inwards in ((interval.low, x1, 1.0), (interval.high, x2, -1.0)):
                if usable(end):
                    canvas.line(x, y - 4.5, x, y + 4.5, f"line stroke-{colour}")
                else:  # unbounded on this side
                    d = f"M{x + 6 * inwards:.2f} {y - 4.5:.2f} L{x:.2f} {y:.2f} L{x + 6 * inwards:.2f} {y + 4.5:.2f}"
                    canvas.add("path", f"line stroke-{colour} unbounded", d=d)
    if interval.paper is not None and usable(interval.paper):
        canvas.add("path", "paper", d=marker_path("down", across(interval.paper), y - 7.5, 4.6))
    if usable(interval.estimate) and interval.state != "unjudged":
        canvas.marker(shape, across(interval.estimate), y, colour, filled=filled, size=4.6).set(
            "data-value", repr(interval.estimate)
        )


def _legend(intervals: Sequence[Interval]) -> list[tuple[str, str, bool, str | None, str]]:
    used = [state for state in MARKS if any(i.state == state for i in intervals)]
    entries: list[tuple[str, str, bool, str | None, str]] = [
        (MARKS[s][0], STATE_CLASS[s], MARKS[s][1], None, MARKS[s][2]) for s in used
    ]
    if any(i.paper is not None for i in intervals):
        entries.append(("down", "paper", False, None, "the paper's figure"))
    return entries
