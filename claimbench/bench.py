"""What the command line does, as functions: `plan`, `run`, `recheck`.

`run` takes names, paths, hub ids and `SubjectRef`s as subjects. One direction: shelf, plan, ledger, runner, rules.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from claimbench.errors import UserError, nearest
from claimbench.ledger import Ledger
from claimbench.machine import choose_device, environments, memory_bytes, this_machine
from claimbench.paper import SCALES, Claim, Paper
from claimbench.plan import Overrides, Plan, make_plan
from claimbench.recheck import recheck_set
from claimbench.session import OnStep, Outcome, Session
from claimbench.shelf import Shelf, ask_trust
from claimbench.spec import SubjectRef

MODEL_KINDS = ("causal-lm", "chat", "sentence-encoder")  # what --model means, the first that a claim takes
DATA_KINDS = ("text", "table", "images")  # the same for --data


def select_claims(
    shelf: Shelf, targets: Sequence[str], *, group: str | None = None, everything: bool = False
) -> list[tuple[Paper, Claim]]:
    """The claims meant by the words of the command line, in shelf order, each once."""
    if not targets and group is None and not everything:
        raise UserError("nothing to run: name a PAPER or PAPER/CLAIM, or use --group GROUP or --all")
    found: dict[str, tuple[Paper, Claim]] = {}
    names = list(targets)
    if group is not None:
        groups = {entry.group for entry in shelf.entries.values()}
        if group not in groups:
            raise UserError(f'--group: no group "{group}" on the shelf{nearest(group, groups)}')
        names += [entry.id for entry in shelf.entries.values() if entry.group == group]
    if everything:
        names += list(shelf.entries)
    for name in names:
        paper, claims = shelf.resolve(name)
        for claim in claims:
            found.setdefault(f"{paper.id}/{claim.id}", (paper, claim))
    return list(found.values())


def plan(
    targets: str | Sequence[str] = (),
    *,
    group: str | None = None,
    everything: bool = False,
    scale: str = "quick",
    device: str = "auto",
    sizes: Mapping[str, Any] | None = None,
    at: Mapping[str, Sequence[Any]] | None = None,
    arms: Sequence[str] = (),
    subjects: Mapping[str, Any] | None = None,
    model: Any = None,
    data: Any = None,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    development: bool = False,
    shelf: Shelf | None = None,
) -> tuple[list[Plan], list[Outcome]]:
    """The sets that `run` would write, and the claims it would skip with the reason. Runs nothing."""
    if scale not in SCALES:
        raise UserError(f'--scale: no scale "{scale}"{nearest(scale, SCALES)}')
    shelf = shelf or Shelf.find()
    chosen = select_claims(
        shelf, [targets] if isinstance(targets, str) else targets, group=group, everything=everything
    )
    where = choose_device(device)
    given = dict(subjects or {})
    plans: list[Plan] = []
    skipped: list[Outcome] = []
    used: set[str] = set()
    taken: set[str] = set()
    for paper, claim in chosen:
        outcome = Outcome(paper.id, claim.id, scale)
        replaced = _replacements(claim, given, model, data)
        taken |= {name for name in given if name in claim.subjects}
        if (model is not None or data is not None) and not replaced:
            skipped.append(replace(outcome, skipped=_takes_none(claim, model, data)))
            continue
        if scale not in claim.scales:
            skipped.append(replace(outcome, skipped=f"needs --scale {next(iter(claim.scales))}"))
            continue
        if claim.scales[scale].gpu and where == "cpu":
            skipped.append(replace(outcome, skipped=f"scale {scale} needs a GPU"))
            continue
        known_sizes = {k: v for k, v in (sizes or {}).items() if k in claim.sizes(scale) or k == "dtype"}
        points = claim.points(scale)
        known_at = {k: v for k, v in (at or {}).items() if points and k in points[0]}
        used |= {*known_sizes, *known_at}
        several = len(chosen) > 1
        overrides = Overrides(
            known_sizes if several else sizes or {}, known_at if several else at or {}, arms
        )
        plans.append(
            make_plan(
                paper,
                claim,
                scale=scale,
                subjects=_subjects(claim, scale, replaced),
                device=where,
                overrides=overrides,
                development=development,
                time_limit=time_limit,
                memory_limit=memory_limit,
                own=_differ(claim, scale, replaced),
            )
        )
    for flag, names, known in (
        ("--size", sizes or {}, used),
        ("--at", at or {}, used),
        ("--subject", given, taken),
    ):
        for name in names:
            if plans and name not in known:
                options = {s for p in plans for s in (p.claim.subjects if flag == "--subject" else p.sizes)}
                raise UserError(f'{flag}: none of these claims has "{name}"{nearest(name, options)}')
    return plans, skipped


def _replacements(claim: Claim, given: Mapping[str, Any], model: Any, data: Any) -> dict[str, Any]:
    """The user's subjects by the claim's names for them; what is named by itself goes before --model and --data."""
    replaced = {name: value for name, value in given.items() if name in claim.subjects}
    for value, kinds in ((model, MODEL_KINDS), (data, DATA_KINDS)):
        if value is not None:
            replaced = {**dict.fromkeys(_meant(claim, kinds), value), **replaced}
    return replaced


def _meant(claim: Claim, kinds: Sequence[str]) -> list[str]:
    """The subjects that --model or --data replaces: all of the first kind that the claim needs.

    An optional subject is meant only where the claim needs none of these kinds and it is the only one of its own.
    """
    needed, optional = (
        [[n for n, s in claim.subjects.items() if s.kind == kind and s.optional is free] for kind in kinds]
        for free in (False, True)
    )
    return next((names for names in [*needed, *(o for o in optional if len(o) == 1)] if names), [])


def _takes_none(claim: Claim, model: Any, data: Any) -> str:
    words, named = [], []
    for value, word, kinds in ((model, "model", MODEL_KINDS), (data, "data", DATA_KINDS)):
        if value is not None:
            words.append(word)
            named += [f"--subject {name}=..." for name, spec in claim.subjects.items() if spec.kind in kinds]
    if named:
        return f"has several subjects that {' or '.join(f'--{w}' for w in words)} could mean; say {' or '.join(named)}"
    return f"takes no {' and '.join(words)} of the user's"


def _defaults(claim: Claim, scale: str) -> dict[str, str]:
    """The names of a scale's subjects; an empty one is absent unless the user gives it."""
    changed = claim.scales[scale].subjects or {}  # type: ignore[index]  # checked by the caller
    return {name: changed.get(name, spec.default) for name, spec in claim.subjects.items()}


def _differ(claim: Claim, scale: str, replaced: Mapping[str, Any]) -> bool:
    defaults = _defaults(claim, scale)
    return any(
        (value.value if isinstance(value, SubjectRef) else value) != defaults[name]
        for name, value in replaced.items()
    )


def _subjects(claim: Claim, scale: str, replaced: Mapping[str, Any]) -> dict[str, SubjectRef]:
    chosen = {name: value for name, value in _defaults(claim, scale).items() if value or name in replaced}
    chosen.update(replaced)
    if not chosen:
        return {}
    from claimbench.subjects import resolve_subject

    return {
        name: value if isinstance(value, SubjectRef) else resolve_subject(claim.subjects[name].kind, value)
        for name, value in chosen.items()
    }


def run(
    targets: str | Sequence[str] = (),
    *,
    group: str | None = None,
    everything: bool = False,
    scale: str = "quick",
    device: str = "auto",
    sizes: Mapping[str, Any] | None = None,
    at: Mapping[str, Sequence[Any]] | None = None,
    arms: Sequence[str] = (),
    subjects: Mapping[str, Any] | None = None,
    model: Any = None,
    data: Any = None,
    jobs: int | None = None,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    fresh: bool = False,
    fresh_setup: bool = False,
    until_decided: bool = False,
    development: bool = False,
    ledger: Ledger | str | Path | None = None,
    shelf: Shelf | None = None,
    on_step: OnStep | None = None,
    may_trust: Callable[[Path], bool] | None = None,
) -> list[Outcome]:
    """Measure claims and judge them. Finished trials come from the ledger: an interrupted run goes on where it was.

    subjects: by the claim's name for them; a name, a path, a hub id, or a `SubjectRef`. model: replaces the language
    models of every claim, or the chat endpoint or encoder of one that takes no language model; data: its text, table
    or images; claims without are skipped. fresh: a replication on new seeds. until_decided: go on to the schedule's
    later looks. development: seeds below 1000, never published. Raises UserError for the caller's mistakes.
    """
    plans, skipped = plan(
        targets,
        group=group,
        everything=everything,
        scale=scale,
        device=device,
        sizes=sizes,
        at=at,
        arms=arms,
        subjects=subjects,
        model=model,
        data=data,
        time_limit=time_limit,
        memory_limit=memory_limit or 0.9 * memory_bytes(),
        development=development,
        shelf=shelf,
    )
    ask_trust([p.paper.folder for p in plans], may_trust)
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs: {jobs} is none; give 1 or more")
    own_ledger = not isinstance(ledger, Ledger)
    store = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    if fresh_setup:
        os.environ["CLAIMBENCH_FRESH_SETUP"] = str(time.time())
    try:
        session = Session(
            store, plans, jobs=jobs or this_machine().cores, on_step=on_step or (lambda step: None)
        )
        return [*session.run(fresh=fresh, until_decided=until_decided), *skipped]
    finally:
        if fresh_setup:
            del os.environ["CLAIMBENCH_FRESH_SETUP"]
        if own_ledger:
            store.close()


def recheck(
    targets: str | Sequence[str] = (),
    *,
    everything: bool = False,
    jobs: int | None = None,
    ledger: Ledger | str | Path | None = None,
    shelf: Shelf | None = None,
    on_step: OnStep | None = None,
) -> list[dict[str, Any]]:
    """Re-run one seed a cell of every stale set; carry the set forward where the numbers agree exactly.

    Times never agree exactly: a set whose rules use them is measured again by `run`.
    """
    shelf = shelf or Shelf.find()
    store = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    answers = []
    for paper, claim in select_claims(
        shelf, [targets] if isinstance(targets, str) else targets, everything=everything
    ):
        newest = {}
        for row in store.sets(paper=paper.id, claim=claim.id):
            if row.environment in environments([row.plan["device"]]):
                newest[(row.scale, row.fingerprint, row.replication)] = row
        for row in newest.values():
            changes = store.stale(row.uid)
            answer = {
                "paper": paper.id,
                "claim": claim.id,
                "set": row.uid,
                "scale": row.scale,
                "changed": changes,
            }
            if changes and claim.timing:
                answer["state"] = "must be measured again: its rules use times"
            elif changes:
                answer.update(recheck_set(store, paper, claim, row, jobs or this_machine().cores, on_step))
            else:
                answer["state"] = "current"
            answers.append(answer)
    return answers
