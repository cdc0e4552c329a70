"""How often a verdict is wrong: simulated sets whose true effect lies exactly at the bound, judged as any set
is.

For every kind of metric, effect, number of cells, `need` and schedule, seeds are drawn from normal, skewed,
two-peaked and discrete distributions, in the arrangement that is worst for the rule:

- false *holds*: one baseline's rule is just not met (n - k + 1 cells at the bound, k - 1 far inside; all else
far inside); - false *fails*: every rule is just met (k cells at the bound, the other n - k far outside); -
power: every cell's true effect lies beyond its bound by two standard deviations of one seed's effect (where
seeds are
  counted: so far that 95 % of the seeds lie beyond).

A set counts as wrong if it is wrong at any look. Intervals and decisions are those of `claimbench.rules`,
applied to all simulated sets at once; `tests/test_rules_rates.py` compares them with `judge`, set by set.

    python benchmarks/verdict_rates.py [--full] [--json FILE] [--write docs/verdicts.md]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from claimbench.rules.intervals import (
    Bounds,
    moments,
    possible,
    project,
    sign_interval,
    t_interval,
    variance_floor,
)
from claimbench.rules.judging import STUDENT
from claimbench.rules.levels import ALPHA, look_level, sign_boundary, t_quantile
from claimbench.rules.looks import MEAN_LOOKS, SIGN_LOOKS

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

BEGIN, END = "<!-- verdict-rates:begin -->", "<!-- verdict-rates:end -->"
SLOPE_AT = (1.0, 2.0, 4.0)  # where a slope's points lie
MOST_CELLS, MOST_BASELINES, MOST_SEEDS = 6, 2, 12
BASELINE_SPREAD = 1 / 3  # of the method's: equal spreads would cancel the skewness of a difference
ITEMS = 100


@dataclass(frozen=True)
class Layout:
    """How the cells of a claim are arranged: `need` of `cells` against each of `baselines`."""

    name: str
    cells: int = 1
    need: int = 1
    baselines: int = 1
    both: bool = False  # at_least and at_most
    sure: bool = False
    mean: int = 0  # at = "mean" over so many points

    def possible_for(self, effect: str) -> bool:
        return self.baselines == 1 or effect in ("difference", "ratio")


LAYOUTS = (
    Layout("1 cell"),
    Layout("3 of 3", 3, 3),
    Layout("2 of 3", 3, 2),
    Layout("1 of 3", 3, 1),
    Layout("6 of 6", 6, 6),
    Layout("4 of 6", 6, 4),
    Layout("3 of 3, 2 baselines", 3, 3, 2),
    Layout("mean of 3", mean=3),
    Layout("two bounds", both=True),
    Layout("with sure", sure=True),
)
EFFECTS = ("value", "difference", "ratio", "slope")


@dataclass(frozen=True)
class Seeds:
    """A distribution of one seed's value.

    draw: an array of the shape asked for, with mean `mean` where the interval is Student's, with median 0
    where seeds are counted.
    """

    kind: str
    name: str
    draw: Draw
    promised: bool  # whether DESIGN's 2.5 % is promised for these seeds
    resolution: float = 0.0
    items: int | None = None
    mean: float = 0.0  # of draw
    continuous: bool = True


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def _exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_exponential(shape) - 1


def _log_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.exp(rng.standard_normal(shape)) - math.exp(0.5)


def _two_peaks(share: float) -> Draw:
    """A share of the seeds near 1, the others near 0; centred at the mean."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return (rng.random(shape) < share) - share + 0.02 * rng.standard_normal(shape)

    return draw


def _rounded(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal seeds rounded to multiples of half their standard deviation."""
    return np.round(2 * rng.standard_normal(shape)) / 2


def _binomial(share: float, items: int, spread: float = 0.0) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        shares = np.clip(share + spread * rng.standard_normal(shape), 0, 1) if spread else share
        return rng.binomial(items, shares, shape) / items

    return draw


def _binomial_mixture(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.binomial(ITEMS, np.where(rng.random(shape) < 0.8, 0.95, 0.25)) / ITEMS


def _median_exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_exponential(shape) - math.log(2)


def _coin(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """0 or -1: half the seeds lie at the bound itself, where a tie counts as meeting it."""
    return rng.integers(-1, 1, shape).astype(float)


def _two_even_peaks(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.choice([-0.5, 0.5], shape) + 0.02 * rng.standard_normal(shape)


DISTRIBUTIONS = (
    Seeds("mean", "normal", _normal, True),
    Seeds("mean", "discrete: normal in steps of half its spread", _rounded, True, resolution=0.5),
    Seeds("mean", "skewed: exponential", _exponential, False),
    Seeds("mean", "very skewed: log-normal", _log_normal, False),
    Seeds("mean", "two peaks: 4 of 5 seeds high", _two_peaks(0.8), False),
    Seeds(
        "proportion",
        "binomial, 80 % of 100",
        _binomial(0.8, ITEMS),
        True,
        items=ITEMS,
        mean=0.8,
    ),
    Seeds(
        "proportion",
        "80 % of 100, true share varies by 5 points",
        _binomial(0.8, ITEMS, 0.05),
        True,
        items=ITEMS,
        mean=0.8,
    ),
    Seeds("proportion", "binomial, 98 % of 50", _binomial(0.98, 50), True, items=50, mean=0.98),
    Seeds(
        "proportion",
        "two peaks: 4 of 5 seeds high",
        _binomial_mixture,
        False,
        items=ITEMS,
        mean=0.81,
    ),
    Seeds("jumpy", "normal", _normal, True),
    Seeds("jumpy", "skewed: exponential", _median_exponential, True),
    Seeds("jumpy", "two peaks", _two_even_peaks, True),
    Seeds("jumpy", "discrete: two values", _coin, True, continuous=False),
)


@dataclass(frozen=True)
class Rate:
    """What was counted for one kind, distribution, effect, schedule and layout."""

    kind: str
    seeds: str
    promised: bool
    effect: str
    schedule: tuple[int, ...]
    layout: str
    simulations: int
    false_holds: float
    false_fails: float
    power_first: float  # of holds, at the first look
    power: float  # of holds, by the last look
    power_fails: float  # by the last look

    @property
    def error(self) -> float:
        """Monte-Carlo standard error at the promised rate."""
        return math.sqrt(ALPHA * (1 - ALPHA) / self.simulations)


def draw_values(
    seeds: Seeds, effect: str, simulations: int, rng: np.random.Generator
) -> tuple[list[Array], float]:
    """One array (simulations, seeds, points) for the method and each baseline, and the effect that is true of
    them all.

    Counted kinds have a baseline without spread where a spread would move the median of the difference.
    """
    points = MOST_CELLS * (len(SLOPE_AT) if effect == "slope" else 1)
    arms = 1 + (MOST_BASELINES if effect in ("difference", "ratio") else 0)
    drawn = [seeds.draw(rng, (simulations, MOST_SEEDS, points)) for _ in range(arms)]
    if seeds.items:
        truth = {"value": seeds.mean, "difference": 0.0, "ratio": 0.0, "slope": 0.0}[effect]
        if arms > 1:
            drawn[1:] = [rng.binomial(seeds.items, 0.5, d.shape) / seeds.items for d in drawn[1:]]
            truth = seeds.mean - 0.5 if effect == "difference" else math.log(seeds.mean / 0.5)
        return drawn, truth
    if arms > 1:
        symmetric = seeds.kind in STUDENT or seeds.name in ("normal", "two peaks")
        spread = BASELINE_SPREAD if seeds.kind in STUDENT else 1.0
        if not symmetric:
            drawn[1:] = [np.zeros_like(d) for d in drawn[1:]]
        elif not seeds.resolution:
            drawn[1:] = [spread * d for d in drawn[1:]]
    if effect in ("ratio", "slope"):
        return [np.exp(d / 10) for d in drawn], 0.0
    return drawn, 0.0


def weights_for(effect: str, *, mean: int = 0) -> Array:
    """(points, cells), as `claimbench.rules.effects.weights_of` makes them, for points cell by cell.

    mean: one cell that averages the first so many.
    """
    weights = np.eye(MOST_CELLS)
    if effect == "slope":
        x = np.log(SLOPE_AT)
        weights = np.kron(weights, ((x - x.mean()) / ((x - x.mean()) ** 2).sum())[:, None])
    return weights[:, :mean].mean(axis=1, keepdims=True) if mean else weights


@dataclass
class Drawn:
    """Simulated sets, all at once, and what their intervals need at each look.

    values: the method's, then each baseline's, (simulations, seeds, points). effects: (simulations, seeds,
    columns), the cells of the first baseline, then those of the second; on the log scale for ratios and
    slopes.
    """

    seeds: Seeds
    effect: str
    looks: tuple[int, ...]
    values: list[Array]
    mean: int = 0

    def __post_init__(self) -> None:
        self.log = self.effect in ("ratio", "slope")
        self.weights = weights_for(self.effect, mean=self.mean)
        sides = [project(np.log(v) if self.log else v, self.weights) for v in self.values]
        contrasts = [sides[0] - side for side in sides[1:]] or sides
        self.effects = np.concatenate(contrasts, axis=-1)
        if not self.seeds.continuous:
            self.effects = np.round(
                self.effects, 9
            )  # a tie is a tie, as `claimbench.rules.intervals.snap` sees to
        self.cells = self.weights.shape[1]
        if self.seeds.kind in STUDENT:
            self.moments = [moments(self.effects[:, :n]) for n in self.looks]
            self.estimates = [m.mean for m in self.moments]
        else:
            self.ordered = [np.sort(self.effects[:, :n], axis=1) for n in self.looks]
            self.estimates = [(o[:, (o.shape[1] - 1) // 2] + o[:, o.shape[1] // 2]) / 2 for o in self.ordered]
        self._ends: dict[tuple[int, float], tuple[Array, Array]] = {}

    def ends(self, look: int, share: float) -> tuple[Array, Array]:
        """Low and high of every column, (simulations, columns)."""
        if (look, share) not in self._ends:
            n = self.looks[look]
            if self.seeds.kind in STUDENT:
                quantile = t_quantile(look_level(share, self.looks), n - 1)
                found = t_interval(self.moments[look], self._floor(n, quantile), quantile)
            else:
                found = sign_interval(self.ordered[look], sign_boundary(share, self.looks)[look])
            self._ends[look, share] = found
        return self._ends[look, share]

    def _floor(self, n: int, quantile: float) -> Array | float:
        if not self.seeds.resolution and self.seeds.items is None:
            return 0.0
        parts = [
            variance_floor(
                v[:, :n],
                self.weights,
                quantile=quantile,
                resolution=self.seeds.resolution,
                items=self.seeds.items,
                log=self.log,
            )
            for v in self.values
        ]
        return np.concatenate([parts[0] + part for part in parts[1:]] or parts, axis=-1)

    def columns(self, layout: Layout) -> Array:
        """(baselines, cells): where a layout's cells stand."""
        return np.arange(layout.baselines)[:, None] * self.cells + np.arange(layout.cells)


def decide(drawn: Drawn, layout: Layout, look: int, bounds: Bounds) -> tuple[Array, Array]:
    """Cells that hold and cells that lie outside, both (simulations, baselines, cells)."""
    ways = layout.need * layout.baselines * (2 if bounds.both else 1)
    columns = drawn.columns(layout)
    low, high = drawn.ends(look, ALPHA / (layout.cells - layout.need + 1))
    fail_low, fail_high = drawn.ends(look, ALPHA / ways)
    inside = bounds.inside(drawn.estimates[look][:, columns], low[:, columns], high[:, columns])
    return inside, bounds.outside(fail_low[:, columns], fail_high[:, columns])


def verdicts(inside: Array, outside: Array, need: int) -> tuple[Array, Array]:
    """Whether each simulated set holds and whether it fails: every baseline, any baseline."""
    holds, fails = possible(inside, outside, need)
    return holds.all(axis=1), fails.any(axis=1)


def at_the_bound(seeds: Seeds, effects: Array, truth: float, *, mean: int) -> tuple[float, float]:
    """The bound that is just not met and the one that is just met.

    They differ only where seeds are counted and effects are discrete: the claim is that at least half of the
    seeds reach the bound, so the one is the lowest value that no more than half of them reach, the other the
    highest that half reach.
    """
    if seeds.kind in STUDENT or (seeds.continuous and not mean):
        return truth, truth
    levels, counts = np.unique(np.round(effects, 9), return_counts=True)
    reached = np.cumsum(counts[::-1])[::-1] / counts.sum()
    slack = 0.0 if seeds.continuous else 0.02  # a share of exactly one half is simulated with some error
    return float(levels[np.argmax(reached <= 0.5 + slack)]), float(levels[reached >= 0.5 - slack][-1])


def rates(
    seeds: Seeds, effect: str, looks: tuple[int, ...], simulations: int, rng: np.random.Generator
) -> Iterator[Rate]:
    """All layouts on the same draws."""
    values, truth = draw_values(seeds, effect, simulations, rng)
    made: dict[int, Drawn] = {}
    for layout in LAYOUTS:
        if not layout.possible_for(effect):
            continue
        if layout.mean not in made:
            made[layout.mean] = Drawn(seeds, effect, looks, values, layout.mean)
        yield _rate(made[layout.mean], layout, truth)


def _rate(drawn: Drawn, layout: Layout, truth: float) -> Rate:
    simulations = len(drawn.effects)
    one = drawn.effects[..., 0]
    missed, met = at_the_bound(drawn.seeds, one, truth, mean=layout.mean)
    spread = float(one.std())
    ease = (
        2 * spread if drawn.seeds.kind in STUDENT else max(met - float(np.quantile(one, 0.05)), 0.1 * spread)
    )

    def bounds(bound: float, *, true: bool = False) -> Bounds:
        """true: at least this bound; otherwise the effect that must be ruled out is this one."""
        if layout.sure:
            return (
                Bounds(at_least=bound, sure=bound - ease / 8)
                if true
                else Bounds(at_least=bound + ease / 8, sure=bound)
            )
        return Bounds(at_least=bound, at_most=bound + 50 * spread if layout.both else None)

    need = layout.need
    counted = {name: np.zeros(simulations, dtype=bool) for name in ("holds", "fails", "power", "power_fails")}
    first = 0.0
    for look in range(len(drawn.looks)):
        inside, outside = decide(drawn, layout, look, bounds(missed))
        inside[:, 0, : need - 1] = True
        inside[:, 1:] = True
        counted["holds"] |= verdicts(inside, outside, need)[0]
        inside, outside = decide(drawn, layout, look, bounds(met, true=True))
        outside[:, :, need:] = True
        counted["fails"] |= verdicts(inside, outside, need)[1]
        counted["power"] |= verdicts(*decide(drawn, layout, look, bounds(met - ease)), need)[0]
        counted["power_fails"] |= verdicts(
            *decide(drawn, layout, look, bounds(missed + ease, true=True)), need
        )[1]
        if look == 0:
            first = float(counted["power"].mean())
    return Rate(
        kind=drawn.seeds.kind,
        seeds=drawn.seeds.name,
        promised=drawn.seeds.promised,
        effect=drawn.effect,
        schedule=drawn.looks,
        layout=layout.name,
        simulations=simulations,
        false_holds=float(counted["holds"].mean()),
        false_fails=float(counted["fails"].mean()),
        power_first=first,
        power=float(counted["power"].mean()),
        power_fails=float(counted["power_fails"].mean()),
    )


def simulate(simulations: int, seed: int) -> list[Rate]:
    out: list[Rate] = []
    for seeds in DISTRIBUTIONS:
        for looks in (MEAN_LOOKS, SIGN_LOOKS) if seeds.kind in STUDENT else (SIGN_LOOKS,):
            for effect in EFFECTS:
                stream = zlib.crc32(repr((seeds.kind, seeds.name, looks, effect)).encode())
                rng = np.random.default_rng([seed, stream])
                out += rates(seeds, effect, looks, simulations, rng)
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return out


def kept(rate: float, error: float) -> bool:
    """Whether a rate is compatible with the promise: at most alpha plus three Monte-Carlo errors."""
    return rate <= ALPHA + 3 * error


def broken_promises(found: Sequence[Rate]) -> list[Rate]:
    return [r for r in found if r.promised and not kept(max(r.false_holds, r.false_fails), r.error)]


def _percent(rate: float, error: float) -> str:
    text = f"{100 * rate:.1f}"
    return text if kept(rate, error) else f"**{text}**"


def _looks(looks: Sequence[int]) -> str:
    return "/".join(str(n) for n in looks)


def tables(found: Sequence[Rate], *, full: bool) -> str:
    """Markdown: error rates by distribution and layout (the worst effect, unless full), then power."""
    error = found[0].error
    names = [layout.name for layout in LAYOUTS]
    groups: dict[tuple, list[Rate]] = {}
    for rate in found:
        key = (rate.kind, rate.seeds, _looks(rate.schedule), rate.effect if full else "")
        groups.setdefault(key, []).append(rate)
    effect_column = ["effect"] if full else []
    lines = [
        f"False *holds* / false *fails* in percent, {found[0].simulations:,} simulated sets each "
        f"(Monte-Carlo error at 2.5 %: {100 * error:.2f})"
        + ("." if full else "; the worst of value, difference, ratio and slope.")
        + " Bold: above 2.5 by more than three errors.",
        "",
        _row(["kind", "seeds", "looks", *effect_column, *names, "promised"]),
        _row(["---"] * (len(names) + 4 + len(effect_column))),
    ]
    for (kind, seeds, looks, effect), group in groups.items():
        entries = []
        for name in names:
            chosen = [r for r in group if r.layout == name]
            if not chosen:
                entries.append("")
                continue
            holds, fails = max(r.false_holds for r in chosen), max(r.false_fails for r in chosen)
            entries.append(f"{_percent(holds, error)} / {_percent(fails, error)}")
        promised = "yes" if group[0].promised else "no"
        lines.append(_row([kind, seeds, looks, *([effect] if full else []), *entries, promised]))
    lines += [
        "",
        "Power in percent where the claim is true and every cell's effect lies two standard deviations of one "
        "seed's effect beyond its bound (jumpy: 95 % of the seeds lie beyond it): *holds* at the first look / by the "
        "last look, then *fails* by the last look where the claim is as clearly false. Effect: value; with two "
        "baselines, difference.",
        "",
        _row(["kind", "seeds", "looks", *names]),
        _row(["---"] * (len(names) + 3)),
    ]
    powers: dict[tuple, list[Rate]] = {}
    for rate in found:
        if rate.effect == ("difference" if "baselines" in rate.layout else "value"):
            powers.setdefault((rate.kind, rate.seeds, _looks(rate.schedule)), []).append(rate)
    for key, group in powers.items():
        entries = []
        for name in names:
            chosen = [r for r in group if r.layout == name]
            entries.append(
                "".join(
                    f"{100 * r.power_first:.0f} / {100 * r.power:.0f}, {100 * r.power_fails:.0f}"
                    for r in chosen[:1]
                )
            )
        lines.append(_row([*key, *entries]))
    return "\n".join(lines)


def _row(entries: Sequence[str]) -> str:
    return "| " + " | ".join(entries) + " |"


def write_between(path: Path, content: str) -> None:
    """Replace what stands between the markers. Raises SystemExit if they are not there."""
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{path}: has no {BEGIN} ... {END}; add both markers")
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    path.write_text(f"{head}{BEGIN}\n{content}\n{END}{tail}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if a promised rate is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--simulations", type=int, default=20_000, help="simulated sets for each entry")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="one row for each effect")
    parser.add_argument("--json", metavar="FILE", help="write every rate; - for standard output")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables between the markers of this file"
    )
    options = parser.parse_args(arguments)
    found = simulate(options.simulations, options.seed)
    if options.json:
        content = json.dumps([asdict(rate) for rate in found], indent=1)
        if options.json == "-":
            print(content)
        else:
            Path(options.json).write_text(content + "\n", encoding="utf-8")
    if options.write:
        write_between(options.write, tables(found, full=False))
    if options.json != "-":
        print(tables(found, full=options.full))
    broken = broken_promises(found)
    for rate in broken:
        print(f"promise broken: {rate}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
