"""Rendered images of simple shapes: a ladder of families from line drawings to noise, and concepts that combine
attributes.

Nothing is loaded: a shape is a function that is positive inside it, so that a batch is drawn in one pass. All families
have the same classes, places, sizes and turns, and differ in what is drawn with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float32, Int64

from claimbench.errors import UserError, nearest

Plane = np.ndarray  # [images, height, width]
Colours = np.ndarray  # [images, 3]


def _polygon(sides: int, inner: float) -> Callable[[Plane, Plane], Plane]:
    def level(u: Plane, v: Plane) -> Plane:
        turns = 2 * np.pi * (np.arange(sides) + 0.5) / sides - np.pi / 2
        return inner - np.max([u * np.cos(turn) + v * np.sin(turn) for turn in turns], axis=0)

    return level


def _petals(count: int, mean: float, swing: float) -> Callable[[Plane, Plane], Plane]:
    return lambda u, v: mean + swing * np.cos(count * np.arctan2(v, u)) - np.hypot(u, v)


def _cross(u: Plane, v: Plane) -> Plane:
    across, along = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(0.28 - across, 0.9 - along), np.minimum(0.28 - along, 0.9 - across))


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": lambda u, v: 0.75 - np.hypot(u, v),
    "square": lambda u, v: 0.65 - np.maximum(np.abs(u), np.abs(v)),
    "triangle": _polygon(3, 0.45),
    "star": _petals(5, 0.6, 0.3),
    "cross": _cross,
    "ring": lambda u, v: 0.22 - np.abs(np.hypot(u, v) - 0.65),
    "bar": lambda u, v: np.minimum(0.9 - np.abs(u), 0.28 - np.abs(v)),
    "crescent": lambda u, v: np.minimum(0.8 - np.hypot(u, v), np.hypot(u - 0.4, v) - 0.6),
    "half-disc": lambda u, v: np.minimum(0.85 - np.hypot(u, v), v + 0.1),
    "clover": _petals(3, 0.55, 0.35),
    "pentagon": _polygon(5, 0.65),
    "frame": lambda u, v: 0.15 - np.abs(np.maximum(np.abs(u), np.abs(v)) - 0.65),
}
"""Positive inside, about the distance to the edge; the frame of reference is -1..1."""


@dataclass(frozen=True)
class Family:
    """What a ladder's rung is drawn with. Classes are shapes, or for `texture` the directions and widths of stripes."""

    background: str  # black, plain, shaded, clutter, texture
    fill: str  # outline, white, colour, texture, shaded
    noise: float = 0.0  # standard deviation
    classes: str = "shape"


LADDER: dict[str, Family] = {
    "outlines": Family("black", "outline"),
    "silhouettes": Family("black", "white"),
    "colours": Family("plain", "colour"),
    "shaded": Family("shaded", "shaded"),
    "textures": Family("plain", "texture"),
    "clutter": Family("clutter", "texture"),
    "camouflage": Family("texture", "texture", noise=0.06),
    "stripes": Family("texture", "texture", noise=0.2, classes="texture"),
}
"""From simple to complex as a person would order them; what counts in the claims is their measured entropy."""

HUES = np.array(
    [
        [0.9, 0.2, 0.2],
        [0.2, 0.75, 0.3],
        [0.25, 0.4, 0.95],
        [0.9, 0.85, 0.2],
        [0.8, 0.3, 0.85],
        [0.2, 0.8, 0.85],
    ],
    dtype=np.float32,
)
PATTERNS = ("plain", "striped", "chequered")
SIZES = (0.45, 0.8)


def concept_space() -> list[tuple[str, int, str, float]]:
    """All combinations of shape, hue, pattern and size: 12 x 6 x 3 x 2 = 432."""
    return list(product(SHAPES, range(len(HUES)), PATTERNS, SIZES))


def render_family(
    family: str, *, classes: int, count: int, side: int, seed: int | list[int]
) -> tuple[Float32[np.ndarray, "images 3 side side"], Int64[np.ndarray, " images"]]:
    """`count` images of each of the first `classes` classes, in 0..1, and their labels.

    Raises UserError for an unknown family and more classes than there are (12).
    """
    if family not in LADDER:
        raise UserError(f'no family "{family}"{nearest(family, LADDER)}; there are {", ".join(LADDER)}')
    if not 2 <= classes <= len(SHAPES):
        raise UserError(f"classes = {classes}: a family has between 2 and {len(SHAPES)}")
    style, rng = LADDER[family], np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    canvas = _Canvas(len(labels), side, rng)
    if style.classes == "texture":
        return canvas.finish(_stripe_classes(canvas, labels, classes), style.noise), labels
    level = canvas.shapes(list(SHAPES), labels, rng.uniform(0.55, 0.8, len(labels)))
    dark, light = canvas.two_colours()
    ground = _ground(canvas, style.background, dark)
    ink = _ink(canvas, style.fill, dark, light)
    if style.fill == "outline":
        level = 0.12 - np.abs(level)
    return canvas.finish(_over(canvas.cover(level), ink, ground), style.noise), labels


def render_concepts(
    concepts: list[tuple[str, int, str, float]], *, count: int, side: int, seed: int | list[int]
) -> tuple[Float32[np.ndarray, "images 3 side side"], Int64[np.ndarray, " images"]]:
    """`count` images of each concept (shape, hue, pattern, size), on shaded grounds with a little noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(concepts)), count)
    canvas = _Canvas(len(labels), side, rng)
    kinds = np.array([list(SHAPES).index(concept[0]) for concept in concepts])[labels]
    scale = np.array([concept[3] for concept in concepts])[labels] * rng.uniform(0.9, 1.1, len(labels))
    level = canvas.shapes(list(SHAPES), kinds, scale)
    hue = HUES[np.array([concept[1] for concept in concepts])[labels]]
    light = np.clip(hue + rng.normal(0, 0.06, hue.shape), 0, 1)
    pattern = np.array([PATTERNS.index(concept[2]) for concept in concepts])[labels]
    wave = np.where(
        (pattern == 2)[:, None, None], canvas.stripes() * canvas.stripes(across=True), canvas.stripes()
    )
    share = np.where((pattern == 0)[:, None, None], 1.0, 0.5 + 0.5 * np.sign(wave))
    ink = _blend(share, light, 0.25 * light)
    ground = _blend(canvas.ramp(), *(rng.uniform(0.2, 0.7, (2, len(labels), 3))))
    return canvas.finish(_over(canvas.cover(level), ink, ground), 0.03), labels


class _Canvas:
    """Coordinates and random layers of a batch of images."""

    def __init__(self, count: int, side: int, rng: np.random.Generator) -> None:
        self.count, self.side, self.rng = count, side, rng
        line = (np.arange(side) + 0.5) / side * 2 - 1
        self.y, self.x = np.meshgrid(line, line, indexing="ij")
        self.scale = np.ones(count)

    def shapes(self, names: list[str], which: np.ndarray, scale: np.ndarray, spread: float = 0.25) -> Plane:
        """Levels of one shape in each image, at a random place and slightly turned, in units of the image."""
        x0, y0 = self.rng.uniform(-spread, spread, (2, self.count, 1, 1))
        turn = self.rng.uniform(-0.25, 0.25, (self.count, 1, 1))
        u, v = (self.x - x0) / scale[:, None, None], (self.y - y0) / scale[:, None, None]
        u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        level = np.empty(u.shape)
        for index in np.unique(which):
            own = which == index
            level[own] = SHAPES[names[index]](u[own], v[own])
        return level * scale[:, None, None]

    def cover(self, level: Plane) -> Plane:
        """Share of each pixel that is inside."""
        return np.clip(level * self.side / 2 + 0.5, 0, 1)

    def two_colours(self) -> tuple[Colours, Colours]:
        """Colours that differ by a third of the range at least."""
        dark = self.rng.uniform(0.0, 0.4, (self.count, 3))
        return dark, dark + self.rng.uniform(0.33, 0.6, (self.count, 3))

    def stripes(self, across: bool = False, turn: np.ndarray | None = None, width: float = 5.0) -> Plane:
        """Plane waves of about `width` half periods, in -1..1."""
        turn = self.rng.uniform(0, np.pi, self.count) if turn is None else turn
        turn = turn + np.pi / 2 * across
        phase = self.rng.uniform(0, 2 * np.pi, (self.count, 1, 1))
        along = self.x * np.cos(turn)[:, None, None] + self.y * np.sin(turn)[:, None, None]
        return np.sin(np.pi * width / 1.5 * along + phase)

    def ramp(self) -> Plane:
        """Light that falls off in a random direction, in 0..1."""
        turn = self.rng.uniform(0, 2 * np.pi, self.count)
        along = self.x * np.cos(turn)[:, None, None] + self.y * np.sin(turn)[:, None, None]
        return np.clip(0.5 + 0.4 * along, 0, 1)

    def finish(self, image: np.ndarray, noise: float) -> np.ndarray:
        """[images, height, width, 3] as float32 [images, 3, height, width] in 0..1."""
        if noise:
            image = image + self.rng.normal(0, noise, image.shape)
        return np.ascontiguousarray(np.clip(image, 0, 1).transpose(0, 3, 1, 2), dtype=np.float32)


def _blend(share: Plane, first: Colours, second: Colours) -> np.ndarray:
    return share[..., None] * first[:, None, None] + (1 - share[..., None]) * second[:, None, None]


def _over(cover: Plane, ink: np.ndarray, ground: np.ndarray) -> np.ndarray:
    return cover[..., None] * ink + (1 - cover[..., None]) * ground


def _waves(canvas: _Canvas, first: Colours, second: Colours) -> np.ndarray:
    return _blend(0.5 + 0.5 * canvas.stripes(), first, second)


def _ground(canvas: _Canvas, kind: str, dark: Colours) -> np.ndarray:
    black = np.zeros((canvas.count, 3))
    flat = np.ones((canvas.count, canvas.side, canvas.side))
    match kind:
        case "black":
            return _blend(flat, black, black)
        case "plain":
            return _blend(flat, dark, dark)
        case "shaded":
            return _blend(canvas.ramp(), dark, 0.4 * dark)
        case "texture":
            return _waves(canvas, dark, 0.4 * dark)
    ground = _blend(canvas.ramp(), dark, 0.4 * dark)
    for _ in range(6):  # small things of random kind and colour
        kinds = canvas.rng.integers(0, len(SHAPES), canvas.count)
        level = canvas.shapes(list(SHAPES), kinds, canvas.rng.uniform(0.12, 0.25, canvas.count), spread=0.95)
        colour = canvas.rng.uniform(0, 1, (canvas.count, 3))
        ground = _over(canvas.cover(level), _blend(flat, colour, colour), ground)
    return ground


def _ink(canvas: _Canvas, kind: str, dark: Colours, light: Colours) -> np.ndarray:
    flat = np.ones((canvas.count, canvas.side, canvas.side))
    white = np.ones((canvas.count, 3))
    match kind:
        case "outline" | "white":
            return _blend(flat, white, white)
        case "colour":
            return _blend(flat, light, light)
        case "shaded":
            return _blend(canvas.ramp(), light, 0.6 * light + 0.4 * dark)
    return _waves(canvas, light, 0.7 * light + 0.3 * dark)


def _stripe_classes(canvas: _Canvas, labels: np.ndarray, classes: int) -> np.ndarray:
    """No shape at all: the class is the direction of stripes of one of two widths, mixed with others at random."""
    directions = -(-classes // 2)
    turn = np.pi * (labels % directions) / directions + canvas.rng.normal(0, 0.06, canvas.count)
    fine, coarse = (canvas.stripes(turn=turn, width=width) for width in (9.0, 5.0))
    wave = np.where((labels < directions)[:, None, None], fine, coarse)
    dark, light = canvas.two_colours()
    return _blend(0.5 + 0.3 * wave + 0.2 * canvas.stripes(width=7.0), light, dark)
