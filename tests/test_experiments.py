"""Shared, tuned and grouped trials through the real runner: however a trial came to run, it gives the same numbers."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from toy import MakePaper

from claimbench import bench
from claimbench.ledger import LEASE_SECONDS, Ledger
from claimbench.plan import FIRST_SEED
from claimbench.report import markdown, report
from claimbench.session import Outcome
from claimbench.shelf import Shelf

GRID = [0.003, 0.03, 0.3]

TOML = """
id = "{id}"
title = "A paper about {id}"
group = "{group}"
year = 2024
authors = ["A. Author"]
summary = "Fine-tuning a base model beats leaving it."

[[claim]]
id = "fine-tuning"
statement = "Fine-tuning lowers the loss."
method = "tuned"
baselines = ["plain"]
metrics.loss = {{ kind = "mean", better = "lower", resolution = 1e-9, on_failure = 100.0 }}
metrics.base = {{ kind = "mean" }}
metrics.gain = {{ kind = "mean", derived = true, better = "higher" }}
sweep = {{ width = [2, 4] }}
varies = ["base model", "items"]
rules = [{{ effect = "value", metric = "gain", at_least = -100.0 }}]
caveat = "Made for a test."
[claim.tuning]
lr = [0.003, 0.03, 0.3]
[claim.scales.smoke]
[claim.scales.quick]
seconds = 0.1
"""
ONE = TOML.replace("[2, 4]", "[4]")

HEAD = """
import os
from pathlib import Path

import numpy as np

from claimbench.trial import Table, Trial, derive, measure

ITEMS = list(range(36))


def log_build() -> None:
    with Path(os.environ["BUILDS"]).open("a") as log:
        log.write("built\\n")


def examples(trial: Trial) -> np.ndarray:
    chosen = trial.block(ITEMS)
    generator = np.random.default_rng([trial.seed, trial.tuning])
    return (generator.normal(size=(12, trial.point["width"])) + chosen[0]).astype(np.float32)


@measure("fine-tuning")
def fine_tuning(trials):
    return [loss_of(trial) for trial in trials] if isinstance(trials, list) else loss_of(trials)


@derive("fine-tuning")
def gain(seed: Table) -> dict[str, float]:
    return {"gain": seed.value("loss", arm="plain", width=4) - seed.value("loss", arm="tuned", width=4)}

"""

TORCH = """
import torch
from safetensors.torch import load_file, save_file


def base_model(folder: Path, *, width: int) -> None:
    log_build()
    weight = torch.nn.Linear(width, 1).weight  # initialised from the global generator, which an arm may have used
    for _ in range(3):
        (gradient,) = torch.autograd.grad((torch.randn(8, width) @ weight.T).square().mean(), weight)
        weight = (weight - 0.1 * gradient).detach().requires_grad_()
    save_file({"weight": weight.detach().contiguous()}, folder / "base.safetensors")


def loss_of(trial: Trial) -> dict[str, float]:
    if trial.arm == "plain":
        torch.rand(1000)  # this arm comes to its base model with the global generator elsewhere
    with torch.no_grad():
        folder = trial.shared(base_model, width=trial.point["width"])
    weight = load_file(folder / "base.safetensors")["weight"]
    base, data = float(weight.double().abs().sum()), torch.from_numpy(examples(trial))
    weight.requires_grad_()
    for _ in range(4 if trial.arm == "tuned" else 0):
        (gradient,) = torch.autograd.grad((data @ weight.T).square().mean().log1p(), weight)
        weight = (weight - 0.03 * gradient).detach().requires_grad_()
    return {"loss": float((data @ weight.T).square().mean().log1p()), "base": base}
"""

NUMPY = """
from safetensors.numpy import load_file, save_file


def base_model(folder: Path, *, width: int) -> None:
    log_build()
    save_file({"weight": np.random.normal(size=(width, 1)).astype(np.float32)}, folder / "base.safetensors")


def loss_of(trial: Trial) -> dict[str, float]:
    weight = load_file(trial.shared(base_model, width=trial.point["width"]) / "base.safetensors")["weight"]
    base, data = float(np.abs(weight).sum()), examples(trial)
    for _ in range(4 if trial.arm == "tuned" else 0):
        error = (data @ weight).mean()
        weight = weight - trial.tuned("lr") * 2 * error / (1 + error**2) * data.mean(axis=0)[:, None]
    loss = float(np.log1p((data @ weight).mean() ** 2))
    return {"loss": loss + 0 * trial.tuned("lr"), "base": base, "validation": float(trial.tuning)}
"""

Numbers = dict[tuple[Any, ...], dict[str, float]]


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    return tmp_path / "builds"


def made(builds: Path) -> int:
    return len(builds.read_text().splitlines()) if builds.exists() else 0


def run(tmp_path: Path, ledger: str, *, jobs: int = 2, **options: Any) -> tuple[Ledger, Outcome]:
    store = Ledger(tmp_path / f"{ledger}.sqlite")
    shelf = Shelf.find([tmp_path / "shelf"])
    (outcome,) = bench.run(
        "toy", shelf=shelf, ledger=store, may_trust=lambda root: True, jobs=jobs, **options
    )
    assert outcome.failed == 0
    return store, outcome


def numbers(store: Ledger, uid: str) -> Numbers:
    return {
        (t["arm"], t["point"].get("width"), t["seed"], t["tuned"].get("lr")): t["metrics"]
        for t in store.trials(uid)
    }


def tuning_uid(store: Ledger) -> str:
    return store.sets(paper="toy", claim="fine-tuning#tuning")[-1].uid


def found(store: Ledger, outcome: Outcome) -> list[Any]:
    """All that a run found: what was measured, and what was made of it."""
    assert outcome.verdict is not None
    cells = [(c.estimate, c.low, c.high) for rule in outcome.verdict.rules for c in rule.cells]
    return [numbers(store, outcome.set_uid), cells, outcome.verdict.state]


def test_alone_beside_cached_rebuilt_or_grouped_the_numbers_are_the_same(
    make_paper: MakePaper, tmp_path: Path, builds: Path
) -> None:
    toml = ONE.replace("[claim.tuning]\nlr = [0.003, 0.03, 0.3]\n", "")
    make_paper(toml=toml, claims=HEAD + TORCH)
    alone = found(*run(tmp_path, "alone", jobs=1))
    bases = {(seed, metrics["base"]) for (_, _, seed, _), metrics in alone[0].items()}
    assert len(bases) == len({base for _, base in bases}) == 5  # one a seed, the same for both arms
    assert made(builds) == 5
    assert found(*run(tmp_path, "cached", jobs=2)) == alone
    assert made(builds) == 5
    make_paper(toml=toml.replace("method =", 'together = ["seed"]\nmethod ='), claims=HEAD + TORCH)
    assert found(*run(tmp_path, "grouped", jobs=1, fresh_setup=True)) == alone
    assert made(builds) == 10


def test_tuned_trials_in_groups_of_any_kind_give_the_same_numbers(
    make_paper: MakePaper, tmp_path: Path, builds: Path
) -> None:
    results = []
    for words in ("[]", '["seed"]', '["arm"]', '["arm", "point", "seed"]'):
        make_paper(toml=TOML.replace("method =", f"together = {words}\nmethod ="), claims=HEAD + NUMPY)
        store, outcome = run(tmp_path, f"grouped-{words.count(',')}{len(words)}", fresh_setup=words == "[]")
        results.append([numbers(store, tuning_uid(store)), *found(store, outcome)])
    assert len(results[0][0]) == 2 * 2 * 2 * len(GRID)
    assert len(results[0][1]) == 2 * 2 * 5
    assert results[1:] == results[:1] * 3
    assert made(builds) == (5 + 2) * 2  # seeds measured, and seeds of tuning, at two widths


def test_later_seeds_join_a_group_and_what_is_there_is_not_run_again(
    make_paper: MakePaper, tmp_path: Path, builds: Path
) -> None:
    toml = ONE.replace("method =", 'together = ["seed"]\nmethod =').replace(
        "at_least = -100.0", "at_least = 0.0, sure = 0.0"
    )
    make_paper(toml=toml.replace("lr = [0.003, 0.03, 0.3]", "lr = [0.0]"), claims=HEAD + NUMPY)
    _, first = run(tmp_path, "l")  # with a step of zero both arms are equal: undecided at every look
    _, later = run(tmp_path, "l", until_decided=True)
    assert first.verdict is not None
    assert later.verdict is not None
    assert (first.verdict.state, len(first.verdict.seeds), first.ran) == ("undecided", 5, 10)
    assert (len(later.verdict.seeds), later.ran) == (12, 7 * 2)


def test_tuning_has_seeds_and_data_of_its_own_and_one_grid_for_all(
    make_paper: MakePaper, tmp_path: Path, builds: Path
) -> None:
    make_paper(toml=TOML, claims=HEAD + NUMPY)
    sets: list[Numbers] = []
    notes: list[str] = []
    for options in ({}, {"fresh": True}, {"development": True}):
        store, outcome = run(tmp_path, "l", **options)
        sets.append(numbers(store, outcome.set_uid))
        assert outcome.verdict is not None
        notes += [note for note in outcome.verdict.notes if note.startswith("tuning")]
    tuning = numbers(store, tuning_uid(store))
    assert all(metrics["validation"] == 1.0 for metrics in tuning.values())
    seeds = [{seed for _, _, seed, _ in measured} for measured in sets]
    for measured, mine in zip(sets, seeds, strict=True):
        assert all(metrics["validation"] == 0.0 for metrics in measured.values())
        assert mine.isdisjoint({seed for _, _, seed, _ in tuning})
    assert not seeds[0] & seeds[1] | seeds[0] & seeds[2] | seeds[1] & seeds[2]
    assert max(seeds[2]) < FIRST_SEED
    losses: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (arm, width, _, lr), metrics in tuning.items():
        losses[arm, width][lr].append(metrics["loss"])
    assert set(losses) == {(arm, width) for arm in ("tuned", "plain") for width in (2, 4)}
    assert all(sorted(by_lr) == GRID for by_lr in losses.values())
    for arm, width, _, lr in sets[0]:
        mean = {value: sum(found) / len(found) for value, found in losses[arm, width].items()}
        assert mean[lr] == min(mean.values())
        assert arm == "tuned" or lr == GRID[0]  # an arm without the parameter ties, and takes the first value
    assert all("the best lr lies at an end of the grid [0.003, 0.03, 0.3] for" in note for note in notes)
    assert ["plain (2 of 2 points)" in note for note in notes] == [True] * 3


SPOIL = """
    if trial.arm == "tuned":
        weight = load_file(folder / "base.safetensors")["weight"].zero_()  # the object, which this process shares
        folder.chmod(0o755)
        (folder / "base.safetensors").chmod(0o644)
        save_file({"weight": weight}, folder / "base.safetensors")  # and the file
    weight ="""


def test_an_arm_cannot_change_another_arms_base_model(
    make_paper: MakePaper, tmp_path: Path, builds: Path
) -> None:
    toml = ONE.replace("[claim.tuning]\nlr = [0.003, 0.03, 0.3]\n", "")
    toml = toml.replace("method =", 'together = ["arm"]\nmethod =')
    make_paper(toml=toml, claims=HEAD + TORCH)
    store, outcome = run(tmp_path, "clean", scale="smoke")
    clean = numbers(store, outcome.set_uid)
    make_paper(
        toml=toml, claims=HEAD + TORCH.replace("\n    weight =", SPOIL, 2).replace(SPOIL, "\n    weight =", 1)
    )
    store, outcome = run(tmp_path, "spoilt", scale="smoke")
    spoilt = numbers(store, outcome.set_uid)
    assert list(clean) == [("tuned", 4, 0, None), ("plain", 4, 0, None)]
    assert spoilt["plain", 4, 0, None] == clean["plain", 4, 0, None]
    assert spoilt["tuned", 4, 0, None]["base"] == 0.0
    assert made(builds) == 3  # once clean, once for the edited code, once because a file had been written to


GIVEN = """
import os
import time
from pathlib import Path

from claimbench.trial import Trial, measure


def base_model(folder: Path) -> None:
    with Path(os.environ["BUILDS"]).open("a") as log:
        log.write(f"{os.getpid()} {os.getppid()}\\n")
    while not Path(os.environ["BUILDS"] + "-go").exists():
        time.sleep(0.01)
    (folder / "model.json").write_text("1")


@measure("fine-tuning")
def fine_tuning(trial: Trial) -> dict[str, float]:
    folder = trial.shared(base_model, per_seed=False)
    assert trial.setup_seconds > 0.01
    return {"loss": trial.seed + float((folder / "model.json").read_text()) * (trial.arm == "plain"), "base": 0.0}
"""

SIMPLE = (
    ONE.replace("[claim.tuning]\nlr = [0.003, 0.03, 0.3]\n", "")
    .replace('metrics.gain = {{ kind = "mean", derived = true, better = "higher" }}\n', "")
    .replace(
        '{{ effect = "value", metric = "gain", at_least = -100.0 }}',
        '{{ effect = "difference", metric = "loss", against = "plain", at_most = 0.0 }}',
    )
)


def command_of(tmp_path: Path, ledger: str, *words: str) -> list[str]:
    places = ["--shelf", str(tmp_path / "shelf"), "--ledger", str(tmp_path / ledger)]
    return [sys.executable, "-m", "claimbench", "run", "toy", *places, "--trust", *words]


def start(tmp_path: Path, ledger: str, *words: str) -> subprocess.Popen[str]:
    command = command_of(tmp_path, ledger, "--json", *words)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_builder(builds: Path) -> tuple[int, int]:
    """Pids of the first builder and of the trial that it works for."""
    deadline = time.monotonic() + 60
    while made(builds) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    builder, trial = map(int, builds.read_text().split()[:2])
    return builder, trial


def test_one_base_model_for_all_seeds_is_said_and_two_runs_at_once_build_it_once(
    make_paper: MakePaper, tmp_path: Path, builds: Path
) -> None:
    make_paper(toml=SIMPLE, claims=GIVEN)
    both = [start(tmp_path, f"{index}.sqlite") for index in range(2)]
    wait_for_builder(builds)
    time.sleep(1)  # the other three workers come and wait
    (tmp_path / "builds-go").touch()
    for process in both:
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        (outcome,) = json.loads(output)
        assert outcome["ran"] == 10
        assert "given one base model for all seeds" in outcome["verdict"]["notes"]
    assert made(builds) == 1
    rows = report("toy", ledger=tmp_path / "0.sqlite", shelf=Shelf.find([tmp_path / "shelf"]))
    assert "note: given one base model for all seeds" in markdown(rows)


@pytest.mark.parametrize("victim", ["worker", "run"])
def test_a_killed_builder_gives_way(make_paper: MakePaper, tmp_path: Path, builds: Path, victim: str) -> None:
    make_paper(toml=SIMPLE, claims=GIVEN)
    going = start(tmp_path, "l.sqlite", "--scale", "smoke", "--jobs", "1")
    builder, trial = wait_for_builder(builds)
    os.kill(going.pid if victim == "run" else psutil.Process(trial).ppid(), signal.SIGKILL)
    if victim == "run":
        going.communicate(timeout=60)
        with sqlite3.connect(tmp_path / "l.sqlite") as connection:  # as if the dead run's time were up
            connection.execute("update lease set expires = expires - ?", [LEASE_SECONDS])
        going = start(tmp_path, "l.sqlite", "--scale", "smoke", "--jobs", "1")
    while made(builds) == 1 and going.poll() is None:
        time.sleep(0.02)
    assert not psutil.pid_exists(builder) or psutil.Process(builder).status() == psutil.STATUS_ZOMBIE
    (tmp_path / "builds-go").touch()
    output, errors = going.communicate(timeout=60)
    assert going.returncode == 0, errors
    assert json.loads(output)[0]["failed"] == 0
    assert made(builds) == 2
    assert not list((tmp_path / "cache" / "shared").rglob("partial-*"))
    assert len(list((tmp_path / "cache" / "shared").rglob("model.json"))) == 1


def test_the_terminal_says_what_is_being_built_until_it_is(
    make_paper: MakePaper, tmp_path: Path, builds: Path
) -> None:
    make_paper(toml=SIMPLE, claims=GIVEN)
    ours, theirs = pty.openpty()
    going = subprocess.Popen(
        command_of(tmp_path, "l.sqlite", "--scale", "smoke"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # what a terminal says when nobody has it open any more
        while data := os.read(ours, 1 << 16):
            shown += data
            if b"setting up base_model" in shown:
                (tmp_path / "builds-go").touch()
    os.close(ours)
    assert going.wait(60) == 0
    bars = [line for line in re.split(rb"[\r\n]+", shown) if b"0/2" in line or b"2/2" in line]
    said = [b"setting up base_model" in line for line in bars]
    assert any(said)
    assert not said[-1]
