"""The commands that measure: `run` on this machine, `plan` for others, `work` at what is planned."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from claimbench import flags
from claimbench.work import options as shared
from claimbench.work.options import AsJson, Jobs, LedgerAt, Shelves, Targets, Trust


def run(
    targets: Targets = None,
    group: shared.Group = None,
    everything: shared.Everything = False,
    scale: shared.Scale = "quick",
    device: shared.Device = "auto",
    size: shared.Sizes = None,
    at: shared.At = None,
    arm: shared.Arms = None,
    subject: shared.Subjects = None,
    model: shared.Model = None,
    data: shared.Data = None,
    jobs: Jobs = None,
    time_limit: shared.TimeLimit = None,
    memory_limit: shared.MemoryLimit = None,
    fresh: shared.Fresh = False,
    fresh_setup: Annotated[bool, typer.Option("--fresh-setup", help="Build shared set-up again.")] = False,
    until_decided: shared.UntilDecided = False,
    development: shared.Development = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, and what it could see.")
    ] = False,
    fail_on: Annotated[
        str, typer.Option(metavar="STATES", help="Exit 3 at these verdicts: fails,undecided.")
    ] = "",
    trust: Trust = False,
    ledger: LedgerAt = None,
    shelf: Shelves = None,
    as_json: AsJson = False,
) -> None:
    """Measure claims and judge them. What is finished is kept: the same command goes on where it stopped."""
    states = flags.states(fail_on)
    from claimbench import bench

    options = shared.planning(
        group=group,
        everything=everything,
        scale=scale,
        device=device,
        size=size,
        at=at,
        arms=arm or [],
        subject=subject,
        model=model,
        data=data,
        time_limit=time_limit,
        memory_limit=memory_limit,
        development=development,
        shelf=shelf,
    )
    if dry_run:
        from claimbench.dry import describe, print_description

        plans, skipped = bench.plan(targets or [], **options)
        described = describe(plans, skipped, ledger=ledger, jobs=jobs)
        shared.print_json(described) if as_json else print_description(described)
        return
    options.update(
        jobs=jobs, fresh=fresh, fresh_setup=fresh_setup, until_decided=until_decided, ledger=ledger
    )
    options["may_trust"] = (lambda root: True) if trust else shared.ask_trust
    from claimbench.progress import Display

    with Display(quiet=as_json) as display:
        outcomes = bench.run(targets or [], on_step=display.step, **options)
    shared.show_outcomes(outcomes, as_json)
    if states & {o.verdict.state for o in outcomes if o.verdict is not None}:
        raise typer.Exit(3)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


def plan(
    targets: Targets = None,
    group: shared.Group = None,
    everything: shared.Everything = False,
    scale: shared.Scale = "quick",
    device: shared.Device = "auto",
    size: shared.Sizes = None,
    at: shared.At = None,
    arm: shared.Arms = None,
    subject: shared.Subjects = None,
    model: shared.Model = None,
    data: shared.Data = None,
    time_limit: shared.TimeLimit = None,
    memory_limit: shared.MemoryLimit = None,
    fresh: shared.Fresh = False,
    until_decided: shared.UntilDecided = False,
    development: shared.Development = False,
    here: Annotated[
        bool, typer.Option("--here", help="For this very machine, not for all of its kind.")
    ] = False,
    ledger: LedgerAt = None,
    shelf: Shelves = None,
    as_json: AsJson = False,
) -> None:
    """Write sets for workers and print the trials that they lack. Nothing runs: that is `claimbench work`, anywhere."""
    from claimbench import bench
    from claimbench.ledger import Ledger
    from claimbench.work.planning import write
    from claimbench.work.words import print_written

    options = shared.planning(
        group=group,
        everything=everything,
        scale=scale,
        device=device,
        size=size,
        at=at,
        arms=arm or [],
        subject=subject,
        model=model,
        data=data,
        time_limit=time_limit,
        memory_limit=memory_limit,
        development=development,
        shelf=shelf,
    )
    plans, skipped = bench.plan(targets or [], **options)
    with Ledger(ledger) as store:
        written = write(store, plans, here=here, fresh=fresh, until_decided=until_decided)
    if as_json:
        left_out = [
            {"paper": o.paper, "claim": o.claim, "scale": o.scale, "skipped": o.skipped} for o in skipped
        ]
        shared.print_json([*(item.to_json() for item in written), *left_out])
    else:
        print_written(written, skipped)


def work(
    targets: Targets = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only this part of the trials (default: whatever is free)."),
    ] = None,
    jobs: Jobs = None,
    trust: Trust = False,
    ledger: LedgerAt = None,
    shelf: Shelves = None,
    as_json: AsJson = False,
) -> None:
    """Run planned trials that the ledger lacks, beside any number of others who do. See `claimbench plan`."""
    from claimbench.ledger import Ledger
    from claimbench.work.words import Progress, print_worked
    from claimbench.work.working import Shard
    from claimbench.work.working import work as work_on

    part = None if shard is None else Shard.parse(shard)
    with Ledger(ledger) as store, Progress(quiet=as_json) as progress:
        worked = work_on(
            targets or [],
            ledger=store,
            shelf=shared.find_shelf(shelf),
            shard=part,
            jobs=jobs,
            on_step=progress.step,
            may_trust=(lambda root: True) if trust else shared.ask_trust,
        )
    if as_json:
        shared.show_outcomes(worked.outcomes, as_json)
    else:
        print_worked(worked)
    if worked.refused:
        for line in worked.refused:
            print(f"claimbench: {line}", file=sys.stderr)
        raise typer.Exit(2)
    lost = part is None and any(outcome.missing for outcome in worked.outcomes)
    if lost or any(outcome.failed for outcome in worked.outcomes):
        raise typer.Exit(1)
