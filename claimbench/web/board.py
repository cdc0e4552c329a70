"""What the ledger says of the shelf's papers, as the page shows it: every set in short, its verdict as it was kept.

Nothing is judged here: `claimbench run` and `report` keep a verdict with its set, and `claimbench.web.maintenance`
judges what has none. A board is a function of one state of ledger and shelf.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from claimbench.ledger import ENVIRONMENT, MEMBER, VERDICT, Ledger, SetRow
from claimbench.paper import SCALES, Claim, Paper
from claimbench.plan import FIRST_SEED
from claimbench.report import ReportRow
from claimbench.shelf import Entry, Shelf
from claimbench.views import SIGNS, ClaimView, claim_view
from claimbench.web.recent import Recent

VIEWS_KEPT = 400  # of sets with their plots: about 40 kB each
DECIDED = ("holds", "fails", "undecided")


@dataclass(frozen=True)
class SetBrief:
    """One set: what was planned, how far it has come, and the state of its latest verdict."""

    row: SetRow
    machine: Mapping[str, Any]
    state: str  # holds, fails, undecided, no verdict
    verdict: int  # serial of the latest verdict; 0 without one
    judged: str  # the moment of the first verdict; empty without one
    planned: int
    filled: int

    @property
    def sign(self) -> str:
        return SIGNS[self.state]

    @property
    def counts(self) -> bool:
        """Whether it speaks for the paper's row: published sizes, subjects and seeds, and a verdict."""
        return self.state in DECIDED and not self.row.own and self.row.plan["first_seed"] >= FIRST_SEED


@dataclass
class Board:
    """Papers of the shelf with their sets."""

    ledger: Ledger
    entries: dict[str, Entry]
    sets: dict[tuple[str, str], list[SetBrief]]  # paper and claim -> oldest first
    code: str  # stamp of the sources: measurements are stale against these
    broken: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, ledger: Ledger, shelf: Shelf, *, code: str, private: bool) -> Board:
        """private: whether sets on somebody's own settings or subjects are among them."""
        shelf = Shelf(shelf.roots)  # its list of papers is made once: this is what is on disk at this moment
        entries = dict(shelf.entries)
        claims = {(entry.id, claim["id"]) for entry in entries.values() for claim in entry.claims}
        kept: dict[tuple[str, str], list[SetBrief]] = {}
        for brief in _briefs(ledger):
            key = (brief.row.paper, brief.row.claim)
            if key in claims and (private or not is_private(brief.row)):
                kept.setdefault(key, []).append(brief)
        return cls(ledger, entries, kept, code, list(shelf.broken))

    def of_paper(self, paper: str) -> list[SetBrief]:
        claims = self.entries[paper].claims if paper in self.entries else ()
        return [brief for claim in claims for brief in self.sets.get((paper, claim["id"]), ())]

    def all(self) -> Iterable[SetBrief]:
        for found in self.sets.values():
            yield from found

    def headline(self, paper: str, claim: str) -> SetBrief | None:
        """The set that speaks for a claim: of those that count the largest scale, then the first measurement rather
        than a replication, which never replaces it, then the latest."""
        counted = [brief for brief in self.sets.get((paper, claim), ()) if brief.counts]
        return max(
            counted,
            key=lambda b: (SCALES.index(b.row.scale), -b.row.replication, b.row.serial),
            default=None,
        )

    def tally(self, papers: Iterable[str]) -> Counter[str]:
        """How many claims of these papers hold, fail, are undecided, or were not judged."""
        found: Counter[str] = Counter()
        for paper in papers:
            for claim in self.entries[paper].claims:
                headline = self.headline(paper, claim["id"])
                found[headline.state if headline else "no verdict"] += 1
        return found

    def find(self, uid: str) -> SetBrief | None:
        return next((brief for brief in self.all() if brief.row.uid == uid), None)

    def paper(self, name: str) -> Paper:
        """Raises UserError where its file has become no paper."""
        return _papers.get((name, str(self.entries[name].folder), self.code), self.entries[name].load)

    def row(self, brief: SetBrief) -> ReportRow:
        """The set in full. Kept until its trials, its verdict or the code change."""
        uid = brief.row.uid
        key = (self.ledger.url, uid, str(brief.verdict), str(brief.filled), self.code)
        return _rows.get(key, lambda: self._row(brief))

    def view(self, brief: SetBrief) -> ClaimView:
        """With its plots."""
        uid = brief.row.uid
        key = (self.ledger.url, uid, str(brief.verdict), str(brief.filled), self.code)
        return _views.get(key, lambda: claim_view(self.row(brief), f"set-{uid}"))

    def _row(self, brief: SetBrief) -> ReportRow:
        paper = self.paper(brief.row.paper)
        uid = brief.row.uid
        return ReportRow(
            paper=paper,
            claim=stored_claim(paper.find_claim(brief.row.claim), brief.row),
            set=brief.row,
            verdict=self.ledger.verdict(uid),
            stale=tuple(self.ledger.stale(uid)),
            machine=brief.machine,
            trials=brief.planned,
            judged=tuple(self.ledger.judged(uid)),
        )


_rows: Recent[ReportRow] = Recent(VIEWS_KEPT)
_views: Recent[ClaimView] = Recent(VIEWS_KEPT)
_papers: Recent[Paper] = Recent(VIEWS_KEPT)


def stored_claim(claim: Claim, row: SetRow) -> Claim:
    """The claim with every metric that the set has: one that was renamed since is still shown by its old name."""
    try:
        old = Claim.model_validate(json.loads(row.claim_text))
    except ValueError:
        return claim
    missing = {name: metric for name, metric in old.metrics.items() if name not in claim.metrics}
    return claim.model_copy(update={"metrics": {**claim.metrics, **missing}}) if missing else claim


def is_private(row: SetRow) -> bool:
    return row.own or any(reference["private"] for reference in row.plan["subjects"].values())


def _briefs(ledger: Ledger) -> list[SetBrief]:
    """Every set of the ledger, in four queries."""
    latest = sa.select(sa.func.max(VERDICT.c.id)).group_by(VERDICT.c.set_uid)
    verdicts = sa.select(VERDICT.c.set_uid, VERDICT.c.state, VERDICT.c.id).where(VERDICT.c.id.in_(latest))
    first = sa.select(VERDICT.c.set_uid, sa.func.min(VERDICT.c.created)).group_by(VERDICT.c.set_uid)
    members = sa.select(
        MEMBER.c.set_uid, sa.func.count().label("planned"), sa.func.count(MEMBER.c.trial).label("filled")
    ).group_by(MEMBER.c.set_uid)
    with ledger.read() as connection:
        states = {row.set_uid: row for row in connection.execute(verdicts)}
        moments = {row[0]: row[1] for row in connection.execute(first)}
        counts = {row.set_uid: row for row in connection.execute(members)}
        environments = {
            row.id: json.loads(row.facts)["machine"] for row in connection.execute(sa.select(ENVIRONMENT))
        }
    found = []
    for row in ledger.sets():
        state, count = states.get(row.uid), counts.get(row.uid)
        found.append(
            SetBrief(
                row=row,
                machine=environments[row.environment],
                state=state.state if state else "no verdict",
                verdict=state.id if state else 0,
                judged=moments.get(row.uid, ""),
                planned=count.planned if count else 0,
                filled=count.filled if count else 0,
            )
        )
    return found
