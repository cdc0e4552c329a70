"""Plots as XML: coordinates follow the data, every cell is there, names are escaped, colours can be read."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimbench.plots import Curve, Interval, curve_plot, interval_plot, stylesheet
from claimbench.plots.axes import is_geometric, labelled, spanning, spans_decades, tick_label, ticks
from claimbench.plots.drawing import COLOURS, DARK, DASHES, LIGHT, MARKERS, WIDTH, text_width

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert('1')</script> & \"quoted\" \x00\x1b ]]> 漢字"


def parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def having(root: ET.Element, cls: str) -> list[ET.Element]:
    return [e for e in root.iter() if cls in (e.get("class") or "").split()]


def words(root: ET.Element) -> str:
    return " ".join(e.text or "" for e in root.iter(f"{SVG}text"))


def places(element: ET.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in (element.get("points") or "").split()]  # type: ignore[misc]  # two each


def curve(name: str, values: list[float], x: list[float] | None = None, place: int = 0) -> Curve:
    xs = x or [2.0**i for i in range(len(values))]
    return Curve(name, xs, values, [v * 0.9 for v in values], [v * 1.1 for v in values], place)


# --- axes ---

numbers = st.floats(-1e9, 1e9).filter(lambda v: v == 0 or abs(v) > 1e-9)


@given(st.lists(numbers, min_size=2, max_size=8), st.booleans())
def test_an_axis_is_monotone_and_holds_its_values(values: list[float], log: bool) -> None:
    usable = sorted({abs(v) if log else v for v in values} - ({0.0} if log else set()))
    axis = spanning(usable, 0.0, 100.0, log=log)
    found = [axis(v) for v in usable]
    assert all(-1e-6 <= at <= 100 + 1e-6 for at in found)
    assert found == sorted(found)


@given(numbers, st.floats(1e-6, 1e6), st.booleans())
def test_ticks_rise_lie_on_the_axis_and_have_different_words(low: float, width: float, log: bool) -> None:
    axis = spanning(
        [abs(low) + 1e-3, (abs(low) + 1e-3) * (1 + width)] if log else [low, low + width], 0, 1, log=log
    )
    found = labelled(axis)
    values = [value for value, _ in found]
    slack = 1e-9 * (axis.high - axis.low)
    assert values == sorted(set(values))
    assert all(axis.low - slack <= value <= axis.high + slack for value in values)
    if width > 1e-3 * abs(low):  # else six digits cannot tell them apart
        assert len({text for _, text in found}) == len(found)


def test_ticks_are_round() -> None:
    assert ticks(spanning([0, 100], 0, 1, room=0)) == [0, 20, 40, 60, 80, 100]
    assert ticks(spanning([1, 1e6], 0, 1, log=True, room=0)) == [1, 100, 1e4, 1e6]
    assert [tick_label(v) for v in (0, 4096, 0.25, 1e9, 2.5e-7, -3)] == [
        "0",
        "4096",
        "0.25",
        "10⁹",
        "2.5·10⁻⁷",
        "−3",
    ]
    assert [text for _, text in labelled(spanning([0, 1], 0, 1, room=0), 4)] == [
        "0",
        "0.25",
        "0.50",
        "0.75",
        "1.00",
    ]


def test_log_axes_only_where_positive_values_span_decades() -> None:
    assert spans_decades([1e-3, 1.0])
    assert not spans_decades([0.0, 1000.0])
    assert not spans_decades([1.0, 10.0])
    assert is_geometric([64, 256, 1024])
    assert not is_geometric([1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert not is_geometric([0, 10, 100])


# --- intervals ---


def row(
    label: str, estimate: float, low: float, high: float, state: str = "holds", **more: float
) -> Interval:
    return Interval(label, f"{estimate:.3g} [{low:.3g}, {high:.3g}]", estimate, low, high, state, **more)


@pytest.mark.parametrize("log", [False, True])
def test_intervals_stand_where_their_numbers_say(log: bool) -> None:
    values = [0.5, 0.7, 1.3, 2.9, 40.0]
    rows = [row(f"cell {i}", v, v * 0.8, v * 1.25) for i, v in enumerate(values)]
    root = parsed(interval_plot(rows, title="t", at_least=1.0, log=log))
    marks = [m for m in having(root, "mark") if m.get("data-value")]
    assert [float(m.get("data-value", "")) for m in marks] == values
    at = [float(m.get("cx", "")) for m in marks]
    assert at == sorted(at)
    bound = float(having(root, "bound")[0].get("x1", ""))
    assert [x >= bound for x in at] == [v >= 1.0 for v in values]
    for mark, extent in zip(marks, having(root, "extent"), strict=True):
        assert float(extent.get("x1", "")) < float(mark.get("cx", "")) < float(extent.get("x2", ""))
    if log:  # equal factors are equal lengths
        lengths = [float(e.get("x2", "")) - float(e.get("x1", "")) for e in having(root, "extent")]
        assert max(lengths) - min(lengths) <= 0.02  # coordinates have two decimals
    meets = having(root, "meets")[0]
    assert float(meets.get("x", "")) == pytest.approx(bound, abs=0.01)


def test_every_cell_is_there_with_its_words_and_its_own_mark() -> None:
    rows = [
        row("inside", 1.0, 0.9, 1.1, "holds", paper=1.05),
        row("beyond", 0.2, 0.1, 0.3, "outside"),
        row("open", 0.5, -math.inf, math.inf, "unclear"),
        Interval("nothing", "no number", math.nan, math.nan, math.nan, "unjudged"),
    ]
    root = parsed(interval_plot(rows, title="four cells", at_least=0.5, at_most=1.5, axis="difference"))
    for interval in rows:
        assert interval.label in words(root)
        assert interval.value in words(root)
        assert interval.value in (root.findtext(f"{SVG}desc") or "")
    assert len(having(root, "paper")) == 2  # in its row and in the legend
    assert len(having(root, "unbounded")) == 2
    shapes = {m.get("d", "circle").count("L") for m in having(root, "mark") if m.get("data-value")}
    assert len(shapes) == 2, "states differ by shape, not by colour alone"
    for word in (
        "holds",
        "outside the bound",
        "unclear",
        "not judged",
        "the paper's figure",
        "at least 0.5",
        "at most 1.5",
    ):
        assert word in words(root)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("one", 1.0, 1.0, 1.0)],
        [row("zero", 0.0, 0.0, 0.0)],
        [row("negative on a log axis", -1.0, -2.0, 3.0)],
        [row("huge", 1e300, 1e-300, math.inf)],
        [Interval("none", "no number", math.nan, math.nan, math.nan, "unjudged")],
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_degenerate_intervals_are_drawn(rows: list[Interval], log: bool) -> None:
    root = parsed(interval_plot(rows, title="t", log=log, sure=0.0 if not log else None))
    assert "nan" not in ET.tostring(root, encoding="unicode").replace("no number", "")


def test_nothing_stands_outside_the_picture() -> None:
    rows = [
        row("against a baseline with a rather long name at n=4096, mode=bidirectional " * 2, 1, 0.5, 2)
    ] * 3
    root = parsed(interval_plot(rows, title="t", at_least=0.1))
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for text in root.iter(f"{SVG}text"):
        x, half = float(text.get("x", "")), text_width(text.text or "", 11.5)
        cls = (text.get("class") or "").split()
        left = x - (half if "end" in cls else half / 2 if "middle" in cls else 0)
        assert left >= -0.05 * width
        assert 0 <= float(text.get("y", "")) <= height


# --- curves ---


def test_curves_follow_the_data() -> None:
    falling = [900.0, 90.0, 9.0, 0.9]
    root = parsed(curve_plot([curve("method", falling)], title="t", along="n", metric="error"))
    (line,) = having(root, "line")[:1]
    points = places(line)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # falling data: y grows downwards
    steps = [b[1] - a[1] for a, b in itertools.pairwise(points)]
    assert max(steps) - min(steps) <= 0.03, "a geometric fall is a straight line on log axes"
    assert "log scale" in words(root)
    (band,) = having(root, "band")
    edge = places(band)
    upper, lower = edge[: len(points)], edge[len(points) :][::-1]
    for (_, high), (_, middle), (_, low) in zip(upper, points, lower, strict=True):
        assert high < middle < low


def test_the_sweeps_order_in_the_file_does_not_matter() -> None:
    one = curve("m", [1.0, 4.0, 2.0], [10.0, 20.0, 30.0])
    two = Curve("m", [30.0, 10.0, 20.0], [2.0, 1.0, 4.0], [1.8, 0.9, 3.6], [2.2, 1.1, 4.4])
    lines = [having(parsed(curve_plot([c], title="t", along="n", metric="m")), "line")[0] for c in (one, two)]
    assert lines[0].get("points") == lines[1].get("points")


def test_a_gap_in_the_numbers_is_a_gap_in_the_line() -> None:
    root = parsed(curve_plot([curve("m", [1.0, 2.0, math.nan, 3.0, 4.0])], title="t", along="n", metric="m"))
    drawn = [e for e in having(root, "line") if e.tag == f"{SVG}polyline"]
    assert [len(places(e)) for e in drawn] == [2, 2]


def test_words_are_not_joined_by_lines() -> None:
    c = Curve("m", ["relu", "tanh"], [1.0, 2.0], [0.9, 1.8], [1.1, 2.2])
    root = parsed(curve_plot([c], title="t", along="activation", metric="m"))
    assert not list(root.iter(f"{SVG}polyline"))
    assert len(having(root, "whisker")) == 2
    assert "relu" in words(root)


def outline(mark: ET.Element) -> tuple[float, ...]:
    """A mark's corners about its middle; nothing for a circle."""
    values = [float(v) for v in re.findall(r"-?[\d.]+", mark.get("d", ""))]
    xs, ys = values[::2], values[1::2]
    across = [round(x - (min(xs) + max(xs)) / 2, 1) for x in xs]
    return (*across, *(round(y - (min(ys) + max(ys)) / 2, 1) for y in ys))


def test_arms_differ_without_colour() -> None:
    curves = [curve(f"arm {i}", [1.0 + i, 2.0 + i, 3.0 + i], place=i) for i in range(16)]
    root = parsed(curve_plot(curves, title="t", along="n", metric="m"))
    looks = {}
    for name in (c.name for c in curves):
        marks = [m for m in root.iter() if m.get("data-arm") == name]
        assert len(marks) == 3
        looks[name] = (outline(marks[0]), "open" in (marks[0].get("class") or "").split())
    dashes = [e.get("stroke-dasharray", "") for e in root.iter(f"{SVG}polyline")]
    assert len({(look, dash) for look, dash in zip(looks.values(), reversed(dashes), strict=True)}) == 16
    assert len(set(MARKERS)) == len(set(DASHES)) == COLOURS


def test_plots_of_one_metric_share_their_axis() -> None:
    small, large = curve("m", [1.0, 2.0]), curve("m", [100.0, 200.0])
    beside = [*small.low, *small.high, *large.low, *large.high]
    roots = [parsed(curve_plot([c], title="t", along="n", metric="m", beside=beside)) for c in (small, large)]
    assert len({tuple(t.text for t in having(r, "end")) for r in roots}) == 1


# --- what holds for both ---


def hostile_plots() -> list[str]:
    interval = interval_plot([row(HOSTILE, 1.0, 0.5, 2.0)], title=HOSTILE, axis=HOSTILE)
    return [interval, curve_plot([curve(HOSTILE, [1.0, 2.0])], title=HOSTILE, along=HOSTILE, metric=HOSTILE)]


def test_hostile_names_are_words() -> None:
    for svg in hostile_plots():
        root = parsed(svg)
        assert not [e for e in root.iter() if e.tag.endswith("script")]
        assert "<script" not in svg
        shown = re.sub(r"\s", "", words(root))
        assert re.sub(r"\s", "", "alert('1')</script>&\"quoted\"") in shown


def test_plots_name_themselves_for_those_who_do_not_see_them() -> None:
    plots = [parsed(svg) for svg in hostile_plots()]
    identities = []
    for root in plots:
        assert root.get("role") == "img"
        named = (root.get("aria-labelledby") or "").split()
        found = {e.get("id"): e.text for e in root if e.tag in (f"{SVG}title", f"{SVG}desc")}
        assert set(named) == set(found)
        assert all(found.values())
        identities += named
    assert len(set(identities)) == 4


def test_a_standalone_plot_brings_its_style() -> None:
    svg = interval_plot([row("a", 1.0, 0.5, 2.0)], title="t", standalone=True)
    assert "prefers-color-scheme: dark" in svg
    assert "<style" not in interval_plot([row("a", 1.0, 0.5, 2.0)], title="t")
    parsed(svg)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio"."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_read(palette: dict[str, str]) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    for name, colour in palette.items():
        if name in ("ink", "quiet", "link", "holds", "fails", "undecided") or name.startswith("arm-"):
            grounds = (
                ("page", "panel", "meets")
                if name in ("ink", "holds", "fails", "undecided", "quiet")
                else ("page",)
            )
            for ground in grounds:
                assert contrast(colour, palette[ground]) >= 4.5, (name, ground)


def test_every_class_that_is_used_has_its_variable_in_both_schemes() -> None:
    assert LIGHT.keys() == DARK.keys()
    css = stylesheet()
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", css))
    assert used <= LIGHT.keys()
    defined = set(re.findall(r"\.(?:stroke|fill)-([a-z0-9-]+)", css))
    assert {f"arm-{i}" for i in range(COLOURS)} <= defined
    for svg in hostile_plots():
        for cls in re.findall(r'class="([^"]*)"', svg):
            for name in re.findall(r"(?:stroke|fill)-([a-z0-9-]+)", cls):
                assert name in defined


def test_the_picture_fits_a_phone() -> None:
    assert WIDTH <= 440, "a wider picture has words too small to read at 360 pixels"
