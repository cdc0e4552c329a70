"""Sweeps as curves: a line for each arm through its middle over seeds, with a band from lowest to highest seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from claimbench.plots.axes import Axis, is_geometric, labelled, spanning, spans_decades, tick_label
from claimbench.plots.drawing import COLOURS, DASHES, MARKERS, WIDTH, Canvas, printable, text_width, wrapped

HEIGHT = 210.0  # of the plotting area
LINE = 16.0

Position = int | float | str | bool


@dataclass(frozen=True)
class Curve:
    """One arm. x: the sweep's values, in its order; middle, low, high: as many; NaN where nothing was measured."""

    name: str
    x: Sequence[Position]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    place: int = 0  # which of the claim's arms it is (0: the method): decides colour, marker and dash


def curve_plot(
    curves: Sequence[Curve],
    *,
    title: str,
    along: str,
    metric: str,
    beside: Sequence[float] = (),
    standalone: bool = False,
) -> str:
    """SVG of one metric along one sweep variable. Words on the horizontal axis stand evenly and are not joined.

    beside: values that the vertical axis holds too, so that several plots of a metric share it.
    """
    values = [*beside, *(v for c in curves for vs in (c.middle, c.low, c.high) for v in vs)]
    values = [v for v in values if math.isfinite(v)]
    log = spans_decades(values)
    across, marks, ordered = _across([x for c in curves for x in c.x])
    canvas = Canvas("curves", title, describe_curves(curves, along, metric))
    y = 4.0
    for line in wrapped(metric + (" (log scale)" if log else ""), WIDTH - 8.0, 11.5):
        y += 14.0
        canvas.text(4.0, y, line, "small")
    top, bottom = y + 10.0, y + 10.0 + HEIGHT
    up = spanning(values, bottom, top, log=log)
    rows = labelled(up)
    left = 12.0 + max((text_width(words, 11.5) for _, words in rows), default=20.0)
    for value, words in rows:
        canvas.line(left, up(value), WIDTH - 6.0, up(value), "grid")
        canvas.text(left - 6.0, up(value) + 4.0, words, "small end tick")
    across = Axis(across.low, across.high, left + 8.0, WIDTH - 14.0, across.log)
    _horizontal(canvas, across, marks, bottom)
    for curve in reversed(curves):  # the method is drawn last, above the others
        _curve(canvas, curve, across, up, {value: at for value, at, _ in marks}, ordered)
    canvas.text(
        (left + WIDTH) / 2, bottom + 34.0, along + (" (log scale)" if across.log else ""), "small middle"
    )
    entries: list[tuple[str, str, bool, str | None, str]] = [
        (
            MARKERS[c.place % len(MARKERS)],
            f"arm-{c.place % COLOURS}",
            _filled(c),
            _dash(c) if ordered else None,
            c.name,
        )
        for c in curves
    ]
    canvas.height = canvas.legend(entries, bottom + 44.0) + 2.0
    return canvas.render(standalone=standalone)


def describe_curves(curves: Sequence[Curve], along: str, metric: str) -> str:
    """The plot in words, for readers who do not see it."""
    told = []
    for curve in curves:
        points = ", ".join(
            f"{m:.4g} ({low:.4g} to {high:.4g}) at {x}" if math.isfinite(m) else f"nothing at {x}"
            for x, m, low, high in zip(curve.x, curve.middle, curve.low, curve.high, strict=True)
        )
        told.append(f"{curve.name}: {points}")
    return f"{metric} along {along}, with the lowest and the highest seed. " + "; ".join(told) + "."


Mark = tuple[Position, float, str]  # a value of the sweep, where it stands on the axis, its words


def _across(found: Sequence[Position]) -> tuple[Axis, list[Mark], bool]:
    """The horizontal axis, its marks, and whether its values are numbers, so that lines may join them."""
    distinct = list(dict.fromkeys(found))
    if all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in distinct):
        numbers = sorted(float(x) for x in distinct)
        axis = spanning(numbers, 0.0, 1.0, log=is_geometric(numbers), room=0.03)
        return axis, [(x, x, tick_label(x)) for x in numbers], True
    return (
        Axis(-0.5, len(distinct) - 0.5, 0.0, 1.0),
        [(x, float(i), str(x)) for i, x in enumerate(distinct)],
        False,
    )


def _horizontal(canvas: Canvas, across: Axis, marks: Sequence[Mark], bottom: float) -> None:
    """The sweep's own values are the ticks; words that would touch are left out."""
    free = -math.inf
    room = (across.end - across.start) / max(len(marks), 1)
    for value, at, words in marks:
        x = across(at)
        canvas.line(x, bottom, x, bottom + 4.0, "grid")
        if isinstance(value, str | bool):
            words = words if text_width(words, 11.5) <= room else words[: max(2, int(room / 7.5))] + "…"
        half = text_width(words, 11.5) / 2
        if x - half > free:
            canvas.text(x, bottom + 17.0, words, "small middle tick")
            free = x + half + 3.0
    canvas.line(across.start - 8.0, bottom, across.end + 8.0, bottom, "grid")


def _filled(curve: Curve) -> bool:
    return curve.place < len(MARKERS)


def _dash(curve: Curve) -> str:
    return DASHES[(curve.place + curve.place // COLOURS) % len(DASHES)]


def _curve(
    canvas: Canvas, curve: Curve, across: Axis, up: Axis, places: dict[Position, float], ordered: bool
) -> None:
    colour = f"arm-{curve.place % COLOURS}"
    shift = 0.0 if ordered else 7.0 * (curve.place % 5 - 2)  # words: arms side by side, not above each other
    rows = list(zip([places[x] for x in curve.x], curve.middle, curve.low, curve.high, strict=True))
    if ordered:
        rows.sort(key=lambda row: row[0])
    runs: list[list[tuple[float, float, float, float]]] = [[]]  # a gap in the numbers is a gap in the line
    for at, middle, low, high in rows:
        if all(map(math.isfinite, (middle, low, high))):
            runs[-1].append((across(at) + shift, up(middle), up(low), up(high)))
        else:
            runs.append([])
    for run in runs:
        if ordered and len(run) > 1:
            edge = [(x, high) for x, _, _, high in run] + [(x, low) for x, _, low, _ in reversed(run)]
            canvas.add("polygon", f"band fill-{colour}", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in edge))
            path = " ".join(f"{x:.2f},{y:.2f}" for x, y, _, _ in run)
            method = " method" if curve.place == 0 else ""
            line = canvas.add("polyline", f"line stroke-{colour}{method}", points=path)
            if dash := _dash(curve):
                line.set("stroke-dasharray", dash)
        else:
            for x, _, low, high in run:
                canvas.line(x, low, x, high, f"line stroke-{colour} whisker")
    for x, y, _, _ in (point for run in runs for point in run):
        shape = MARKERS[curve.place % len(MARKERS)]
        canvas.marker(shape, x, y, colour, filled=_filled(curve), size=4.0).set(
            "data-arm", printable(curve.name)
        )
