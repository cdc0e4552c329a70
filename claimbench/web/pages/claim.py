"""A claim: every set of it and every replication, across machines, scales and versions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote

import sqlalchemy as sa
from starlette.requests import Request

from claimbench.ledger import CODE, MEMBER, TRIAL, Ledger
from claimbench.paper import SCALES, Claim, Paper
from claimbench.report import headline, number
from claimbench.views import ClaimView, labels
from claimbench.web.answers import Missing, Moved, Page
from claimbench.web.board import Board, SetBrief
from claimbench.web.cards import claim_path, paper_path, shortened
from claimbench.web.pages.paper import machine_name
from claimbench.web.site import Site

IN_FULL = 6  # sets whose plots and numbers stand on the page; `?set=` shows any other
VERSIONS = ("torch", "numpy", "transformers", "scikit-learn", "scipy", "triton")


@dataclass(frozen=True)
class SetLine:
    """One set in the table. versions: of the packages that its trials loaded. interactive: the page of its plot."""

    uid: str
    path: str
    state: str
    sign: str
    stale: bool
    scale: str
    labels: list[str]
    measured: str
    seeds: int
    machine: str
    machine_path: str
    versions: str
    date: str
    trials: str
    interactive: str


@dataclass(frozen=True)
class ClaimPageView:
    """sets: latest first within a scale, the largest scale first. shown: those in full."""

    id: str
    paper: str
    paper_path: str
    title: str
    path: str
    statement: str
    figures: list[str]
    arms: list[str]
    method: str
    scales: list[str]
    subjects: list[str]
    varies: list[str]
    fixed: list[str]
    caveat: str
    command: str
    sets: list[SetLine]
    shown: list[ClaimView]


def claim_view(
    board: Board, paper: Paper, claim: Claim, versions: dict[str, str], only: str
) -> ClaimPageView:
    found = board.sets.get((paper.id, claim.id), [])
    ordered = sorted(found, key=lambda b: (SCALES.index(b.row.scale), b.row.serial), reverse=True)
    chosen = [brief for brief in ordered if brief.row.uid == only] if only else ordered[:IN_FULL]
    return ClaimPageView(
        id=claim.id,
        paper=paper.id,
        paper_path=paper_path(paper.id),
        title=paper.title,
        path=claim_path(paper.id, claim.id),
        statement=claim.statement,
        figures=[f"{number(f.value)} {f.unit}".strip() + f" ({f.where})" for f in claim.figures],
        arms=[claim.method, *claim.baselines],
        method=claim.method,
        scales=list(claim.scales),
        subjects=[
            f"{name}: {spec.kind}, " + ("optional" if spec.optional else f"by default {spec.default}")
            for name, spec in claim.subjects.items()
        ],
        varies=list(claim.varies),
        fixed=list(claim.fixed),
        caveat=claim.caveat,
        command=f"claimbench run {paper.id}/{claim.id}",
        sets=[_line(board, brief, versions.get(brief.row.uid, ""), chosen) for brief in ordered],
        shown=[board.view(brief) for brief in chosen],
    )


def _line(board: Board, brief: SetBrief, versions: str, chosen: list[SetBrief]) -> SetLine:
    row, uid = board.row(brief), brief.row.uid
    path = f"{claim_path(brief.row.paper, brief.row.claim)}?set={uid}"
    return SetLine(
        uid=uid,
        path=f"#set-{uid}" if brief in chosen else path,
        state=brief.state,
        sign=brief.sign,
        stale=bool(row.stale),
        scale=brief.row.scale,
        labels=[label for label in labels(row) if label != "stale"],
        measured=headline(row.verdict) if row.verdict else "",
        seeds=len({trial.seed for trial in row.judged}),
        machine=machine_name(brief),
        machine_path=f"/machine/{quote(brief.machine['id'])}",
        versions=versions,
        date=brief.row.created[:10],
        trials=str(brief.planned) if brief.filled == brief.planned else f"{brief.filled} of {brief.planned}",
        interactive=f"/plot/{uid}",
    )


def package_versions(ledger: Ledger, uids: list[str]) -> dict[str, str]:
    """For each set the versions of the packages that matter most, as its first trial loaded them."""
    first = (
        sa.select(MEMBER.c.set_uid, sa.func.min(MEMBER.c.trial).label("trial"))
        .where(MEMBER.c.set_uid.in_(uids))
        .group_by(MEMBER.c.set_uid)
        .subquery()
    )
    query = (
        sa.select(first.c.set_uid, CODE.c.packages)
        .join(TRIAL, TRIAL.c.id == first.c.trial)
        .join(CODE, CODE.c.id == TRIAL.c.code)
    )
    with ledger.read() as connection:
        rows = connection.execute(query).all()
    found = {row.set_uid: json.loads(row.packages) for row in rows}
    return {
        uid: ", ".join(f"{name} {packages[name]}" for name in VERSIONS if name in packages)
        for uid, packages in found.items()
    }


def handle(site: Site, request: Request) -> ClaimPageView:
    name, claim_id = request.path_params["paper"], request.path_params["claim"]
    board = site.board()
    wanted, claim_wanted = name.replace("_", "-"), claim_id.replace("_", "-")
    claims = [claim["id"] for claim in board.entries[wanted].claims] if wanted in board.entries else []
    if claim_wanted not in claims:
        raise Missing(f"There is no claim {shortened(f'{name}/{claim_id}', 120)} here.")
    if (wanted, claim_wanted) != (name, claim_id):
        raise Moved(claim_path(wanted, claim_wanted))
    paper = board.paper(name)
    uids = [brief.row.uid for brief in board.sets.get((name, claim_id), [])]
    only = request.query_params.get("set", "")
    if only and only not in uids:
        raise Missing("There is no such set of this claim here.")
    return claim_view(board, paper, paper.find_claim(claim_id), package_versions(site.ledger, uids), only)


PAGE = Page("/claim/{paper}/{claim}", "page/claim.html", handle)
