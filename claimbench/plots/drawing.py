"""What both kinds of plot are drawn with: an SVG canvas, markers and dashes, a legend, and the palette.

Series differ by colour, by marker and by dash, so that no reader needs the colour. Lines, markers and words keep a
contrast of at least 4.5 to 1 against the page in both schemes (WCAG 2.2, level AA for text, more than it asks of
graphics).
"""

from __future__ import annotations

import hashlib
import math
import re
import textwrap
from collections.abc import Sequence
from xml.etree import ElementTree as ET

WIDTH = 420.0  # user units; a page shows it at most a little larger and shrinks it on a phone
FONT = 12.5
NARROW = frozenset("iljtf.,:;|!'()[]/ ")
WIDE = frozenset("mwMW@%")

LIGHT = {
    "page": "#ffffff",
    "panel": "#f6f7f8",
    "ink": "#1c2126",
    "quiet": "#59626b",
    "rule": "#d5dade",
    "link": "#0b57a4",
    "holds": "#126b43",
    "fails": "#b3261e",
    "undecided": "#7d5800",
    "meets": "#dcefe5",
    "arm-0": "#1a5fad",
    "arm-1": "#b0420c",
    "arm-2": "#14704b",
    "arm-3": "#7a3f97",
    "arm-4": "#7d5d00",
    "arm-5": "#0c6f80",
    "arm-6": "#ad2865",
    "arm-7": "#545d67",
}
DARK = {
    "page": "#14171a",
    "panel": "#1d2125",
    "ink": "#e6e9ec",
    "quiet": "#a3adb6",
    "rule": "#3a4147",
    "link": "#86b9f2",
    "holds": "#72cfa0",
    "fails": "#f5918a",
    "undecided": "#e0bd62",
    "meets": "#1d3a2d",
    "arm-0": "#7fb5f0",
    "arm-1": "#f3a377",
    "arm-2": "#6fcfa0",
    "arm-3": "#cba4e8",
    "arm-4": "#dcc05c",
    "arm-5": "#69cbdc",
    "arm-6": "#f296be",
    "arm-7": "#adb6c0",
}
COLOURS = 8
MARKERS = ("circle", "square", "up", "diamond", "down", "plus", "cross", "bar")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2", "1 2", "12 4", "6 2 1 2 1 2")
STATE_CLASS = {
    "holds": "holds",
    "outside": "fails",
    "unclear": "undecided",
    "reported": "quiet",
    "unjudged": "quiet",
}

_PLOT_CSS = """
.plot { display: block; width: 100%; height: auto;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.plot text { fill: var(--ink); font-size: 12.5px; font-variant-numeric: tabular-nums; }
.plot text.over { stroke: var(--page); stroke-width: 3px; stroke-linejoin: round; paint-order: stroke; }
.plot text.small { fill: var(--quiet); font-size: 11.5px; }
.plot text.end { text-anchor: end; }
.plot text.middle { text-anchor: middle; }
.plot .grid { stroke: var(--rule); stroke-width: 1; fill: none; }
.plot .bound { stroke: var(--ink); stroke-width: 1.4; stroke-dasharray: 5 3; fill: none; }
.plot .sure { stroke: var(--quiet); stroke-width: 1.2; stroke-dasharray: 1.5 3; fill: none; }
.plot .meets { fill: var(--meets); }
.plot .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.plot .line.method { stroke-width: 2.8; }
.plot .band { stroke: none; opacity: 0.16; }
.plot .mark { stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.plot .mark.open { fill: var(--page); }
.plot .paper { stroke: var(--ink); stroke-width: 1.6; fill: var(--page); stroke-linejoin: round; }
"""


def stylesheet() -> str:
    """The CSS that plots need, once a page: variables for both schemes, then the classes."""

    def variables(palette: dict[str, str]) -> str:
        return " ".join(f"--{name}: {value};" for name, value in palette.items())

    names = [f"arm-{index}" for index in range(COLOURS)] + ["holds", "fails", "undecided", "quiet"]
    classes = "\n".join(
        f".plot .stroke-{n} {{ stroke: var(--{n}); }} .plot .fill-{n} {{ fill: var(--{n}); }}" for n in names
    )
    return (
        f":root {{ color-scheme: light dark; {variables(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}\n"
        f"{classes}{_PLOT_CSS}"
    )


def text_width(text: str, size: float = FONT) -> float:
    """About how wide a line is set in a sans-serif face: rather too much than too little."""
    return size * sum(0.34 if c in NARROW else 0.88 if c in WIDE else 0.58 for c in text)


def wrapped(text: str, width: float, size: float = FONT) -> list[str]:
    """The text in lines that fit into `width`; words that are too long are broken."""
    characters = max(4, int(width / (0.56 * size)))
    return textwrap.wrap(text, characters, break_long_words=True) or [""]


class Canvas:
    """An SVG that grows downwards. Names only ever become text and attribute values of the tree, so all are escaped."""

    def __init__(self, kind: str, title: str, description: str) -> None:
        self.root = ET.Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", "class": f"plot {kind}", "role": "img"}
        )
        self._title, self._description = title, description
        self.height = 0.0

    def add(self, tag: str, cls: str = "", **attributes: float | str) -> ET.Element:
        values = {
            name.replace("_", "-"): v if isinstance(v, str) else _number(v) for name, v in attributes.items()
        }
        return ET.SubElement(self.root, tag, {**({"class": cls} if cls else {}), **values})

    def text(self, x: float, y: float, words: str, cls: str = "") -> None:
        self.add("text", cls, x=x, y=y).text = printable(words)

    def line(self, x1: float, y1: float, x2: float, y2: float, cls: str) -> None:
        self.add("line", cls, x1=x1, y1=y1, x2=x2, y2=y2)

    def marker(
        self, shape: str, x: float, y: float, colour: str, *, filled: bool = True, size: float = 4.2
    ) -> ET.Element:
        """One mark, centred. colour: a name of the palette."""
        solid = filled and shape not in ("plus", "cross", "bar")
        cls = f"mark stroke-{colour} " + (f"fill-{colour}" if solid else "open")
        if shape == "circle":
            return self.add("circle", cls, cx=x, cy=y, r=size)
        return self.add("path", cls, d=marker_path(shape, x, y, size))

    def legend(self, entries: Sequence[tuple[str, str, bool, str | None, str]], top: float) -> float:
        """Entries (marker, colour, filled, dash or None without a line, words), set like text. Returns the bottom."""
        x, y = 10.0, top + 8.0
        for shape, colour, filled, dash, words in entries:
            sample = 12.0 if dash is None else 26.0
            lines = wrapped(words, WIDTH - sample - 26.0)
            width = sample + 6.0 + max(text_width(line) for line in lines) + 14.0
            if x > 10.0 and x + width > WIDTH:
                x, y = 10.0, y + 19.0
            if dash is not None:
                line = self.add("line", f"line stroke-{colour}", x1=x, y1=y, x2=x + sample, y2=y)
                if dash:
                    line.set("stroke-dasharray", dash)
            if colour == "paper":
                self.add("path", "paper", d=marker_path("down", x + sample / 2, y, 4.6))
            else:
                self.marker(shape, x + sample / 2, y, colour, filled=filled)
            for place, words_line in enumerate(lines):
                self.text(x + sample + 6.0, y + 4.3 + 15.0 * place, words_line)
            y += 15.0 * (len(lines) - 1)
            x += width
        return y + 12.0

    def render(self, *, standalone: bool = False) -> str:
        """The SVG as text. standalone: with its own style sheet, as a file of its own needs it."""
        body = ET.tostring(self.root, encoding="unicode")
        identity = (
            "plot-" + hashlib.sha256((self._title + self._description + body).encode()).hexdigest()[:10]
        )
        self.root.set("viewBox", f"0 0 {_number(WIDTH)} {_number(self.height)}")
        self.root.set("width", _number(WIDTH))
        self.root.set("height", _number(self.height))
        self.root.set("aria-labelledby", f"{identity}-title {identity}-desc")
        title = ET.Element("title", {"id": f"{identity}-title"})
        description = ET.Element("desc", {"id": f"{identity}-desc"})
        title.text, description.text = printable(self._title), printable(self._description)
        head = [title, description]
        if standalone:
            style = ET.Element("style")
            style.text = stylesheet()
            head.append(style)
        for place, element in enumerate(head):
            self.root.insert(place, element)
        try:
            return ET.tostring(self.root, encoding="unicode")
        finally:
            for element in head:
                self.root.remove(element)


def marker_path(shape: str, x: float, y: float, size: float) -> str:
    """The outline of a marker about (x, y)."""
    s = size
    corners = {
        "square": [(-s, -s), (s, -s), (s, s), (-s, s)],
        "up": [(0, -1.25 * s), (1.15 * s, 0.85 * s), (-1.15 * s, 0.85 * s)],
        "down": [(0, 1.25 * s), (1.15 * s, -0.85 * s), (-1.15 * s, -0.85 * s)],
        "diamond": [(0, -1.35 * s), (1.35 * s, 0), (0, 1.35 * s), (-1.35 * s, 0)],
    }
    if shape in corners:
        return "M" + " L".join(f"{_number(x + a)} {_number(y + b)}" for a, b in corners[shape]) + " Z"
    strokes: dict[str, list[tuple[float, float, float, float]]] = {
        "plus": [(-s, 0, s, 0), (0, -s, 0, s)],
        "cross": [(-s, -s, s, s), (-s, s, s, -s)],
        "bar": [(-s, 0, s, 0)],
    }
    return " ".join(
        f"M{_number(x + a)} {_number(y + b)} L{_number(x + c)} {_number(y + d)}"
        for a, b, c, d in strokes[shape]
    )


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no coordinate")
    return f"{value:.2f}".rstrip("0").rstrip(".")


def printable(text: str) -> str:
    """The text with a replacement for every character that XML forbids."""
    return _FORBIDDEN.sub("\ufffd", text)


_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
