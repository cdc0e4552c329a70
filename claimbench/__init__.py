"""claimbench: does the paper's claim hold on your model, your data, your machine?

    import claimbench

    outcome = claimbench.run("evopress/depth-pruning-beats-scores", subjects={"model": "path/to/model"})
    print(outcome[0].verdict.state)

Everything the command line does is a function: these here, and `claimbench.bench.plan`, `claimbench.report.report`,
`claimbench.publish.publish`, `claimbench.doctor.doctor`. Importing the package loads none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "run": "claimbench.bench",
    "recheck": "claimbench.bench",
    "import_results": "claimbench.publish",
    "Ledger": "claimbench.ledger",
    "Shelf": "claimbench.shelf",
    "NotApplicable": "claimbench.errors",
    "UserError": "claimbench.errors",
}

__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from claimbench.bench import recheck as recheck
    from claimbench.bench import run as run
    from claimbench.errors import NotApplicable as NotApplicable
    from claimbench.errors import UserError as UserError
    from claimbench.ledger import Ledger as Ledger
    from claimbench.publish import import_results as import_results
    from claimbench.shelf import Shelf as Shelf


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'claimbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
