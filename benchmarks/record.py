"""Record a real run of the command line as an SVG for the README.

python benchmarks/record.py claimbench run exact-permutations/sign-separation --write docs/recording.svg
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 112


def recorded(command: list[str]) -> str:
    """What the command printed, standard output and error in order, with its colours, on a ledger of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "CLAIMBENCH_DATA": folder}
        module = [sys.executable, "-m", *command]
        done = subprocess.run(
            module, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
        )
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def as_svg(command: list[str], output: str) -> str:
    """A terminal with the command and its output. No fonts are fetched: the reader's monospaced one is used."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere)
        console.print(Text.assemble(("$ ", "green"), (shlex.join(command), "bold")))
        console.print(Text.from_ansi(output.strip()))
        picture = console.export_svg(title="claimbench", unique_id="recording")
    picture = re.sub(r"@font-face\s*{[^}]*}", "", picture)
    return picture.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="where the SVG goes (default: the text is printed)")
    parser.add_argument("command", nargs="+", help="claimbench and its words")
    options, rest = parser.parse_known_args()
    command = [*options.command, *rest]
    output = recorded(command)
    if options.write is None:
        print(output)
    else:
        options.write.write_text(as_svg(command, output), encoding="utf-8")


if __name__ == "__main__":
    main()
