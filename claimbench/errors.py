"""The errors that are somebody's to mend, told apart from those that are ours."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """The user's mistake: one line that names the file, field or flag and the fix. The command line exits with 2."""


class NotApplicable(Exception):
    """A cell that this machine cannot do (no GPU, too little memory): recorded with its reason, never as a failure."""


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """A command's body: the user's mistake is printed as one line and ends the process with exit code 2."""
    try:
        yield
    except UserError as error:
        print(f"claimbench: {error}", file=sys.stderr)
        sys.exit(2)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `; did you mean "x"?`, or the known names if none is near."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    if not names:
        return ""
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"; known: {shown}"
