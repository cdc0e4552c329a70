"""How long the ledger's questions take with a million trials of a thousand papers in it, and how much room a trial has.

The trials are synthetic: drawn numbers, inserted in bulk; the shelf, the rules and all that is timed are real. Each
paper has one claim, and ten sets of it where there are enough trials: five in turn on each of two machines, of which
the last counts. Every time is the median of five calls in one process, after a first call that is shown beside it.

    python benchmarks/million_trials.py                                     # SQLite in a temporary folder
    python benchmarks/million_trials.py --postgresql postgresql://me@/empty  # and PostgreSQL beside it
    python benchmarks/million_trials.py --trials 20000 --papers 20
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from claimbench import report
from claimbench.ledger import CODE, ENVIRONMENT, MEMBER, TRIAL, TRIAL_SET, Ledger
from claimbench.ledger.rows import trial_values
from claimbench.machine import environment_facts
from claimbench.paper import Paper
from claimbench.plan import Plan, make_plan, rules_digest
from claimbench.shelf import Shelf
from claimbench.spec import Result, canonical, digest
from claimbench.summaries import set_cells
from claimbench.verdicts import judge_set, rebuild

GOAL = 0.3  # seconds, on SQLite
SET = 100  # trials of a set: 2 arms, 10 points, 5 seeds
MACHINES = 2
BATCH = 20_000
REPEATS = 5
PAPER = """
id = "{id}"
title = "A paper about {id}"
group = "theory"
year = 2024
authors = ["A. Author"]
summary = "It says that one thing is larger than another, and costs as much."

[[claim]]
id = "larger"
statement = "The method is larger than the baseline."
method = "method"
baselines = ["baseline"]
metrics.accuracy = {{ kind = "mean", better = "higher", resolution = 0.001 }}
metrics.state_bytes = {{ kind = "exact", better = "lower", unit = "bytes" }}
sweep = {{ n = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }}
varies = ["noise"]
rules = [{{ effect = "difference", metric = "accuracy", against = "baseline", at_least = 0.05 }}]
caveat = "Made for a benchmark."
[claim.scales.quick]
"""


@dataclass(frozen=True)
class Row:
    """What one question took, in seconds."""

    what: str
    first: float
    median: float
    goal: float | None = GOAL


def make_shelf(root: Path, papers: int) -> Shelf:
    for index in range(papers):
        folder = root / "theory" / f"paper_{index:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "paper.toml").write_text(PAPER.format(id=f"paper-{index:04d}"))
        (folder / "claims.py").write_text("")
    return Shelf([root])


def fill(store: Ledger, shelf: Shelf, trials: int, seed: int = 0) -> None:
    """Insert so many trials, as measured sets of the shelf's papers with their members. No verdicts."""
    draw = np.random.default_rng(seed)
    papers = [entry.load() for entry in shelf.entries.values()]
    code = digest([{}, {}])
    environments = [_environment(machine) for machine in range(MACHINES)]
    with store.write() as connection:
        connection.execute(CODE.insert().values(id=code, modules="{}", packages="{}"))
        for identity, facts in environments:
            values = {"id": identity, "machine": facts["machine"]["id"], "facts": canonical(facts)}
            connection.execute(ENVIRONMENT.insert().values(**values))
    plans = [make_plan(paper, paper.claim[0], scale="quick", subjects={}) for paper in papers]
    rounds = max(1, -(-trials // (SET * len(papers))))
    sets, rows, members = [], [], []
    made = 0
    for turn in range(rounds):
        for plan in plans:
            if made >= trials:
                break
            environment = environments[turn % MACHINES][0]
            chosen = set_values(plan, environment, serial=len(sets) + 1)
            for values in trial_rows(plan, environment, turn // MACHINES + 1, code, draw):
                made += 1
                rows.append({"id": made, **values})
                own = {"key": values["key"], "seed": values["seed"], "trial": made}
                members.append({"set_uid": chosen["uid"], **own})
            sets.append(chosen)
            if len(rows) >= BATCH:
                insert(store, rows, members)
    insert(store, rows, members)
    with store.write() as connection:
        connection.execute(TRIAL_SET.insert(), sets)
        if connection.dialect.name == "postgresql":
            connection.execute(
                sa.text("SELECT setval(pg_get_serial_sequence('trial', 'id'), :last)"), {"last": made}
            )
    with store.read() as connection:
        engine = connection.engine
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def _environment(machine: int) -> tuple[str, dict[str, Any]]:
    facts = environment_facts("cpu")
    facts = {**facts, "machine": {**facts["machine"], "id": f"machine-{machine}"}}
    return digest(facts), facts


def set_values(plan: Plan, environment: str, serial: int) -> dict[str, Any]:
    return {
        "uid": digest([plan.paper.id, environment, serial])[:16],
        "serial": serial,
        "paper": plan.paper.id,
        "claim": plan.claim.id,
        "scale": plan.scale,
        "environment": environment,
        "fingerprint": plan.fingerprint,
        "replication": 0,
        "own": 0,
        "plan": canonical({**plan.content(), "tuned": {}}),
        "rules_digest": rules_digest(plan.claim),
        "claim_text": plan.claim.model_dump_json(exclude_defaults=True),
        "created": "2025-06-01T00:00:00+00:00",
    }


def trial_rows(
    plan: Plan, environment: str, fence: int, code: str, draw: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """A set's trials, as the ledger stores them."""
    for spec in plan.specs(plan.seeds(plan.schedule[0])):
        accuracy = 0.6 + 0.1 * (spec.arm == "method") + draw.normal(0.0, 0.02)
        metrics = {"accuracy": accuracy, "state_bytes": 1024.0 * spec.point["n"]}
        result = Result(spec, "ok", metrics, seconds=1.5, peak_bytes=10_000_000)
        yield trial_values(result, environment, fence, code)


def insert(store: Ledger, rows: list[dict[str, Any]], members: list[dict[str, Any]]) -> None:
    """Both lists into the ledger in one transaction, then emptied."""
    if not rows:
        return
    with store.write() as connection:
        for table, values in ((TRIAL, rows), (MEMBER, members)):
            if connection.dialect.name == "postgresql":
                _copy(connection, table, values)
            else:
                connection.execute(table.insert(), values)
    rows.clear()
    members.clear()


def _copy(connection: sa.Connection, table: sa.Table, values: list[dict[str, Any]]) -> None:
    names = [column.name for column in table.c]
    driver: Any = connection.connection.driver_connection
    with driver.cursor().copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
        for value in values:
            copy.write_row([value[name] for name in names])


def timed(what: str, call: Callable[[], object], goal: float | None = GOAL) -> Row:
    took = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return Row(what, took[0], sorted(took[1:])[REPEATS // 2], goal)


def ask(store: Ledger, shelf: Shelf) -> list[Row]:
    entries = sorted(shelf.entries)
    name = entries[len(entries) // 2]
    paper: Paper = shelf.entries[name].load()
    (claim,) = paper.claim
    row = store.sets(paper=name, claim=claim.id)[-1]
    return [
        timed("list: the latest set of every plan", store.standings),
        timed("paper page", lambda: report.report([name], ledger=store, shelf=shelf)),
        timed("leaderboard", lambda: set_cells(store, row, claim)),
        timed("verdict", lambda: judge_set(store, row, claim, paper)),
        timed(
            "report of a paper, Markdown",
            lambda: report.markdown(report.report([name], ledger=store, shelf=shelf)),
        ),
        timed("report of all papers", lambda: report.report(ledger=store, shelf=shelf), None),
    ]


def bytes_used(store: Ledger) -> int:
    with store.read() as connection:
        if connection.dialect.name == "postgresql":
            sizes = (
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace = %s::regnamespace"
            )
            return int(connection.exec_driver_sql(sizes, (store.namespace,)).scalar_one())
        pages, size = (
            connection.exec_driver_sql(f"PRAGMA page_{name}").scalar_one() for name in ("count", "size")
        )
    return int(pages) * int(size)


def measure(place: str, shelf: Shelf, trials: int) -> tuple[list[Row], dict[str, float]]:
    with Ledger(place) as store:
        start = time.perf_counter()
        fill(store, shelf, trials)
        filled = time.perf_counter() - start
        start = time.perf_counter()
        done = rebuild(store, shelf)
        rebuilt = time.perf_counter() - start
        facts = {
            "trials": trials,
            "fill_seconds": filled,
            "rebuild_seconds": rebuilt,
            "sets": done["sets"],
            "bytes_a_trial": bytes_used(store) / trials,
        }
        return ask(store, shelf), facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--papers", type=int, default=1_000)
    parser.add_argument("--sqlite", metavar="FILE", help="where the file goes (default: a temporary folder)")
    parser.add_argument("--postgresql", metavar="URL", help="an empty database to measure beside it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shelf = make_shelf(Path(folder) / "shelf", options.papers)
        places = {"SQLite": options.sqlite or f"{folder}/ledger.sqlite"}
        if options.postgresql:
            places["PostgreSQL"] = options.postgresql
        found = {name: measure(place, shelf, options.trials) for name, place in places.items()}
    if options.json:
        print(
            json.dumps(
                {
                    name: {**facts, "seconds": {row.what: row.median for row in rows}}
                    for name, (rows, facts) in found.items()
                }
            )
        )
    else:
        for name, (rows, facts) in found.items():
            print(
                f"{name}: {facts['trials']:,} trials in {facts['sets']:,} sets of {options.papers:,} papers; "
                f"{facts['bytes_a_trial']:,.0f} bytes a trial; filled in {facts['fill_seconds']:.0f} s, "
                f"rebuilt in {facts['rebuild_seconds']:.0f} s\n"
            )
            print("| what | first, ms | median, ms | goal |\n|---|---|---|---|")
            for row in rows:
                goal = "-" if row.goal is None else f"{1000 * row.goal:.0f}"
                print(f"| {row.what} | {1000 * row.first:.1f} | {1000 * row.median:.1f} | {goal} |")
            print()
    sys.exit(any(row.goal is not None and row.median > row.goal for row in found["SQLite"][0]))


if __name__ == "__main__":
    main()
