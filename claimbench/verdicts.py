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
from claimbench.shelf import ask_trust, load_claims, package_of
from claimbench.spec import digest
from claimbench.summaries import setting_notes
from claimbench.trial import Derive, registry


def judge_set(ledger: Ledger, row: SetRow, claim: Claim, paper: Paper) -> Verdict | None:
    """A set's verdict under the claim's rules as they stand, kept in the ledger. None at a scale without verdicts."""
    if row.scale == "smoke":
        return None
    stamp = digest([rules_digest(claim), _judging_code(paper, claim), ledger.members(row.uid)])
    known = ledger.verdict(row.uid, stamp)
    if known is not None:
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
    ledger.save_verdict(row.uid, verdict, stamp)
    return verdict


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
