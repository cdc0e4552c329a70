"""What this machine can run, which extras are missing, and whether the meters work here."""

from __future__ import annotations

import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from claimbench.errors import UserError
from claimbench.machine import this_machine
from claimbench.paths import cache_dir
from claimbench.shelf import Shelf


def doctor(*, shelf: Shelf | None = None, ledger: str | None = None) -> dict[str, Any]:
    """Findings as data: machine, packages, extras by group, meters, places, papers that can and cannot run."""
    shelf = shelf or Shelf.find()
    extras = missing_extras()
    papers = [
        {
            "paper": entry.id,
            "group": entry.group,
            "missing": sorted({m for e in entry.extras for m in extras.get(e, [])}),
        }
        for entry in shelf.entries.values()
    ]
    return {
        "machine": this_machine().facts(),
        "packages": {
            name: _version(name)
            for name in ("torch", "transformers", "numpy", "scipy", "scikit-learn", "sqlalchemy")
        },
        "extras": extras,
        "meters": _meters(),
        "cache": _place(cache_dir()),
        "ledger": _ledger(ledger),
        "papers": papers,
        "broken": list(shelf.broken),
    }


def missing_extras() -> dict[str, list[str]]:
    """For each optional group of dependencies, what is not installed."""
    found: dict[str, list[str]] = {}
    for line in metadata.requires("claimbench") or []:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?.*extra == ['\"]([^'\"]+)['\"]", line)
        if match and match[1] != "claimbench":
            missing = found.setdefault(match[2], [])
            if _version(match[1]) is None:
                missing.append(match[1])
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _meters() -> dict[str, str]:
    try:
        Path("/proc/self/clear_refs").write_text("5")
        memory = "exact: the kernel's peak can be reset"
    except OSError as error:
        memory = f"sampled: the kernel's peak cannot be reset ({error.strerror})"
    load = os.getloadavg()[0]
    cores = this_machine().cores
    timing = (
        "ready"
        if load < 0.5 * cores
        else f"load is {load:.1f} on {cores} cores: timing rounds will be discarded"
    )
    return {"memory": memory, "timing": timing}


def _place(path: Path) -> dict[str, Any]:
    there = path
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 2**30
    return {"path": str(path), "writable": os.access(there, os.W_OK), "free_gib": round(free, 1)}


def _ledger(where: str | None) -> dict[str, Any]:
    from claimbench.ledger import Ledger

    url = ""
    try:
        url = Ledger.shown(where)
        with Ledger(where) as ledger:
            return {"url": ledger.url, "sets": len(ledger.sets()), "trouble": ""}
    except UserError as error:
        return {"url": url, "sets": 0, "trouble": str(error)}


def print_findings(found: dict[str, Any]) -> None:
    machine, ledger, cache = found["machine"], found["ledger"], found["cache"]
    print(
        f"machine   {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, {machine['system']}"
    )
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_gib']:.0f} GiB)" for gpu in machine["gpus"])
    print(f"gpu       {gpus or 'none: claims run on the CPU; those that need a GPU are skipped'}")
    print(
        "packages  "
        + ", ".join(f"{name} {version or '(missing)'}" for name, version in found["packages"].items())
    )
    for extra, missing in found["extras"].items():
        if missing and extra != "test":
            print(f'extra     {extra}: missing {", ".join(missing)}; pip install "claimbench[{extra}]"')
    for meter, state in found["meters"].items():
        print(f"meter     {meter}: {state}")
    print(
        f"cache     {cache['path']} ({cache['free_gib']} GiB free{'' if cache['writable'] else ', NOT writable'})"
    )
    print(f"ledger    {ledger['trouble'] or ledger['url']} ({ledger['sets']} sets)")
    ready = [paper for paper in found["papers"] if not paper["missing"]]
    print(f"papers    {len(ready)} of {len(found['papers'])} can run here")
    for paper in found["papers"]:
        if paper["missing"]:
            print(f"          {paper['paper']} needs {', '.join(paper['missing'])}")
    for line in found["broken"]:
        print(f"broken    {line}")
