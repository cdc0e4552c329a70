"""What was measured, as text, Markdown and JSON. Every number comes from the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claimbench.bench import select_claims
from claimbench.ledger import Ledger, SetRow
from claimbench.paper import Claim, Paper, Published, Rule
from claimbench.plan import FIRST_SEED
from claimbench.session import Outcome
from claimbench.shelf import Shelf
from claimbench.summaries import CellSummary, command, summarise
from claimbench.verdicts import judge_set

if TYPE_CHECKING:
    from rich.console import Console

    from claimbench.rules.verdict import Cell, Judged, RuleVerdict, Verdict

COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}
CELLS_SHOWN = 12  # of a rule in a report; a run's end shows fewer
CELLS_BRIEF = {"reported": 2}


@dataclass(frozen=True)
class ReportRow:
    """One set of one claim with its verdict, as stored."""

    paper: Paper
    claim: Claim
    set: SetRow
    verdict: Verdict | None
    stale: tuple[str, ...]  # what changed since it was measured
    machine: Mapping[str, Any]
    trials: int
    judged: tuple[Judged, ...] = ()  # the set's trials as the rules see them

    def to_json(self) -> dict[str, Any]:
        return {
            "paper": self.paper.id,
            "claim": self.claim.id,
            "statement": self.claim.statement,
            "published": [figure.model_dump() for figure in self.claim.figures],
            "set": {k: v for k, v in asdict(self.set).items() if k not in ("claim_text", "plan")},
            "plan": self.set.plan,
            "verdict": None if self.verdict is None else self.verdict.to_json(),
            "stale": list(self.stale),
            "machine": dict(self.machine),
            "trials": self.trials,
            "varies": self.claim.varies,
            "fixed": self.claim.fixed,
            "caveat": self.claim.caveat,
            "command": self.command,
        }

    @property
    def command(self) -> str:
        """What measures this set again."""
        return command(self.paper, self.claim, self.set, self.verdict.look if self.verdict else 1)


def report(
    targets: str | Sequence[str] = (),
    *,
    scale: str | None = None,
    history: bool = False,
    ledger: Ledger | str | Path | None = None,
    shelf: Shelf | None = None,
) -> list[ReportRow]:
    """The latest set of every plan (all sets with `history`), judged by the rules as they stand."""
    shelf = shelf or Shelf.find()
    names = [targets] if isinstance(targets, str) else list(targets)
    store = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    rows: list[ReportRow] = []
    for paper, claim in select_claims(shelf, names, everything=not names):
        newest: dict[tuple[str, str, str, int], SetRow] = {}
        for row in store.sets(paper=paper.id, claim=claim.id):
            if scale in (None, row.scale):
                newest[
                    (row.uid if history else row.fingerprint, row.environment, row.scale, row.replication)
                ] = row
        for row in newest.values():
            stale = store.stale(row.uid)
            verdict = store.verdict(row.uid) if row.own or stale else judge_set(store, row, claim, paper)
            rows.append(
                ReportRow(
                    paper=paper,
                    claim=claim,
                    set=row,
                    verdict=verdict,
                    stale=tuple(stale),
                    machine=store.environment(row.environment)["machine"],
                    trials=len(store.members(row.uid)),
                    judged=tuple(store.judged(row.uid)),
                )
            )
    return rows


# --- words ---


def number(value: float) -> str:
    """Four significant digits; infinities as signs."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.4g}"


def where(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in point.items())


def cell_name(cell: Cell) -> str:
    """`against mamba at n=4096`; `overall` where a rule has one cell."""
    parts = [
        *([f"against {cell.against}"] if cell.against else []),
        *([f"at {where(cell.point)}"] if cell.point else []),
    ]
    return " ".join(parts) or "overall"


def cell_value(cell: Cell) -> str:
    """`1.31 [1.12, 1.55]`: the estimate and its interval, where there is one."""
    if cell.state == "unjudged":
        return "no number"
    certain = cell.low == cell.high == cell.estimate
    return number(cell.estimate) + ("" if certain else f" [{number(cell.low)}, {number(cell.high)}]")


def cell_line(cell: Cell) -> str:
    """`against mamba at n=4096: 1.31 [1.12, 1.55]`."""
    return f"{cell_name(cell)}: {cell_value(cell)}" + (f" ({cell.note})" if cell.note else "")


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "verdict": None if outcome.verdict is None else outcome.verdict.to_json()}


def figure_line(figure: Published, verdict: Verdict | None) -> str:
    """The paper's own figure and whether it lies in our interval."""
    text = f"{number(figure.value)} {figure.unit}".strip()
    line = f"paper: {text} ({figure.where})"
    same = (
        [f for f in verdict.figures if f.where == figure.where and f.rule == figure.rule] if verdict else []
    )
    found = next((f for f in same if math.isclose(f.value, figure.value * figure.factor)), None)
    if found is None or found.inside is None:
        return line + (f"; {found.note}" if found and found.note else "")
    return f"{line}; {'inside' if found.inside else 'outside'} our interval"


# --- the terminal ---


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """What a run says at its end: each verdict with its cells, then a summary line."""
    console = _console()
    for outcome in outcomes:
        if outcome.skipped:
            console.print(f"skipped    {outcome.name}: {outcome.skipped}", style="dim", markup=False)
    for outcome in outcomes:
        if outcome.skipped:
            continue
        console.print()
        _print_verdict(
            console, outcome.name, outcome.verdict, f"{outcome.scale}, {outcome.ran} trials run", brief=True
        )
        if outcome.verdict is None and outcome.failed:
            console.print(f"           {outcome.failed} trials failed", markup=False)
    states = [o.verdict.state for o in outcomes if o.verdict is not None]
    if states:
        counted = ", ".join(f"{states.count(s)} {s}" for s in ("holds", "fails", "undecided") if s in states)
        console.print(f"\n{len(states)} claims judged: {counted}. Details: claimbench report", markup=False)


def _print_verdict(
    console: Console, name: str, verdict: Verdict | None, setting: str, *, brief: bool = False
) -> None:
    from rich.text import Text

    state = verdict.state if verdict else "no verdict"
    head = Text.assemble(
        (f"{state.upper():<10}", f"bold {COLOURS.get(state, 'dim')}"), " ", (name, "bold"), f"  {setting}"
    )
    console.print(head)
    if verdict is None:
        console.print("           this scale proves that it runs and gives no verdict", markup=False)
        return
    console.print(f"           {verdict.reason}", markup=False)
    for rule in verdict.rules:
        _print_rule(console, rule, CELLS_BRIEF.get(rule.state, 6) if brief else CELLS_SHOWN)
    for note in verdict.notes:
        console.print(f"           note: {note}", style="dim", markup=False)


def _print_rule(console: Console, rule: RuleVerdict, most: int) -> None:
    if rule.state == "reported" and all(cell.state == "unjudged" for cell in rule.cells):
        return  # its arms are not part of this scale
    style = COLOURS.get(rule.state, "dim")
    given = "given " if rule.given else ""
    console.print(f"    {rule.state:<10} {given}{rule.text}", style=style, markup=False)
    shown = rule.cells[-most:] if rule.state == "holds" else rule.cells[:most]  # a sweep's end says most
    for cell in shown:
        mark = {"holds": "+", "outside": "-", "unclear": "?", "unjudged": "!", "reported": " "}[cell.state]
        console.print(f"             {mark} {cell_line(cell)}", markup=False)
    if len(rule.cells) > len(shown):
        console.print(f"               {len(rule.cells) - len(shown)} more: --json", markup=False)


def print_rows(rows: Sequence[ReportRow]) -> None:
    """Every row in full, as `claimbench report` shows it."""
    console = _console()
    for row in rows:
        machine = f"{row.machine['cpu']}, {row.machine['cores']} cores"
        gpus = ", ".join(gpu["name"] for gpu in row.machine["gpus"])
        setting = f"{row.set.scale}, {row.trials} trials, {row.set.created[:10]}, {gpus or machine}"
        replication = f", replication {row.set.replication}" if row.set.replication else ""
        development = (
            ""
            if row.set.scale == "smoke" or row.set.plan["first_seed"] >= FIRST_SEED
            else ", development seeds"
        )
        console.print()
        name = f"{row.paper.id}/{row.claim.id}"
        _print_verdict(console, name, row.verdict, setting + replication + development)
        if row.stale:
            shown = ", ".join(row.stale[:4]) + (" ..." if len(row.stale) > 4 else "")
            console.print(
                f"           stale: changed since: {shown}; claimbench recheck {row.paper.id}",
                style="yellow",
                markup=False,
            )
        for figure in row.claim.figures:
            console.print(f"           {figure_line(figure, row.verdict)}", markup=False)
        console.print(
            f"           varies: {', '.join(row.claim.varies)}; fixed: {', '.join(row.claim.fixed) or 'nothing else'}",
            markup=False,
        )
        console.print(f"           caveat: {row.claim.caveat}", style="dim", markup=False)
    if not rows:
        console.print("nothing was measured yet; try: claimbench run exact-permutations")


def print_paper(paper: Paper, ledger: str | None) -> None:
    """`claimbench show`: the paper, its claims, the latest verdicts, and the commands."""
    console = _console()
    console.print(f"[bold]{paper.id}[/bold]  ", end="")
    console.print(f"{paper.title}", style="bold", markup=False)
    names = ", ".join(paper.authors[:4]) + (" et al." if len(paper.authors) > 4 else "")
    console.print(
        f"{names}, {paper.year}{f', arXiv {paper.arxiv}' if paper.arxiv else ''}, group {paper.group}",
        markup=False,
    )
    console.print(f"\n{paper.summary}\n", markup=False)
    rows: dict[tuple[str, str], ReportRow] = {}
    for row in report([paper.id], ledger=ledger, shelf=Shelf([paper.folder.parent.parent])):
        if not row.set.own:
            rows[(row.claim.id, row.set.scale)] = row
    for claim in paper.claim:
        console.print(f"{claim.id}", style="bold", markup=False)
        console.print(f"  {claim.statement}", markup=False)
        for figure in claim.figures:
            console.print(f"  {figure_line(figure, None)}", markup=False)
        console.print(
            f"  arms: {', '.join([claim.method, *claim.baselines])}; scales: {', '.join(claim.scales)}",
            markup=False,
        )
        for name, subject in claim.subjects.items():
            default = "optional" if subject.optional else f"default {subject.default}"
            console.print(
                f"  takes your own {subject.kind}: --subject {name}=... ({default})",
                markup=False,
            )
        for (claim_id, scale), row in rows.items():
            if claim_id == claim.id and row.verdict is not None:
                console.print(
                    f"  measured at {scale}: {row.verdict.state}{' (stale)' if row.stale else ''}",
                    markup=False,
                )
        console.print(f"  caveat: {claim.caveat}", style="dim", markup=False)
        console.print(f"  run: claimbench run {paper.id}/{claim.id}\n", style="cyan", markup=False)


# --- Markdown ---


def rule_of(claim: Claim, judged: RuleVerdict) -> Rule | None:
    """The claim's rule that this judgement is of; None if the claim has been changed since."""
    from claimbench.rules.words import describe

    rules = claim.given if judged.given else claim.rules
    rule = rules[judged.index] if judged.index < len(rules) else None
    return rule if rule is not None and describe(claim, rule) == judged.text else None


def bound_words(rule: Rule | None) -> str:
    """`at least 0.5, surely beyond 0`; empty for a rule that is only reported."""
    named = (
        (("at least", rule.at_least), ("at most", rule.at_most), ("surely beyond", rule.sure)) if rule else ()
    )
    return ", ".join(f"{word} {number(bound)}" for word, bound in named if bound is not None)


def spread(cell: CellSummary) -> str:
    """`0.71 (0.69 to 0.73)`: the middle, and the lowest and highest seed where they differ."""
    if not cell.seeds:
        return "-"
    same = cell.low == cell.high
    return number(cell.middle) + ("" if same else f" ({number(cell.low)} to {number(cell.high)})")


def markdown(rows: Sequence[ReportRow]) -> str:
    """A table of claims and verdicts; then each claim's intervals against their bounds, and its arms' numbers."""
    lines = ["| claim | scale | verdict | measured | paper |", "|---|---|---|---|---|"]
    for row in rows:
        state = "-" if row.verdict is None else f"**{row.verdict.state}**"
        figures = "; ".join(f"{number(f.value)} {f.unit}".strip() for f in row.claim.figures) or "-"
        cells = (f"{row.paper.id}/{row.claim.id}", row.set.scale, state, headline(row.verdict), figures)
        lines.append(_table_line(cells))
    for row in rows:
        lines += ["", f"### {row.paper.id}/{row.claim.id} ({row.set.scale})", "", row.claim.statement, ""]
        if row.verdict is not None:
            lines += _markdown_verdict(row, row.verdict)
        lines += _markdown_cells(row)
        lines += ["", f"Caveat: {row.claim.caveat}", "", f"    {row.command}"]
    return "\n".join(
        line.replace("<", "&lt;") for line in lines
    )  # names may hold anything; Markdown takes HTML


def _markdown_verdict(row: ReportRow, verdict: Verdict) -> list[str]:
    stale = f" (stale: changed since: {', '.join(row.stale)})" if row.stale else ""
    lines = [f"**{verdict.state}**{stale}: {verdict.reason}", ""]
    for judged in verdict.rules:
        bound = bound_words(rule_of(row.claim, judged)) or "-"
        given = "given: " if judged.given else ""
        lines += [f"{given}{judged.text}: **{judged.state}**", ""]
        lines += [_table_line(("cell", "measured", "bound", "state")), "|---|---|---|---|"]
        for cell in judged.cells:
            measured = cell_value(cell) + (f" ({cell.note})" if cell.note else "")
            lines.append(_table_line((cell_name(cell), measured, bound, cell.state)))
        lines.append("")
    lines += [f"- {figure_line(figure, verdict)}" for figure in row.claim.figures]
    return [*lines, *(f"- note: {note}" for note in verdict.notes)]


def _markdown_cells(row: ReportRow) -> list[str]:
    """For each metric a table of arms by points: the middle of the seeds with their range."""
    cells = summarise(row.claim, row.set.plan, row.judged)
    points = [where(point) or "measured" for point in row.set.plan["points"]]
    lines: list[str] = []
    for name in dict.fromkeys(cell.metric for cell in cells):
        metric = row.claim.metrics[name]
        unit = f", {metric.unit}" if metric.unit else ""
        lines += [
            "",
            _table_line((f"{metric.label or name}{unit}", *points)),
            "|" + "---|" * (len(points) + 1),
        ]
        for arm in row.set.plan["arms"]:
            lines.append(_table_line((arm, *(spread(c) for c in cells if (c.metric, c.arm) == (name, arm)))))
    return lines


def _table_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def headline(verdict: Verdict | None) -> str:
    """What decided: of the first rule with the verdict's state its last cell, or its first that does not hold."""
    if verdict is None:
        return "-"
    for rule in verdict.rules:
        if rule.state == verdict.state and not rule.given and rule.cells:
            missing = [cell for cell in rule.cells if cell.state != "holds"]
            cell = missing[0] if missing and verdict.state != "holds" else rule.cells[-1]
            return f"{rule.text}: {cell_line(cell)}"
    return verdict.reason
