"""Plans in the ledger: what is written, that it is written once, and what makes two machines' code the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from toy import CLAIMS, PAPER, MakePaper

from claimbench import bench
from claimbench.ledger import Ledger
from claimbench.machine import alike, environment_facts, environments
from claimbench.shelf import BUILT_IN, Shelf, package_of
from claimbench.work.code import code_of, differences
from claimbench.work.planning import Differs, Written, environment_of, read, write


def written(place: str, tmp_path: Path, **options: bool) -> list[Written]:
    plans, _ = bench.plan("toy", shelf=Shelf([tmp_path / "shelf"]))
    with Ledger(place) as store:
        return write(store, plans, **options)


def test_a_plan_names_every_missing_trial_and_is_there_once(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    make_paper()
    (item,) = written(place, tmp_path)
    assert len({spec.key for spec in item.missing}) == item.planned == 30
    assert {spec.key for spec in item.missing} == {
        spec.key for spec in item.plan.specs(item.plan.seeds(item.plan.schedule[0]))
    }
    (again,) = written(place, tmp_path)
    assert again.set.uid == item.set.uid
    with Ledger(place) as store:
        (row,) = store.plans()
        assert len(store.sets()) == 1
        assert read(row, Shelf([tmp_path / "shelf"])).fingerprint == item.plan.fingerprint
        store.finish_plan(row.id)
        assert store.plans() == []
        assert [found.id for found in store.plans(done=True)] == [row.id]


def test_this_machines_sets_and_those_of_its_kind_are_apart(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    make_paper()
    (kind,), (here,) = written(place, tmp_path), written(place, tmp_path, here=True)
    assert kind.set.uid != here.set.uid
    with Ledger(place) as store:
        assert here.set.environment == environment_of(store, "cpu", here=True)
        assert store.environment(kind.set.environment) == json.loads(json.dumps(alike("cpu")))
    assert environments(["cpu"]) == {kind.set.environment, here.set.environment}
    own, like = environment_facts("cpu")["machine"], alike("cpu")["machine"]
    assert own["id"] != like["id"]
    assert {k: v for k, v in own.items() if k not in ("id", "memory_gib")} == {
        k: v for k, v in like.items() if k not in ("id", "memory_gib")
    }


def plan_at_once(place: str, shelf: str, ready: Barrier) -> None:
    plans, _ = bench.plan("toy", shelf=Shelf([Path(shelf)]))
    with Ledger(place) as store:
        ready.wait()
        write(store, plans)


def test_plans_at_once_make_one_set(place: str, tmp_path: Path, make_paper: MakePaper) -> None:
    make_paper()
    Ledger(place).close()
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(4)
    several = [
        spawn.Process(target=plan_at_once, args=(place, str(tmp_path / "shelf"), ready)) for _ in range(4)
    ]
    for process in several:
        process.start()
    for process in several:
        process.join(60)
        assert process.exitcode == 0
    with Ledger(place) as store:
        (row,) = store.sets()
        assert len(store.unfinished(row.uid)) == 30
        assert len(store.plans()) == 1


def test_a_ledger_without_plans_gets_them(tmp_path: Path, make_paper: MakePaper) -> None:
    """A ledger of the first version, as it was before there were workers."""
    import sqlalchemy as sa

    make_paper()
    place = str(tmp_path / "l.sqlite")
    with Ledger(place) as store, store.write() as connection:
        for (trigger,) in connection.execute(
            sa.text("select name from sqlite_master where type = 'trigger'")
        ).all():
            connection.execute(sa.text(f"drop trigger {trigger}"))
        connection.execute(sa.text("drop table planned"))
        connection.execute(sa.text("drop table summary"))
        connection.execute(sa.text("update meta set value = '1' where name = 'schema'"))
    assert len(written(place, tmp_path)) == 1


def test_the_papers_folder_and_what_it_imports_count_and_nothing_else(
    tmp_path: Path, make_paper: MakePaper
) -> None:
    folder = make_paper(claims="import claimbench.blocks.schedules\nfrom .near import VALUE\n" + CLAIMS)
    other = make_paper("other")
    near = folder / "near.py"
    near.write_text("import numpy as np\n\nVALUE = 1\n")
    with Ledger(tmp_path / "l.sqlite") as store:
        modules, packages = code_of(folder, "toy", store)
    expected = {
        "shelf.theory.toy.claims",
        "shelf.theory.toy.near",
        "claimbench.trial",
        "claimbench.blocks.schedules",
    }
    assert expected <= set(modules)
    assert "numpy" in packages
    assert not any("other" in name or name == "claimbench.plan" for name in modules)
    assert differences(modules, packages, folder) == []
    (other / "claims.py").write_text("raise\n")
    near.write_text('"""Words."""\n\nimport numpy as np  # more\n\nVALUE = 1\n')
    assert differences(modules, packages, folder) == []
    near.write_text("VALUE = 2\n")
    assert differences(modules, {**packages, "numpy": "0.0.1"}, folder) == [
        "module shelf.theory.toy.near",
        next(line for line in differences({}, {"numpy": "0.0.1"}, folder)),
    ]
    near.unlink()
    assert differences(modules, packages, folder) == ["module shelf.theory.toy.near is missing"]


def test_code_is_all_that_a_trial_loads(tmp_path: Path, make_paper: MakePaper) -> None:
    """What a process says it has loaded is among what was found without importing."""
    folder = make_paper(claims="from .near import VALUE\n" + CLAIMS)
    (folder / "near.py").write_text("from claimbench.blocks import schedules\n\nVALUE = schedules\n")
    code = (
        "import json, sys; from pathlib import Path; from claimbench.shelf import load_claims; "
        "from claimbench.currency import loaded_modules; load_claims(Path(sys.argv[1])); "
        "print(json.dumps(sorted(loaded_modules())))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    with Ledger(tmp_path / "l.sqlite") as store:
        modules, _ = code_of(folder, "toy", store)
    top = package_of(folder).partition(".")[0]
    loaded = {re.sub(f"^{top}\\.", "shelf.", name) for name in json.loads(done.stdout)} - {top}
    assert {"shelf.theory.toy.near", "claimbench.blocks", "claimbench.blocks.schedules"} <= loaded
    assert loaded <= set(modules)


def test_a_shelf_may_lie_elsewhere(place: str, tmp_path: Path, make_paper: MakePaper) -> None:
    make_paper()
    (item,) = written(place, tmp_path)
    shutil.copytree(tmp_path / "shelf", tmp_path / "moved")
    with Ledger(place) as store:
        (row,) = store.plans()
    assert read(row, Shelf([tmp_path / "moved"])).fingerprint == item.plan.fingerprint
    toml = tmp_path / "moved" / "theory" / "toy" / "paper.toml"
    toml.write_text(toml.read_text().replace('kind = "mean"', 'kind = "mean"').replace('"noise"', '"luck"'))
    read(row, Shelf([tmp_path / "moved"]))  # words and bounds are no part of it
    toml.write_text(toml.read_text().replace('method = "method"', 'method = "method"\ndtype = "float64"'))
    with pytest.raises(Differs, match="toy/larger: its code here is not what was planned: paper.toml; take"):
        read(row, Shelf([tmp_path / "moved"]))
    with pytest.raises(Differs, match='toy: no paper "toy".*; give the shelf that holds it with --shelf'):
        read(row, Shelf([BUILT_IN]))


def test_a_subject_must_hold_the_same_here(place: str, tmp_path: Path, make_paper: MakePaper) -> None:
    text = tmp_path / "own.txt"
    text.write_text("".join(f"{number} words\n\n" * 900 for number in range(20)))
    subject = 'subjects = {{ corpus = {{ kind = "text", default = "default-corpus" }} }}\ncaveat ='
    make_paper(toml=PAPER.replace("caveat =", subject))
    shelf = Shelf([tmp_path / "shelf"])
    plans, _ = bench.plan("toy", subjects={"corpus": str(text)}, shelf=shelf)
    with Ledger(place) as store:
        write(store, plans)
        (row,) = store.plans()
    assert read(row, shelf).subjects["corpus"].identity == plans[0].subjects["corpus"].identity
    text.write_text("".join(f"{number} others\n\n" * 900 for number in range(20)))
    with pytest.raises(Differs, match="subject corpus: .*own.txt holds something else here"):
        read(row, shelf)
    text.unlink()
    with pytest.raises(Differs, match="toy/larger: subject corpus: .*own.txt"):
        read(row, shelf)


def test_the_slurm_script_of_the_docs_runs(tmp_path: Path) -> None:
    """The script as it is written, with what Slurm would set; two jobs of the array at once."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "cluster.md").read_text()
    script = next(block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "#SBATCH" in block)
    script = script.replace("exact-permutations", "exact-permutations/sign-separation --scale smoke")
    folder = tmp_path / "bench" / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    (tmp_path / "array.sh").write_text(script)
    place = str(tmp_path / "l.sqlite")
    jobs = [
        subprocess.Popen(
            ["bash", str(tmp_path / "array.sh")],
            env={**os.environ, "HOME": str(tmp_path), "LEDGER": place, "SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in (1, 2)
    ]
    for job in jobs:
        words, _ = job.communicate(timeout=110)
        assert job.returncode == 0, words
    with Ledger(place) as store:
        (row,) = store.sets()
        assert store.unfinished(row.uid) == set()
        assert store.plans() == []
