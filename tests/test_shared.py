"""Shared set-up: built once, found by content, out of date with its code, safe from trials and from killed builders."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from claimbench.currency import loaded_modules
from claimbench.errors import UserError
from claimbench.shared import SetupError, shared
from claimbench.spec import SubjectRef
from claimbench.trial import Trial


def trial(seed: int = 1, arm: str = "method", **fields: Any) -> Trial:
    return Trial(arm=arm, point={}, seed=seed, **fields)


def draw(folder: Path, *, count: int, seed: int = 0) -> None:
    """A builder for these tests: random numbers, and a line for each time it ran."""
    np.save(folder / "numbers.npy", np.random.default_rng(seed).normal(size=count))
    with Path(os.environ["BUILDS"]).open("a") as log:
        log.write(f"{count} {seed}\n")


def slow(folder: Path, *, seconds: float) -> None:
    with Path(os.environ["BUILDS"]).open("a") as log:
        log.write("started\n")
    time.sleep(seconds)
    (folder / "done.json").write_text("{}")


def broken(folder: Path) -> None:
    (folder / "half.json").write_text("{")
    raise ValueError("no such data")


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    return tmp_path / "builds"


def made(builds: Path) -> int:
    return len(builds.read_text().splitlines()) if builds.exists() else 0


def test_built_once_for_equal_arguments_and_seed(builds: Path) -> None:
    first = trial().shared(draw, count=3)
    assert trial(arm="baseline").shared(draw, count=3) == first
    assert made(builds) == 1
    assert trial().shared(draw, count=4) != first
    assert trial(seed=2).shared(draw, count=3) != first
    assert made(builds) == 3


def torch_defaults(folder: Path, *, seed: int) -> None:
    weight = torch.nn.Linear(3, 1).weight  # from the global generator, of the default type, with gradients
    assert weight.square().sum().requires_grad
    save_file({"weight": weight.detach()}, folder / "w.safetensors")


def test_the_builder_sees_nothing_of_what_the_trial_did_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_file(trial().shared(torch_defaults) / "w.safetensors")["weight"]
    for threads in (1, 2):  # in a fork, and in the trial's own process
        monkeypatch.setenv("CLAIMBENCH_FRESH_SETUP", str(time.time()))
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(threads)
        try:
            expected = torch.rand(3, generator=torch.Generator().manual_seed(threads))
            with torch.inference_mode():
                again = load_file(trial().shared(torch_defaults) / "w.safetensors")["weight"]
            assert torch.equal(plain, again)
            assert torch.equal(torch.rand(3), expected)
            assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, torch.float64)
        finally:
            torch.set_num_threads(before)
            torch.set_default_dtype(torch.float32)


def test_a_builder_that_could_close_over_the_arm_is_refused() -> None:
    arm = "method"

    def build(folder: Path) -> None:
        (folder / "arm.json").write_text(arm)

    for builder in (build, lambda folder: None, functools.partial(draw, count=3)):
        with pytest.raises(UserError, match="is no function at the top of a module; move it there"):
            trial().shared(builder)


def test_what_set_up_cost_is_there_for_a_total(builds: Path) -> None:
    one, other = trial(), trial(arm="baseline")
    assert one.setup_seconds == 0.0
    one.shared(slow, seconds=0.2)
    other.shared(slow, seconds=0.2)
    other.shared(slow, seconds=0.2)
    assert made(builds) == 1
    assert one.setup_seconds == other.setup_seconds >= 0.2


def test_a_trial_is_stale_when_what_only_its_builder_imported_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_training.py").write_text("VALUE = 1\n")
    (tmp_path / "own_setup.py").write_text(
        "def build(folder):\n    import own_training\n    (folder / 'v.json').write_text(str(own_training.VALUE))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_setup  # type: ignore[import-not-found]  # written above

    try:
        trial().shared(own_setup.build)
        assert {"own_setup", "own_training"} <= set(loaded_modules())
    finally:
        for name in ("own_setup", "own_training"):
            sys.modules.pop(name, None)


def test_given_one_base_model_for_all_seeds(builds: Path) -> None:
    one = trial(seed=1).shared(draw, per_seed=False, count=3)
    assert trial(seed=2).shared(draw, per_seed=False, count=3) == one
    assert made(builds) == 1


def test_the_seed_reaches_the_builder(builds: Path) -> None:
    found = np.load(trial(seed=7).shared(draw, count=3) / "numbers.npy")
    np.testing.assert_array_equal(found, np.random.default_rng(7).normal(size=3))


def test_a_rebuilt_artefact_has_the_same_numbers(builds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.load(trial().shared(draw, count=3) / "numbers.npy")
    monkeypatch.setenv("CLAIMBENCH_FRESH_SETUP", str(time.time()))
    again = np.load(trial().shared(draw, count=3) / "numbers.npy")
    np.testing.assert_array_equal(first, again)
    assert made(builds) == 2


def test_building_leaves_the_trial_in_the_state_of_finding(builds: Path) -> None:
    np.random.seed(0)
    trial().shared(draw, count=3)
    after_building = np.random.normal()
    np.random.seed(0)
    trial().shared(draw, count=3)
    assert np.random.normal() == after_building
    assert made(builds) == 1


def test_a_trial_that_writes_into_a_shared_folder_spoils_it_for_nobody(builds: Path) -> None:
    folder = trial().shared(draw, count=3)
    before = np.load(folder / "numbers.npy")
    assert (folder / "numbers.npy").stat().st_mode & 0o222 == 0
    folder.chmod(0o755)
    (folder / "numbers.npy").chmod(0o644)
    np.save(folder / "numbers.npy", np.zeros(3))
    np.testing.assert_array_equal(np.load(trial().shared(draw, count=3) / "numbers.npy"), before)
    assert made(builds) == 2


def test_edited_code_rebuilds_and_edited_words_do_not(
    builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "own_builder.py"
    code = (
        "import os\n"
        "def build(folder):\n"
        "    (folder / 'v.json').write_text('1')\n"
        "    open(os.environ['BUILDS'], 'a').write('x\\n')\n"
    )
    source.write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_builder  # type: ignore[import-not-found]  # written above

    try:
        trial().shared(own_builder.build)
        source.write_text(f'"""Words."""\n{code}# words\n')
        trial().shared(own_builder.build)
        assert made(builds) == 1
        source.write_text(code.replace("'1'", "'22'"))
        trial().shared(own_builder.build)
        assert made(builds) == 2
    finally:
        del sys.modules["own_builder"]


def test_a_builders_error_is_its_own_and_leaves_nothing(builds: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="shared set-up broken failed: ValueError: no such data"):
        trial().shared(broken)
    assert not list((tmp_path / "cache" / "shared").rglob("half.json"))
    with pytest.raises(UserError, match="takes plain values and subjects' references, not Trial"):
        shared(trial(), draw, per_seed=True, arguments={"count": trial()})
    with pytest.raises(
        UserError, match="not ndarray"
    ):  # however deep: its words would not tell two arrays apart
        shared(trial(), draw, per_seed=True, arguments={"count": [{"of": np.zeros(3)}]})


def test_subjects_count_by_content(builds: Path) -> None:
    def ref(path: str, identity: str) -> SubjectRef:
        return SubjectRef("text", path, identity, path=path)

    one = trial().shared(keep, text=ref("/a", "same"))
    assert trial().shared(keep, text=ref("/b", "same")) == one
    assert trial().shared(keep, text=ref("/a", "other")) != one


def keep(folder: Path, *, text: SubjectRef) -> None:
    (folder / "name.json").write_text(json.dumps(text.path))


def _use(seconds: float) -> None:
    trial().shared(slow, per_seed=False, seconds=seconds)


def test_two_workers_never_build_the_same_artefact(builds: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=_use, args=(0.5,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert made(builds) == 1


def test_a_killed_builder_gives_way(builds: Path, tmp_path: Path) -> None:
    first = multiprocessing.get_context("fork").Process(target=_use_alone, args=(3.0,))
    first.start()
    deadline = time.monotonic() + 20
    while made(builds) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert first.pid is not None
    os.killpg(first.pid, signal.SIGKILL)
    first.join(20)
    started = time.monotonic()
    folder = trial().shared(slow, per_seed=False, seconds=3.0)
    assert (folder / "done.json").exists()
    assert time.monotonic() - started < 60
    assert made(builds) == 2
    assert not list((tmp_path / "cache" / "shared").rglob("partial-*"))


def _use_alone(seconds: float) -> None:
    os.setpgrp()
    _use(seconds)
