"""Stored sets to verdicts: the rules as they stand, applied to what the ledger holds, kept until either changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claimbench.currency import source_digest
from claimbench.errors import UserError
from claimbench.ledger import Ledger, SetRow
from claimbench.paper import Claim, Paper, Scale
from claimbench.plan import rules_digest
from claimbench.rules.verdict import Verdict
from claimbench.shelf import Shelf, ask_trust, load_claims, package_of
from claimbench.spec import digest
from claimbench.summaries import cells_to_text, setting_notes, summarise
from claimbench.trial import Derive, registry


def judge_set(
    ledger: Ledger, row: SetRow, claim: Claim, paper: Paper, *, anew: bool = False
) -> Verdict | None:
    """A set's verdict under the claim's rules as they stand, kept in the ledger. None at a scale without verdicts.

    anew: from the trials, whatever is kept.
    """
    if row.scale == "smoke":
        return None
    kept = ledger.summary(row.uid)
    judged = (kept.members, kept.changes) if kept.current and kept.members else ledger.content(row.uid)
    stamp = digest([rules_digest(claim), _judging_code(paper, claim), judged[0]])
    known = ledger.verdict(row.uid, stamp)
    if known is not None and not anew:
        return known
    from claimbench.rules.judging import (
        judge,  # with SciPy, which a run that has nothing to judge need not wait for
    )

    trials = ledger.judged(row.uid)
    derive = _derive(paper, claim)
    arms, points = row.plan["arms"], row.plan["points"]
    verdict = judge(
        restrict(claim, row.scale, arms, points, row.plan["sizes"]), row.scale, trials, derive=derive
    )
    discarded = ledger.discarded(row.uid)
    if discarded:
        verdict.notes.append(f"{discarded} timing rounds were discarded as disturbed and measured again")
    first = ledger.first_rules(row.paper, row.claim, row.scale, row.replication)
    if first not in (None, rules_digest(claim)):
        verdict.notes.append(
            "the rules were changed after these seeds were first measured; use --fresh for new seeds"
        )
    if row.own:
        verdict.notes.append("own setting: not comparable with the paper's row")
    verdict.notes += setting_notes(ledger, row)
    cells = cells_to_text(claim, summarise(claim, row.plan, trials))
    ledger.save_verdict(row.uid, verdict, stamp, judged=judged, cells=cells)
    return verdict


def rebuild(ledger: Ledger, shelf: Shelf) -> dict[str, int]:
    """Count all sets anew, and judge those whose papers are on the shelf by the rules as they stand.

    Verdicts of sets whose code has changed since, and of users' own settings, stand as they were given.
    """
    ledger.recount()
    rows = ledger.sets()
    papers = {row.paper for row in rows}
    claims = {
        (entry.id, claim.id): (paper, claim)
        for entry in shelf.entries.values()
        if entry.id in papers
        for paper in [entry.load()]
        for claim in paper.claim
    }
    judged = 0
    for row in rows:
        if (row.paper, row.claim) in claims and not row.own and not ledger.stale(row.uid):
            paper, claim = claims[(row.paper, row.claim)]
            judged += judge_set(ledger, row, claim, paper, anew=True) is not None
    return {"sets": len(rows), "judged": judged, "kept": len(rows) - judged}


def _derive(paper: Paper, claim: Claim) -> Derive | None:
    """The claim's @derive function, if it declares derived metrics: the one thing of a paper that judging imports."""
    if not any(metric.derived for metric in claim.metrics.values()):
        return None
    ask_trust([paper.folder], None)
    load_claims(paper.folder)
    derived = registry(f"{package_of(paper.folder)}.claims").derived
    if claim.id not in derived:
        raise UserError(
            f'{paper.folder}/claims.py: no @derive("{claim.id}"), but the claim declares derived metrics'
        )
    return derived[claim.id]


def _judging_code(paper: Paper, claim: Claim) -> list[str]:
    """Digests of what turns numbers into a verdict: the rules' modules, and claims.py where it derives numbers."""
    files = sorted((Path(__file__).parent / "rules").glob("*.py"))
    if any(metric.derived for metric in claim.metrics.values()):
        files += sorted(paper.folder.glob("*.py"))
    return [source_digest(path) for path in files]


def restrict(
    claim: Claim,
    scale: str,
    arms: Sequence[str],
    points: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, Any],
) -> Claim:
    """The claim as a set planned it: the user may have left out arms, or changed points and sizes."""
    same = list(arms) == claim.arms(scale) and [dict(p) for p in points] == claim.points(scale)
    if same and dict(sizes) == claim.sizes(scale):
        return claim
    kept = [b for b in claim.baselines if b in arms]
    old = claim.scales[scale]  # type: ignore[index]  # a set's scale is one of the claim's
    settings = Scale(
        **{**old.model_dump(), **sizes, "baselines": kept, "sweep": [dict(p) for p in points]},
    )
    return claim.model_copy(update={"scales": {**claim.scales, scale: settings}})
