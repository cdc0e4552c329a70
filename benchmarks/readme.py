"""The README's table of verdicts, from the published results.

python benchmarks/readme.py            # prints it
python benchmarks/readme.py --write    # puts it into README.md
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from claimbench.publish import published_sets
from claimbench.report import headline
from claimbench.rules.verdict import Verdict

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"


def table(results: Path) -> str:
    """One row a claim and scale: its latest published set."""
    latest: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for found in published_sets(results):
        if "#" not in found["claim"] and not found["own"] and found["verdict"] is not None:
            latest[(found["paper"], found["claim"], found["scale"], found["machine"]["id"])] = found
    rows = [
        "| claim | scale | verdict | what decided | seeds | machine |",
        "|---|---|---|---|---|---|",
    ]
    for (paper, claim, scale, _), found in sorted(latest.items()):
        verdict = Verdict.from_json(found["verdict"])
        gpus = ", ".join(gpu["name"] for gpu in found["machine"]["gpus"])
        machine = gpus or f"{found['machine']['cpu']}, {found['machine']['cores']} cores"
        cells = (
            f"{paper}/{claim}",
            scale,
            f"**{verdict.state}**",
            headline(verdict),
            len(verdict.seeds),
            machine,
        )
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def section(text: str) -> str:
    """What stands between the markers."""
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    made = table(ROOT / "results")
    if not options.write:
        print(made)
        return
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    readme.write_text(f"{before}\n{made}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
