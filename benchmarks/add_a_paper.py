"""The worked example of docs/add-a-paper.md: its commands are run, and what they print is put below them.

python benchmarks/add_a_paper.py            # prints the page as it would be
python benchmarks/add_a_paper.py --write    # puts it into docs/add-a-paper.md

A block of the page that begins with "$ " is run from an empty folder, one after the other; what stands below its
commands is replaced by what they print. A block that begins with a file's name is that file's text as it lies there.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "add-a-paper.md"
BLOCK = re.compile(r"```(sh|toml|python)\n(.*?)```\n", re.S)
FILE = re.compile(r"# (papers/\S+)\n")


def filled(page: str, folder: Path) -> str:
    """The page with what its commands print and its files hold when they are run in `folder`, which must be empty."""
    places = {"CLAIMBENCH_DATA": "data", "CLAIMBENCH_CONFIG": "config", "CLAIMBENCH_CACHE": "cache"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLAIMBENCH_")}
    environment |= {name: str(folder / ".own" / where) for name, where in places.items()}
    environment |= {"COLUMNS": "120", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def fill(block: re.Match[str]) -> str:
        language, text = block.groups()
        if language == "sh" and text.startswith("$ "):
            commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
            text = "".join(f"$ {c}\n{_printed(c, folder, environment)}" for c in commands)
        elif named := FILE.match(text):
            text = f"# {named[1]}\n{(folder / named[1]).read_text(encoding='utf-8')}"
        return f"```{language}\n{text}```\n"

    return BLOCK.sub(fill, page)


def _printed(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What a command prints, without what differs from run to run. Raises RuntimeError if it fails."""
    python = f"{sys.executable} -m "
    words = re.sub(r"^(claimbench )", rf"{python}\1", command)
    words = re.sub(r"^python -m ", python, words)
    done = subprocess.run(
        words,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    text = done.stdout.lstrip("\n")
    text = re.sub(r" in \d+\.\d+s", "", text)  # pytest's own clock
    text = re.sub(r"\d{4}-\d\d-\d\d, .* cores?", "DATE, MACHINE", text)  # claimbench report
    text = re.sub(r"(?m)^(  expected time) .*$", r"\1 TIME", text)
    text = re.sub(r"\.[0-9a-f]{12}\.jsonl", ".MACHINE.jsonl", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + ("\n" if text.strip() else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put it into docs/add-a-paper.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = filled(PAGE.read_text(encoding="utf-8"), Path(folder))
    if options.write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
