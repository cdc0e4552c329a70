"""Measured sets as files that others can read and import: an allow-list, nothing else leaves the ledger.

One file a paper and machine, one JSON object a line: a header (machine and environments, once), then sets with their
verdicts, then trials. No home paths, host names or private models' names; failures' first lines only where they name no
path. The latest two sets of each claim, scale and plan are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from claimbench import __version__
from claimbench.bench import select_claims
from claimbench.errors import UserError
from claimbench.ledger import (
    CODE,
    ENVIRONMENT,
    JSON_COLUMNS,
    MEMBER,
    SCHEMA_VERSION,
    TRIAL,
    TRIAL_SET,
    VERDICT,
    Ledger,
    SetRow,
    moment,
)
from claimbench.paths import write_atomically
from claimbench.plan import FIRST_SEED
from claimbench.rules.verdict import Verdict
from claimbench.shelf import Shelf
from claimbench.spec import canonical

FORMAT = 1
SETS_A_CLAIM = 2
TRIAL_FIELDS = (
    *(
        "key",
        "fence",
        "code",
        "paper",
        "measure",
        "arm",
        "point",
        "seed",
        "size",
        "subjects",
        "device",
        "dtype",
    ),
    *(
        "threads",
        "tuned",
        "company",
        "status",
        "metrics",
        "failure",
        "seconds",
        "peak_bytes",
        "timing",
        "artefacts",
    ),
    "created",
)
SET_FIELDS = (
    *(
        "uid",
        "paper",
        "claim",
        "scale",
        "fingerprint",
        "replication",
        "own",
        "plan",
        "rules_digest",
        "claim_text",
    ),
    "created",
)
TIMING_FIELDS = ("aa", "repeats", "load", "steal", "disturbed", "reason")
_PATH = re.compile(r"(?:[A-Za-z]:\\|~/|/)[^\s:'\"]*[/\\][^\s:'\"]*")


def publish(
    targets: str | Sequence[str] = (),
    *,
    to: str | Path = "results",
    own: bool = False,
    ledger: Ledger | str | Path | None = None,
    shelf: Shelf | None = None,
) -> list[Path]:
    """Write the latest sets of these claims (default: all) below `to`. Returns the files written."""
    shelf = shelf or Shelf.find()
    names = [targets] if isinstance(targets, str) else list(targets)
    store = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    lines: dict[tuple[str, str, str], list[SetRow]] = {}
    for paper, claim in select_claims(shelf, names, everything=not names):
        rows = [row for row in store.sets(paper=paper.id, claim=claim.id) if _publishable(store, row, own)]
        tuning = store.sets(paper=paper.id, claim=f"{claim.id}#tuning")
        latest: dict[tuple[str, str], list[SetRow]] = {}
        for row in rows:
            latest.setdefault((row.environment, row.scale), []).append(row)
        for (environment, _), found in latest.items():
            machine = store.environment(environment)["machine"]["id"]
            chosen = found[-SETS_A_CLAIM:]
            with_tuning = [t for t in tuning if t.environment == environment and t.scale == chosen[-1].scale][
                -1:
            ]
            lines.setdefault((paper.group, paper.id, machine), []).extend([*with_tuning, *chosen])
    written = []
    for (group, paper_id, machine), sets in lines.items():
        path = Path(to) / group / f"{paper_id}.{machine}.jsonl"
        content = "".join(canonical_line(line) + "\n" for line in _lines(store, sets))
        try:
            write_atomically(path, content.encode())
        except OSError as error:
            raise UserError(f"--to: {path}: {error.strerror}") from None
        written.append(path)
    return written


def canonical_line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _publishable(store: Ledger, row: SetRow, own: bool) -> bool:
    measured = row.scale != "smoke" and row.plan["first_seed"] >= FIRST_SEED and not store.unfinished(row.uid)
    return measured and (own or not row.own)


def _lines(store: Ledger, sets: Sequence[SetRow]) -> list[dict[str, Any]]:
    environments = {row.environment: store.environment(row.environment) for row in sets}
    out: list[dict[str, Any]] = [
        {
            "type": "header",
            "format": FORMAT,
            "schema": SCHEMA_VERSION,
            "claimbench": __version__,
            "environments": environments,
        }
    ]
    trials: dict[tuple[str, str, int], dict[str, Any]] = {}
    codes: set[str] = set()
    for row in sets:
        members = store.trials(row.uid)
        for trial in members:
            trials[(trial["key"], trial["environment"], trial["fence"])] = trial
            codes.add(trial["code"])
        verdict = store.verdict(row.uid)
        values = {name: value for name, value in asdict(row).items() if name in SET_FIELDS}
        values["plan"] = _without_private(row.plan)
        out.append(
            {
                "type": "set",
                "environment": row.environment,
                **values,
                "members": [[t["key"], t["fence"]] for t in members],
                "verdict": None if verdict is None else verdict.to_json(),
            }
        )
    with store.read() as connection:
        for code in connection.execute(sa.select(CODE).where(CODE.c.id.in_(codes))):
            out.append(
                {
                    "type": "code",
                    "id": code.id,
                    "modules": json.loads(code.modules),
                    "packages": json.loads(code.packages),
                }
            )
    for trial in trials.values():
        allowed = {name: trial[name] for name in TRIAL_FIELDS}
        allowed["subjects"] = {name: _public_subject(ref) for name, ref in trial["subjects"].items()}
        allowed["timing"] = {name: trial["timing"][name] for name in TIMING_FIELDS if name in trial["timing"]}
        allowed["failure"] = _PATH.sub("<path>", trial["failure"])
        out.append({"type": "trial", "environment": trial["environment"], **allowed})
    return out


def _public_subject(ref: dict[str, Any]) -> dict[str, Any]:
    private = ref["private"]
    return {
        "kind": ref["kind"],
        "value": "own" if private else ref["value"],
        "identity": ref["identity"],
        "path": "",
        "label": "own" if private else ref["label"],
        "private": private,
    }


def _without_private(plan: dict[str, Any]) -> dict[str, Any]:
    subjects = {n: {**r, "label": "own" if r["private"] else r["label"]} for n, r in plan["subjects"].items()}
    return {**plan, "subjects": subjects}


def import_results(
    files: Sequence[str | Path], *, ledger: Ledger | str | Path | None = None
) -> dict[str, Any]:
    """Read published files into the ledger; what is there already stays. A damaged line is named and skipped."""
    store = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    summary: dict[str, Any] = {"sets": 0, "trials": 0, "known": 0, "damaged": []}
    for name in files:
        path = Path(name)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UserError(f"import: {path}: {error.strerror}") from None
        _import_file(store, path, raw, summary)
    return summary


def _import_file(store: Ledger, path: Path, raw: bytes, summary: dict[str, Any]) -> None:
    parsed: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            _check_line(value)
        except (ValueError, KeyError, TypeError) as error:
            summary["damaged"].append(f"{path}:{number}: {type(error).__name__}: {error}")
            continue
        parsed.append((number, value))
    if not any(value["type"] == "header" for _, value in parsed):
        raise UserError(f"import: {path}: no header line; is it a file that claimbench publish wrote?")
    order = {"header": 0, "code": 1, "trial": 2, "set": 3}
    with store.write() as connection:
        ids: dict[tuple[str, int], int] = {}
        for number, value in sorted(parsed, key=lambda p: order[p[1]["type"]]):
            try:
                with connection.begin_nested():
                    _import_line(connection, value, ids, summary)
            except (KeyError, TypeError, ValueError, sa.exc.StatementError) as error:
                summary["damaged"].append(
                    f"{path}:{number}: {type(error).__name__}: {str(error).splitlines()[0]}"
                )


def _check_line(value: Any) -> None:
    if not isinstance(value, dict) or value.get("type") not in ("header", "code", "trial", "set"):
        raise ValueError("not a line of a published file")
    if value["type"] == "header" and value["format"] > FORMAT:
        raise UserError(
            f"import: the file has format {value['format']}, this claimbench knows {FORMAT}; update claimbench"
        )
    if value["type"] == "trial":
        missing = {*TRIAL_FIELDS, "environment"} - value.keys()
        if missing:
            raise ValueError(f"a trial without {', '.join(sorted(missing))}")
        if not all(isinstance(number, int | float) for number in value["metrics"].values()):
            raise ValueError("a metric that is no number")


def _import_line(
    connection: sa.Connection, value: dict[str, Any], ids: dict[tuple[str, int], int], summary: dict[str, Any]
) -> None:
    kind = value["type"]
    if kind == "header":
        for identity, facts in value["environments"].items():
            if connection.scalar(sa.select(ENVIRONMENT.c.id).where(ENVIRONMENT.c.id == identity)) is None:
                row = {"id": identity, "machine": facts["machine"]["id"], "facts": canonical(facts)}
                connection.execute(ENVIRONMENT.insert().values(**row))
    elif kind == "code":
        if connection.scalar(sa.select(CODE.c.id).where(CODE.c.id == value["id"])) is None:
            row = {
                "id": value["id"],
                "modules": canonical(value["modules"]),
                "packages": canonical(value["packages"]),
            }
            connection.execute(CODE.insert().values(**row))
    elif kind == "trial":
        where = (
            (TRIAL.c.key == value["key"])
            & (TRIAL.c.environment == value["environment"])
            & (TRIAL.c.fence == value["fence"])
        )
        known = connection.scalar(sa.select(TRIAL.c.id).where(where))
        if known is None:
            row = {n: json.dumps(value[n]) if n in JSON_COLUMNS else value[n] for n in TRIAL_FIELDS}
            inserted = connection.execute(TRIAL.insert().values(**row, environment=value["environment"]))
            assert inserted.inserted_primary_key is not None
            known = inserted.inserted_primary_key[0]
            summary["trials"] += 1
        else:
            summary["known"] += 1
        ids[(value["key"], value["fence"])] = known
    else:
        _import_set(connection, value, ids, summary)


def _import_set(
    connection: sa.Connection, value: dict[str, Any], ids: dict[tuple[str, int], int], summary: dict[str, Any]
) -> None:
    if connection.scalar(sa.select(TRIAL_SET.c.uid).where(TRIAL_SET.c.uid == value["uid"])) is not None:
        return
    serial = (connection.scalar(sa.select(sa.func.max(TRIAL_SET.c.serial))) or 0) + 1
    row = {name: value[name] for name in SET_FIELDS}
    row.update(
        plan=canonical(value["plan"]), own=int(value["own"]), serial=serial, environment=value["environment"]
    )
    connection.execute(TRIAL_SET.insert().values(**row))
    seeds = {
        key: connection.scalar(sa.select(TRIAL.c.seed).where(TRIAL.c.id == trial))
        for (key, _), trial in ids.items()
    }
    members = [
        {"set_uid": value["uid"], "key": key, "seed": seeds[key], "trial": ids[(key, fence)]}
        for key, fence in value["members"]
        if (key, fence) in ids
    ]
    if members:
        connection.execute(MEMBER.insert(), members)
    if value["verdict"] is not None:
        verdict = Verdict.from_json(value["verdict"])
        content = {"set_uid": value["uid"], "state": verdict.state, "content": canonical(verdict.to_json())}
        connection.execute(VERDICT.insert().values(**content, stamp="imported", created=moment()))
    summary["sets"] += 1


def published_sets(folder: str | Path) -> list[dict[str, Any]]:
    """The set lines of every published file below a folder, each with its machine: what README and pages cite."""
    found = []
    for path in sorted(Path(folder).rglob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        environments = next(line["environments"] for line in lines if line["type"] == "header")
        found += [
            {**line, "machine": environments[line["environment"]]["machine"]}
            for line in lines
            if line["type"] == "set"
        ]
    return found
