"""One set as readers see it: its verdict, the paper's figures beside ours, plots, numbers and facts.

The report and the page show the same views. Plots come from `claimbench.plots`, which build SVG as an XML tree, so that
every name is escaped; all else is plain text for a template that escapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from claimbench.plan import FIRST_SEED
from claimbench.plots import Curve, Interval, curve_plot, interval_plot
from claimbench.report import ReportRow, bound_words, cell_name, cell_value, number, rule_of, spread, where
from claimbench.rules.verdict import Cell, RuleVerdict, Verdict
from claimbench.summaries import CellSummary, Panel, panels, summarise

SIGNS = {"holds": "✓", "fails": "✕", "undecided": "?", "no verdict": "–"}
STATES = tuple(SIGNS)


@dataclass(frozen=True)
class Plot:
    """An SVG with its words."""

    svg: Markup
    caption: str
    note: str = ""


@dataclass(frozen=True)
class FigureLine:
    """The paper's own number beside ours."""

    paper: str
    where: str
    note: str
    ours: str  # the comparable cell's estimate and interval, or why there is none
    inside: bool | None


@dataclass(frozen=True)
class ClaimView:
    """One set, ready for the template."""

    row: ReportRow
    anchor: str
    state: str
    sign: str
    figures: list[FigureLine]
    intervals: list[Plot]
    reported: list[Plot]  # of rules without a bound
    sweeps: list[Plot]
    tables: list[Table]
    facts: list[tuple[str, str]]
    labels: list[str]  # what sets it apart from the paper's row


@dataclass(frozen=True)
class Table:
    """Arms by points of one metric; seeds and failures are named where they differ from the rest."""

    caption: str
    points: list[str]
    rows: list[tuple[str, list[str]]]


def claim_view(row: ReportRow, anchor: str) -> ClaimView:
    """Everything that the page says of one set."""
    state = row.verdict.state if row.verdict else "no verdict"
    cells = summarise(row.claim, row.set.plan, row.judged)
    verdict = row.verdict
    rules = [rule for rule in verdict.rules if rule.cells] if verdict else []
    return ClaimView(
        row=row,
        anchor=anchor,
        state=state,
        sign=SIGNS[state],
        figures=[_figure(row, place) for place in range(len(row.claim.figures))],
        intervals=[p for r in rules if r.state != "reported" for p in _interval_plots(row, r)],
        reported=[p for r in rules if r.state == "reported" for p in _interval_plots(row, r)],
        sweeps=_sweeps(row, cells),
        tables=_tables(row, cells),
        facts=_facts(row),
        labels=labels(row),
    )


def _figure(row: ReportRow, place: int) -> FigureLine:
    """A verdict keeps the claim's figures in their order; one that was stored before they changed has others."""
    figure, verdict = row.claim.figures[place], row.verdict
    paper = f"{number(figure.value)} {figure.unit}".strip()
    found = verdict.figures[place] if verdict and place < len(verdict.figures) else None
    if found is not None and (found.where, found.value) != (figure.where, figure.value * figure.factor):
        found = None
    if verdict is None:
        return FigureLine(paper, figure.where, figure.note, "no interval at this scale", None)
    if found is None or found.rule is None:
        said = "not directly comparable with a number here"
        return FigureLine(paper, figure.where, figure.note, said, None)
    if found.inside is None:
        return FigureLine(paper, figure.where, figure.note, found.note, None)
    rule = next(r for r in verdict.rules if not r.given and r.index == found.rule)
    cell = next(c for c in rule.cells if (c.against, c.point) == (found.against, found.point))
    scaled = f" (the paper's is {number(found.value)} in this unit)" if figure.factor != 1.0 else ""
    return FigureLine(paper, figure.where, figure.note, cell_value(cell) + scaled, found.inside)


def deciding(verdict: Verdict) -> tuple[RuleVerdict, Cell] | None:
    """What decided: of the first rule with the verdict's state its last cell, or its first that does not hold."""
    for rule in verdict.rules:
        if rule.state == verdict.state and not rule.given and rule.cells:
            missing = [cell for cell in rule.cells if cell.state != "holds"]
            return rule, missing[0] if missing and verdict.state != "holds" else rule.cells[-1]
    return None


# --- comparisons ---


def _interval_plots(row: ReportRow, judged: RuleVerdict) -> list[Plot]:
    """A plot for each baseline of a rule: each must be beaten by itself."""
    opponents = list(dict.fromkeys(cell.against for cell in judged.cells))
    return [_interval_plot(row, judged, opponent, alone=len(opponents) == 1) for opponent in opponents]


def _interval_plot(row: ReportRow, judged: RuleVerdict, against: str | None, *, alone: bool) -> Plot:
    rule = rule_of(row.claim, judged)
    figures = row.verdict.figures if row.verdict else []
    said = row.verdict.reason if row.verdict else ""
    cells = [cell for cell in judged.cells if cell.against == against]

    def paper(cell: Cell) -> float | None:
        same = [
            f.value
            for f in figures
            if (f.rule, f.against, f.point) == (judged.index, cell.against, cell.point)
        ]
        return same[0] if same and not judged.given else None

    beside = "" if alone else f" – against {against}"
    svg = interval_plot(
        [
            Interval(
                where(c.point) or cell_name(c), cell_value(c), c.estimate, c.low, c.high, c.state, paper(c)
            )
            for c in cells
        ],
        title=f"{row.paper.id}/{row.claim.id}: {judged.text}{beside}",
        axis=_effect_words(row, judged),
        at_least=rule.at_least if rule else None,
        at_most=rule.at_most if rule else None,
        sure=rule.sure if rule else None,
        log=rule is not None and rule.effect == "ratio",
    )
    bound = bound_words(rule)
    told = "" if not rule or not rule.label or not bound else f" ({bound})"
    notes = [f"{cell_name(cell)}: {cell.note}" for cell in cells if cell.note]
    if rule is None:
        notes.append("the claim's rules have been changed since; the bound of that time is not drawn")
    reason = [] if judged.state == "reported" or judged.reason == said else [judged.reason]
    caption = f"{'Given: ' if judged.given else ''}{judged.text}{told}{beside}"
    return Plot(Markup(svg), caption, "; ".join([*reason, *notes]))


def _effect_words(row: ReportRow, judged: RuleVerdict) -> str:
    rule = rule_of(row.claim, judged)
    if rule is None:
        return ""
    metric = row.claim.metrics[rule.metric]
    name = metric.label or rule.metric
    if rule.effect == "ratio":
        return f"ratio of {name}"
    if rule.effect == "slope":
        return f"exponent of {rule.along} in {name}"
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{'difference in ' if rule.effect == 'difference' else ''}{name}{unit}"


# --- sweeps ---


def _sweeps(row: ReportRow, cells: Sequence[CellSummary]) -> list[Plot]:
    """A panel for each metric and each line of the sweep; metrics in the claim's order."""
    shown = panels(row.claim, row.set.plan["points"])
    names = list(dict.fromkeys(cell.metric for cell in cells))
    plots = [_curve_plot(row, panel, name, cells) for name in names for panel in shown]
    return [plot for plot in plots if plot is not None]


def _curve_plot(row: ReportRow, panel: Panel, name: str, cells: Sequence[CellSummary]) -> Plot | None:
    found = {(c.arm, frozenset(c.point.items())): c for c in cells if c.metric == name}
    arms = [row.claim.method, *row.claim.baselines]
    curves = []
    for arm in row.set.plan["arms"]:
        along = [found[(arm, frozenset(point.items()))] for point in panel.points]
        if any(math.isfinite(c.middle) for c in along):
            curves.append(
                Curve(
                    name=arm,
                    x=[point[panel.along] for point in panel.points],
                    middle=[c.middle for c in along],
                    low=[c.low for c in along],
                    high=[c.high for c in along],
                    place=arms.index(arm) if arm in arms else len(arms),
                )
            )
    if not curves:
        return None
    metric = row.claim.metrics[name]
    label = (metric.label or name) + (f", {metric.unit}" if metric.unit else "")
    rest = f", {where(panel.rest)}" if panel.rest else ""
    beside = [end for c in found.values() for end in (c.low, c.high)]
    title = f"{row.paper.id}/{row.claim.id}: {label} along {panel.along}{rest}"
    svg = curve_plot(curves, title=title, along=panel.along, metric=label, beside=beside)
    missing = [
        f"{arm} at {where(point)}"
        for arm in row.set.plan["arms"]
        for point in panel.points
        if not math.isfinite(found[(arm, frozenset(point.items()))].middle)
    ]
    note = f"not drawn, without a finite number: {'; '.join(missing)}" if missing else ""
    return Plot(Markup(svg), f"{label} along {panel.along}{rest}", note)


# --- numbers ---


def _tables(row: ReportRow, cells: Sequence[CellSummary]) -> list[Table]:
    points = row.set.plan["points"]
    usual = max((cell.seeds for cell in cells), default=0)
    tables = []
    for name in dict.fromkeys(cell.metric for cell in cells):
        metric = row.claim.metrics[name]
        unit = f", {metric.unit}" if metric.unit else ""
        rows = [
            (arm, [_cell_words(c, usual) for c in cells if (c.metric, c.arm) == (name, arm)])
            for arm in row.set.plan["arms"]
        ]
        tables.append(Table(f"{metric.label or name}{unit}", [where(p) or "measured" for p in points], rows))
    return tables


def _cell_words(cell: CellSummary, usual: int) -> str:
    words = [spread(cell)]
    if cell.failed:
        words.append(f"{cell.failed} failed")
    if cell.seeds != usual:
        words.append(f"{cell.seeds} of {usual} seeds")
    return ", ".join(words)


def _facts(row: ReportRow) -> list[tuple[str, str]]:
    """Where, when and on what: in the order in which a reader asks."""
    machine, plan = row.machine, row.set.plan
    gpus = [gpu["name"] for gpu in machine["gpus"] if plan["device"] != "cpu"]
    subjects = [
        f"{name}: {'your own' if reference['private'] else reference['label']}"
        for name, reference in plan["subjects"].items()
    ]
    seeds = row.verdict.seeds if row.verdict else sorted({trial.seed for trial in row.judged})
    look = (
        f"; look {row.verdict.look} of {len(row.verdict.schedule)}"
        if row.verdict and row.verdict.look
        else ""
    )
    until = f" to {seeds[-1]}" if len(seeds) > 1 else ""
    span = f"{len(seeds)} ({seeds[0]}{until}{look})" if seeds else "none"
    sizes = ", ".join(f"{name}={value}" for name, value in plan["sizes"].items())
    facts = [
        ("Scale", ", ".join([row.set.scale, *labels(row)])),
        ("Seeds", span),
        ("Varied", ", ".join(row.claim.varies)),
        ("Fixed", ", ".join(row.claim.fixed) or "nothing else"),
        ("Sizes", sizes),
        ("Subjects", "; ".join(subjects)),
        ("Tuned", ", ".join(f"{name} from {values}" for name, values in plan["tuning"].items())),
        (
            "Machine",
            ", ".join([*gpus, machine["cpu"], f"{machine['cores']} cores, {machine['memory_gib']:g} GiB"]),
        ),
        (
            "Precision",
            f"{plan['dtype']}, {plan['threads']} thread{'s' if plan['threads'] != 1 else ''} a trial",
        ),
        ("Measured", f"{row.set.created[:10]}, {row.trials} trials"),
    ]
    return [(name, words) for name, words in facts if words]


def labels(row: ReportRow) -> list[str]:
    """What sets a set apart from the paper's row."""
    development = row.set.plan["first_seed"] < FIRST_SEED and row.set.scale != "smoke"
    return [
        *(["own setting"] if row.set.own else []),
        *(["development seeds, never published"] if development else []),
        *([f"replication {row.set.replication}"] if row.set.replication else []),
        *(["stale"] if row.stale else []),
    ]
