"""What the bench itself costs: start-up, empty trials, a re-run of a finished claim, judging.

python benchmarks/overhead.py            # prints a table; exit code 1 if a goal is missed
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PAPER = """
id = "{id}"
title = "A paper about {id}"
group = "theory"
year = 2024
authors = ["A. Author"]
summary = "It says that one thing is larger than another."

[[claim]]
id = "larger"
statement = "The method is larger than the baseline."
method = "method"
baselines = ["baseline"]
metrics.size = {{ kind = "mean", better = "higher" }}
sweep = {{ n = [{points}] }}
varies = ["noise"]
rules = [{{ effect = "difference", metric = "size", against = "baseline", at_least = 0.5 }}]
caveat = "Made for a benchmark."
[claim.scales.quick]
"""

CLAIMS = """
from claimbench.trial import Trial, measure

@measure("larger")
def larger(trial: Trial) -> dict[str, float]:
    return {"size": trial.point["n"] + (trial.arm == "method") + trial.seed % 7 / 10}
"""


def make_shelf(root: Path, papers: int, points: int) -> None:
    for index in range(papers):
        folder = root / "theory" / f"paper_{index:04d}"
        folder.mkdir(parents=True)
        toml = PAPER.format(id=f"paper-{index:04d}", points=", ".join(map(str, range(points))))
        (folder / "paper.toml").write_text(toml)
        (folder / "claims.py").write_text(CLAIMS)


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """The median of a few calls."""
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return sorted(took)[len(took) // 2]


def judging() -> float:
    """Seconds for 1,000 sets of 100 trials: 2 arms, 10 points, 5 seeds."""
    from claimbench.paper import load_paper
    from claimbench.rules import Judged, judge

    with tempfile.TemporaryDirectory() as folder:
        make_shelf(Path(folder), 1, 10)
        claim = load_paper(Path(folder) / "theory" / "paper_0000" / "paper.toml").claim[0]
    draw = random.Random(0)
    sets = [
        [
            Judged(
                arm=arm,
                point={"n": n},
                seed=1000 + s,
                status="ok",
                metrics={"size": (arm == "method") + draw.gauss(0, 1)},
            )
            for s in range(5)
            for n in range(10)
            for arm in ("method", "baseline")
        ]
        for _ in range(1000)
    ]
    judge(claim, "quick", sets[0])  # the boundaries are computed once a process
    return seconds(lambda: [judge(claim, "quick", trials) for trials in sets])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        places = {
            name: f"{folder}/{name}" for name in ("CLAIMBENCH_CACHE", "CLAIMBENCH_DATA", "CLAIMBENCH_CONFIG")
        }
        environment = {**os.environ, **places}

        def command(*words: str) -> None:
            subprocess.run(
                [sys.executable, "-m", "claimbench", *words], check=True, capture_output=True, env=environment
            )

        rows.append(("claimbench --help", seconds(lambda: command("--help"), 5), 0.4))
        command("list")
        rows.append(("claimbench list, built-in shelf", seconds(lambda: command("list"), 5), 0.4))
        make_shelf(Path(folder) / "thousand", 1000, 10)
        thousand = ("--shelf", f"{folder}/thousand")
        rows.append(
            (
                "first list of 1,000 papers (makes the index)",
                seconds(lambda: command("list", *thousand)),
                float("inf"),
            )
        )
        rows.append(("claimbench list, 1,000 papers", seconds(lambda: command("list", *thousand), 5), 0.4))
        rows.append(
            (
                "claimbench search, 1,000 papers",
                seconds(lambda: command("search", "larger", *thousand), 5),
                0.4,
            )
        )
        make_shelf(Path(folder) / "one", 1, 100)
        run = ("run", "paper-0000", "--shelf", f"{folder}/one", "--trust", "--json", "--jobs", "2")
        rows.append(("1,000 empty trials, ledger included", seconds(lambda: command(*run)), 30.0))
        rows.append(("re-run of the finished claim (1,000 trials)", seconds(lambda: command(*run), 3), 1.0))
    rows.append(("judging 1,000 sets of 100 trials", judging(), 1.0))
    if options.json:
        print(json.dumps([{"what": what, "seconds": took, "goal": goal} for what, took, goal in rows]))
    else:
        print("| what | seconds | goal |\n|---|---|---|")
        for what, took, goal in rows:
            print(f"| {what} | {took:.2f} | {'-' if goal == float('inf') else f'{goal:g}'} |")
    sys.exit(any(took > goal for _, took, goal in rows))


if __name__ == "__main__":
    main()
