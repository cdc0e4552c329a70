"""A verdict in words: one line for a rule, one for what came of it, and the notes that a reader must see."""

from __future__ import annotations

from collections.abc import Sequence

from claimbench.paper import Claim, Rule
from claimbench.rules.effects import SubRule
from claimbench.rules.verdict import Cell, Verdict

NEAR_NORMAL = 6  # with fewer seeds than this, a t interval's verdict says what it assumes


def listed(looks: Sequence[int]) -> str:
    return " and ".join(filter(None, [", ".join(str(n) for n in looks[:-1]), str(looks[-1])]))


def unreachable(seeds: int, boundary: int | None, fail_boundary: int | None, rule: Rule) -> str:
    if boundary is None:
        return f"{seeds} seeds cannot reach this level"
    if fail_boundary is None and rule.bounded:
        return f"{seeds} seeds cannot reach the level of fails"
    return ""


def sub_reason(rule: Rule, sub: SubRule, cells: Sequence[Cell]) -> str:
    """One line: how many cells hold, how many are needed, and what kept the first of the others from being
    judged."""
    against = f" against {sub.against}" if sub.against else ""
    if sub.problem:
        return f"{rule.effect} of {rule.metric}{against}: {sub.problem}"
    count = {state: sum(cell.state == state for cell in cells) for state in ("holds", "outside", "unjudged")}
    text = f"{rule.effect} of {rule.metric}{against}: {count['holds']} of {len(cells)} cells hold"
    text += f", {sub.needed} needed"
    if count["outside"]:
        text += f"; {count['outside']} outside"
    unjudged = next((cell.note for cell in cells if cell.state == "unjudged" and cell.note), "")
    if unjudged:
        return f"{text}; {unjudged}"
    unreachable = next((cell.note for cell in cells if cell.state == "unclear" and cell.note), "")
    return f"{text}; {unreachable}" if unreachable else text


def describe(claim: Claim, rule: Rule) -> str:
    """The rule as a phrase."""
    if rule.label:
        return rule.label
    name = claim.metrics[rule.metric].label or rule.metric
    text = f"{rule.effect} of {name}"
    if not claim.metrics[rule.metric].derived:
        text += f", {rule.arm or claim.method}"
    if rule.against is not None:
        text += f" against {rule.against if isinstance(rule.against, str) else ', '.join(rule.against)}"
    if rule.along:
        text += f", along {rule.along}"
    for word, bound in (("at least", rule.at_least), ("at most", rule.at_most), ("surely beyond", rule.sure)):
        if bound is not None:
            text += f", {word} {bound:g}"
    return text


def notes(claim: Claim, verdict: Verdict, partial: int, foreign: int) -> list[str]:
    notes = []
    deciding = [r for r in [*claim.rules, *claim.given] if r.bounded]
    kinds = {claim.metrics[rule.metric].kind for rule in deciding}
    if verdict.look and len(verdict.seeds) < NEAR_NORMAL and kinds & {"mean", "proportion"}:
        notes.append(f"{len(verdict.seeds)} seeds: assumes near-normal seeds")
    if verdict.failed:
        used = [
            n for n in dict.fromkeys(r.metric for r in deciding) if claim.metrics[n].on_failure is not None
        ]
        entered = ", ".join(f"{name} = {claim.metrics[name].on_failure:g}" for name in used)
        notes.append(f"{verdict.failed} trials failed" + (f" and count as {entered}" if used else ""))
    if verdict.lost:
        notes.append(f"{verdict.lost} trials were lost")
    if verdict.not_applicable:
        notes.append(f"{verdict.not_applicable} trials are not applicable here")
    if partial:
        notes.append(f"{partial} seeds are incomplete and not used")
    if foreign:
        notes.append(f"{foreign} trials are of arms or points that the claim does not have at this scale")
    return notes
