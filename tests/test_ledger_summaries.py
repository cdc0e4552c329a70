"""What the ledger keeps ready of every set: right after every write, equal to what is made anew, found by an index."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from test_ledger import ENVIRONMENT, make_set, measure, rows, spec
from toy import MakePaper

from claimbench.ledger import Ledger, SetRow
from claimbench.paper import Paper, load_paper
from claimbench.plan import Plan, make_plan, rules_digest
from claimbench.report import report
from claimbench.shelf import Shelf
from claimbench.spec import Result, TrialSpec
from claimbench.summaries import set_cells, summarise
from claimbench.verdicts import judge_set, rebuild

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import million_trials

STEPS = 60


def planned(store: Ledger, paper: Paper, seeds: int = 5) -> tuple[Plan, SetRow, list[TrialSpec]]:
    plan = make_plan(paper, paper.claim[0], scale="quick", subjects={})
    row = store.create_set(
        paper=paper.id,
        claim=plan.claim.id,
        scale="quick",
        environment=ENVIRONMENT,
        fingerprint=plan.fingerprint,
        replication=0,
        own=False,
        plan={**plan.content(), "tuned": {}},
        rules_digest=rules_digest(plan.claim),
        claim_text=plan.claim.model_dump_json(exclude_defaults=True),
    )
    specs = plan.specs(plan.seeds(seeds))
    store.add_members(row.uid, specs)
    return plan, row, specs


def assert_counts_are_right(store: Ledger) -> None:
    counted = rows(store, "select set_uid, count(*), count(trial) from member group by set_uid")
    kept = store.summaries()
    for uid, members, filled in counted:
        assert (kept[uid].planned, kept[uid].filled) == (members, filled)
    assert {uid for uid, summary in kept.items() if summary.planned} == {uid for uid, _, _ in counted}


def test_verdicts_are_those_made_anew_whatever_was_written(place: str, make_paper: MakePaper) -> None:
    """Random trials, lost ones, and rows deleted or emptied behind the ledger's back."""
    paper = load_paper(make_paper() / "paper.toml")
    draw = random.Random(7)
    with Ledger(place) as store:
        plan, row, specs = planned(store, paper)
        seen = set()

        def add(status: str) -> None:
            chosen = [s for s in specs if s.key in store.unfinished(row.uid)]
            some = draw.sample(chosen, min(len(chosen), draw.randint(1, 12)))
            assert store.take(some, ENVIRONMENT, "me")
            effect = draw.choice([0.0, 1.0, 1.0, 1.0])
            results = [
                Result(s, status, {"size": s.point["n"] + effect * (s.arm == "method") + draw.gauss(0, 0.05)})  # type: ignore[arg-type]  # one of its words
                for s in some
            ]
            store.record(results, ENVIRONMENT, "me", [row.uid])

        def change(statement: str) -> None:
            with store.write() as connection:
                connection.execute(sa.text(statement), {"uid": row.uid, "seed": 1000 + draw.randrange(5)})

        deeds: list[Callable[[], None]] = [
            *[lambda: add("ok")] * 6,
            lambda: add("failed"),
            lambda: add("lost"),
            lambda: change("update member set trial = null where set_uid = :uid and seed = :seed"),
            lambda: change("delete from trial where seed = :seed and arm = 'baseline' and :uid = :uid"),
            lambda: change("delete from member where set_uid = :uid and seed = :seed"),
            lambda: store.add_members(row.uid, specs),
        ]
        for _ in range(STEPS):
            draw.choice(deeds)()
            assert_counts_are_right(store)
            kept = judge_set(store, row, plan.claim, paper)
            summary = store.summary(row.uid)
            assert kept is not None
            assert summary.current
            assert summary.state == kept.state
            cells = summarise(plan.claim, row.plan, store.judged(row.uid))
            assert list(map(repr, set_cells(store, row, plan.claim))) == list(
                map(repr, cells)
            )  # NaN equals NaN
            anew = judge_set(store, row, plan.claim, paper, anew=True)
            assert anew is not None
            assert anew.to_json() == kept.to_json()
            seen.add(json.dumps(kept.to_json()))
        assert len(seen) > STEPS / 3  # what was written did change what was judged


def test_a_summary_knows_that_its_verdict_is_of_other_trials(place: str, make_paper: MakePaper) -> None:
    paper = load_paper(make_paper() / "paper.toml")
    with Ledger(place) as store:
        plan, row, specs = planned(store, paper)
        measure(store, row, specs[:20], metrics={"size": 1.0})
        assert not store.summary(row.uid).current
        judge_set(store, row, plan.claim, paper)
        assert store.summary(row.uid).current
        measure(store, row, specs[20:], metrics={"size": 2.0})
        assert not store.summary(row.uid).current
        verdict = judge_set(store, row, plan.claim, paper)
        assert verdict is not None
        assert (store.summary(row.uid).state, store.summary(row.uid).current) == (verdict.state, True)


def test_a_lost_trial_counts_in_the_verdict_though_it_fills_no_member(
    place: str, make_paper: MakePaper
) -> None:
    paper = load_paper(make_paper() / "paper.toml")
    with Ledger(place) as store:
        plan, row, specs = planned(store, paper)
        measure(store, row, specs[1:], metrics={"size": 1.0})
        before = judge_set(store, row, plan.claim, paper)
        measure(store, row, specs[:1], status="lost", metrics={}, failure="killed by signal 9")
        after = judge_set(store, row, plan.claim, paper)
        assert before is not None
        assert after is not None
        assert (before.lost, after.lost) == (0, 1)


def test_the_command_makes_all_anew(place: str, tmp_path: Path, make_paper: MakePaper) -> None:
    paper = load_paper(make_paper() / "paper.toml")
    with Ledger(place) as store:
        _, row, specs = planned(store, paper)
        measure(store, row, specs, metrics={"size": 1.0})
        with store.write() as connection:
            connection.execute(
                sa.text("update summary set planned = 7, filled = 7, state = 'holds', judged_at = changes")
            )
        words = [sys.executable, "-m", "claimbench", "rebuild", "--json", "--ledger", place]
        done = subprocess.run([*words, "--shelf", str(tmp_path / "shelf")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"sets": 1, "judged": 1, "kept": 0}
        assert_counts_are_right(store)
        assert (store.summary(row.uid).state, store.summary(row.uid).current) == ("fails", True)


def test_an_older_ledger_gets_summaries_and_keeps_its_verdicts(tmp_path: Path, make_paper: MakePaper) -> None:
    """A ledger of the first version: the same tables, without plans, summaries and their triggers."""
    paper = load_paper(make_paper() / "paper.toml")
    path = tmp_path / "l.sqlite"
    with Ledger(path) as store:
        plan, row, specs = planned(store, paper)
        measure(store, row, specs, metrics={"size": 1.0})
        verdict = judge_set(store, row, plan.claim, paper)
        triggers = rows(store, "select name from sqlite_master where type = 'trigger'")
        assert len(triggers) == 7
        with store.write() as connection:
            for (name,) in triggers:
                connection.execute(sa.text(f"drop trigger {name}"))
            for what in ("table summary", "table planned", "index lease_owner"):
                connection.execute(sa.text(f"drop {what}"))
            connection.execute(sa.text("update meta set value = '1' where name = 'schema'"))
    with Ledger(path) as store:
        assert verdict is not None
        assert_counts_are_right(store)
        assert (store.summary(row.uid).state, store.summary(row.uid).current) == (verdict.state, True)
        assert judge_set(store, row, plan.claim, paper) == verdict
        assert len(rows(store, "select id from verdict")) == 1
        assert len(rows(store, "select name from sqlite_master where type = 'trigger'")) == 7
        measure(store, make_set(store, [spec()]), [spec()])
        assert_counts_are_right(store)


# --- many trials ---

HOT = ("trial", "member", "lease", "summary")  # tables that grow with every trial or set
SCANS = {  # each of these reads all of a table that has one row a set, on purpose
    "standings": {"summary"},
}


def explained(store: Ledger, statements: list[tuple[str, object]]) -> list[str]:
    """The steps of the databases' plans for these statements."""
    steps = []
    with store.read() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if not sqlite:
            connection.exec_driver_sql(
                "SET LOCAL enable_seqscan = off"
            )  # tables are too small to need an index
        for statement, parameters in statements:
            asked = f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{statement}"
            steps += [str(tuple(row)[-1]) for row in connection.exec_driver_sql(asked, parameters)]
    return steps


def scanned(steps: list[str]) -> set[str]:
    """Tables that are read from end to end."""
    whole = re.compile(r"(?:^SCAN (\w+)(?! USING (?:COVERING )?INDEX)|Seq Scan on (\w+))")
    return {name for step in steps for found in whole.findall(step) for name in found if name}


def test_hot_queries_go_by_an_index(place: str, tmp_path: Path) -> None:
    shelf = million_trials.make_shelf(tmp_path / "shelf", 4)
    said: list[tuple[str, object]] = []
    with Ledger(place) as store:
        million_trials.fill(store, shelf, 4000)
        rebuild(store, shelf)
        paper = shelf.entries["paper-0002"].load()
        (claim,) = paper.claim
        row = store.sets(paper=paper.id, claim=claim.id)[-1]
        plan = make_plan(paper, claim, scale="quick", subjects={})
        specs = plan.specs([5000])
        engine = store._engine

        def note(_c: object, _u: object, statement: str, parameters: object, *_: object) -> None:
            if statement.lstrip().upper().startswith(("SELECT", "UPDATE")):
                said.append((statement, parameters))

        calls: dict[str, Callable[[], object]] = {
            "standings": store.standings,
            "summary": lambda: store.summary(row.uid),
            "paper page": lambda: report([paper.id], ledger=store, shelf=Shelf(shelf.roots)),
            "leaderboard": lambda: set_cells(store, row, claim),
            "verdict": lambda: judge_set(store, row, claim, paper),
            "verdict anew": lambda: judge_set(store, row, claim, paper, anew=True),
            "plan": lambda: store.add_members(row.uid, specs),
            "reuse": lambda: store.reuse(row.uid, row.environment),
            "take": lambda: store.take(specs, row.environment, "me"),
            "renew": lambda: store.renew("me"),
            "held": lambda: store.held([specs[0].key], row.environment, "you"),
            "finished": lambda: store.finished_since(0, [specs[0].key], row.environment),
            "lacks": lambda: store.lacks(row.uid, [specs[0].key]),
            "record": lambda: store.record(
                [Result(s, "ok", {"accuracy": 1.0}) for s in specs], row.environment, "me", [row.uid]
            ),
            "release": lambda: store.release("me"),
            "expected": lambda: store.expected_seconds(paper.id, "larger"),
        }
        for name, call in calls.items():
            said.clear()
            sa.event.listen(engine, "before_cursor_execute", note)
            try:
                call()
            finally:
                sa.event.remove(engine, "before_cursor_execute", note)
            assert said, name
            asked = [
                (s, p)
                for s, p in said
                if not s.startswith("SELECT pg_advisory") and "clock_timestamp" not in s
            ]
            if any("UPDATE" in s.upper() for s, _ in asked) and not place.endswith("sqlite"):
                asked = [(s, p) for s, p in asked if not s.lstrip().upper().startswith("UPDATE")]
            over = scanned(explained(store, asked)) & set(HOT)
            assert over <= SCANS.get(name, set()), (name, over)


def test_a_bulk_fill_is_what_the_ledger_makes_one_by_one(place: str, tmp_path: Path) -> None:
    """The benchmark's rows are rows as the ledger writes them: every verdict is found, and none is missing a trial."""
    shelf = million_trials.make_shelf(tmp_path / "shelf", 2)
    with Ledger(place) as store:
        million_trials.fill(store, shelf, 600)
        assert rebuild(store, shelf) == {"sets": 6, "judged": 6, "kept": 0}
        assert_counts_are_right(store)
        found = report(ledger=store, shelf=shelf)
        assert [(row.paper.id, row.trials, len(row.judged)) for row in found] == [
            (f"paper-{number:04d}", 100, 100) for number in (0, 0, 1, 1)
        ]
        assert all(row.verdict is not None and len(row.verdict.seeds) == 5 for row in found)
        assert len(store.standings()) == 4
        assert rows(store, "select count(*) from trial") == [(600,)]


def test_the_benchmark_runs_small(tmp_path: Path) -> None:
    program = Path(million_trials.__file__)
    words = [sys.executable, str(program), "--trials", "2000", "--papers", "4", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["SQLite"]
    assert (found["trials"], found["sets"]) == (2000, 20)
    assert 200 < found["bytes_a_trial"] < 2000
    assert set(found["seconds"]) >= {"paper page", "leaderboard", "verdict"}
