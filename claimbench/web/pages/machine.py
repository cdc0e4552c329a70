"""A machine: what it is, and what was measured on it. A machine's id is a digest; no host is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request

from claimbench.views import SIGNS, STATES
from claimbench.web.answers import Missing, Page
from claimbench.web.board import Board, SetBrief
from claimbench.web.cards import Tally, Verdict, verdict
from claimbench.web.site import Site


@dataclass(frozen=True)
class MachineView:
    """facts: name and words. sets: verdicts, latest first, and sets without one."""

    id: str
    facts: list[tuple[str, str]]
    tally: tuple[Tally, ...]
    sets: list[Verdict]


@dataclass(frozen=True)
class MachineLine:
    path: str
    name: str
    sets: int


@dataclass(frozen=True)
class MachinesView:
    machines: list[MachineLine]


def machine_view(board: Board, identity: str, found: list[SetBrief]) -> MachineView:
    """found: its sets, oldest first."""
    machine = found[-1].machine
    gpus = [f"{gpu['name']}" for gpu in machine["gpus"]]
    counts = Counter(brief.state for brief in found)
    facts = [
        ("Accelerators", ", ".join(gpus) or "none"),
        ("Processor", str(machine["cpu"])),
        ("Cores", str(machine["cores"])),
        ("Memory", f"{machine['memory_gib']:g} GiB"),
        ("System", str(machine.get("system", ""))),
        ("Id", identity),
    ]
    return MachineView(
        id=identity,
        facts=[(name, words) for name, words in facts if words],
        tally=tuple(Tally(state, SIGNS[state], counts[state]) for state in STATES if counts[state]),
        sets=[verdict(board, brief) for brief in reversed(found)],
    )


def machines_view(board: Board) -> MachinesView:
    found: dict[str, list[SetBrief]] = {}
    for brief in board.all():
        found.setdefault(brief.machine["id"], []).append(brief)
    lines = [
        MachineLine(f"/machine/{quote(identity)}", _name(sets[-1]), len(sets))
        for identity, sets in found.items()
    ]
    return MachinesView(sorted(lines, key=lambda line: -line.sets))


def _name(brief: SetBrief) -> str:
    gpus = [gpu["name"] for gpu in brief.machine["gpus"]]
    return ", ".join([*gpus, brief.machine["cpu"], f"{brief.machine['cores']} cores"])


def handle(site: Site, request: Request) -> MachineView:
    identity = request.path_params["id"]
    board = site.board()
    found = [brief for brief in board.all() if brief.machine["id"] == identity]
    if not found:
        raise Missing("Nothing that is shown here was measured on such a machine.")
    return machine_view(board, identity, sorted(found, key=lambda brief: brief.row.serial))


def handle_all(site: Site, request: Request) -> MachinesView:
    return machines_view(site.board())


PAGE = Page("/machine/{id}", "page/machine.html", handle)
ALL = Page("/machines", "page/machines.html", handle_all)
