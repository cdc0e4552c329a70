"""Calling a paper's measure on one group of trials, and turning whatever comes back into results."""

from __future__ import annotations

import contextlib
import errno
import math
import numbers
import os
import random
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from claimbench.currency import PACKAGE, SHELF_PREFIX, loaded_modules, loaded_packages
from claimbench.errors import NotApplicable, UserError, nearest
from claimbench.runner.wire import Message
from claimbench.shared import SetupError
from claimbench.spec import Group, TrialSpec
from claimbench.subjects.wheels import Unreachable
from claimbench.trial import Trial, registry

Send = Callable[[Message], None]
Measures = Mapping[str, Callable[..., Any]]
DETAIL = 16_000  # characters of a traceback that are kept: its end
LINE = 300  # characters of a failure


class Refused(Exception):
    """The paper's code cannot be run on this machine as it is; one line says where and what to do."""


# --- importing claims.py ---


def import_measures(folder: Path) -> Measures:
    """The measures of a paper. Raises Refused with file and line, or with the package that is missing."""
    from claimbench.shelf import load_claims

    if not (folder / "claims.py").is_file():
        raise Refused(f"{folder / 'claims.py'} is missing; a paper's folder holds paper.toml and claims.py")
    try:
        module = load_claims(folder)
    except UserError as error:
        raise Refused(str(error)) from error
    except BaseException as error:  # whatever a paper's code does at its import, sys.exit() included
        raise Refused(_import_line(error, folder)) from error
    return registry(module.__name__).measures


def _import_line(error: BaseException, folder: Path) -> str:
    missing = missing_package(error, folder)
    if missing:
        return missing
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(folder.resolve())]
    frame = (own or [f for f in frames if not f.filename.startswith("<")])[-1:]
    where = f"{frame[0].filename}:{frame[0].lineno}" if frame else str(folder / "claims.py")
    return f"{where}: {one_line(error)}"


def missing_package(error: BaseException, folder: Path) -> str:
    """What to install, if the error is that an installed package is not there; else nothing."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    if top == "claimbench" or top.startswith(SHELF_PREFIX) or ("." in error.name and top in sys.modules):
        return ""
    built_in = folder.resolve().is_relative_to(PACKAGE)
    wanted = f'"claimbench[{folder.parent.name}]"' if built_in else top
    return f"{folder / 'claims.py'} needs the package {top}; pip install {wanted}"


# --- what a trial sees of the worker ---


class Line:
    """The way from a group's process to its worker: pauses of the clock, and records of set-up and timing."""

    def __init__(self, send: Send, specs: Sequence[TrialSpec]) -> None:
        self._send, self._owner = send, os.getpid()
        self._lock, self._depth, self._since = threading.Lock(), 0, 0.0
        self.paused_seconds = 0.0
        self.artefacts: dict[str, float] = {}
        self.packages: dict[str, str] = {}  # of shared set-up
        self.timing: list[dict[str, Any]] = [{} for _ in specs]
        self._specs = specs

    def pause(self, label: str) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._since = time.perf_counter()
                self._tell({"kind": "paused", "label": label})

    def resume(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self.paused_seconds += time.perf_counter() - self._since
                self._tell({"kind": "resumed"})

    def timed(self, index: int, record: dict[str, Any]) -> None:
        """A timing record concerns every arm at the point and seed of the trial that took it."""
        here = self._specs[index]
        for timing, spec in zip(self.timing, self._specs, strict=True):
            if spec.point == here.point and spec.seed == here.seed:
                if timing:
                    raise UserError(
                        "trial.rounds was called twice for one point and seed; its A/A ratio judges one round"
                    )
                timing.update(record)

    def _tell(self, message: Message) -> None:
        if os.getpid() == self._owner:  # a process that a trial forked has no say
            self._send(message)


class Context:
    """What `Trial.context` offers the meters and the shared set-up."""

    def __init__(self, line: Line, index: int) -> None:
        self._line, self._index = line, index

    @contextlib.contextmanager
    def paused(self, label: str) -> Iterator[None]:
        """The group's time and memory limits do not count inside; `label` says what is being built."""
        self._line.pause(label)
        try:
            yield
        finally:
            self._line.resume()

    def timed(self, timed: Any) -> None:
        """Keep the public fields of a `claimbench.meters.Timed` beside the results of this trial's round."""
        names = [f.name for f in fields(timed)] if is_dataclass(timed) else list(vars(timed))
        self._line.timed(self._index, {n: plain(getattr(timed, n)) for n in names if not n.startswith("_")})

    def artefact(self, key: str, seconds: float, packages: Mapping[str, str]) -> None:
        """A shared set-up was used: what building it cost once, and with which packages it was built."""
        self._line.artefacts[key] = float(seconds)
        self._line.packages.update(packages)


def plain(value: Any) -> Any:
    """A value as JSON has it. Raises TypeError for what has no such form."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return number(value)


# --- the call and its outcome ---


def run_group(group: Group, measures: Measures, send: Send) -> Message:
    """Run the measure on a group's trials. Never raises for what the measure does, except Refused.

    The message holds `results`, one of status, metrics, failure and detail for each trial, and what they
    share.
    """
    specs = group.specs
    name = specs[0].measure
    if name not in measures:
        raise Refused(f'{group.folder / "claims.py"}: no @measure("{name}"){nearest(name, measures)}')
    line = Line(send, specs)
    trials = [Trial.of(s, method=group.method, context=Context(line, i)) for i, s in enumerate(specs)]
    settle(specs[0])
    started = time.perf_counter()
    try:
        returned = measures[name](trials if group.listed else trials[0])
        if isinstance(returned, BaseException):
            outcomes = [outcome(returned, group)] * len(specs)
        elif group.listed:
            outcomes = _listed(returned, group)
        else:
            outcomes = [judged(returned, specs[0], group.metrics)]
    except Refused:
        raise
    except BaseException as error:  # sys.exit() in a measure is its failure, not the worker's end
        outcomes = [outcome(error, group)] * len(specs)
    seconds = (time.perf_counter() - started - line.paused_seconds) / len(specs)
    results = [{**found, "timing": timing} for found, timing in zip(outcomes, line.timing, strict=True)]
    common = {
        "seconds": seconds,
        "artefacts": line.artefacts,
        "modules": loaded_modules(),
        "packages": {**line.packages, **loaded_packages()},
    }
    return {"kind": "results", "results": results, "common": common}


def settle(spec: TrialSpec) -> None:
    """Seed what has a global generator, and give torch its threads. Measures should still seed their own."""
    random.seed(spec.seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(spec.seed % 2**32)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.manual_seed(spec.seed)
        torch.set_num_threads(spec.threads)


def _listed(returned: Any, group: Group) -> list[Message]:
    name, count = group.specs[0].measure, len(group.specs)
    if not isinstance(returned, Sequence) or isinstance(returned, str):
        what = f"{name} returned a {type(returned).__name__}, not a list of one result for each trial"
        return [failed(what)] * count
    if len(returned) != count:
        return [failed(f"{name} returned {len(returned)} results for {count} trials")] * count
    return [
        outcome(item, group) if isinstance(item, BaseException) else judged(item, spec, group.metrics)
        for item, spec in zip(returned, group.specs, strict=True)
    ]


def failed(failure: str, detail: str = "", metrics: Mapping[str, float] | None = None) -> Message:
    return {"status": "failed", "metrics": dict(metrics or {}), "failure": failure, "detail": detail}


def judged(returned: Any, spec: TrialSpec, wanted: Sequence[str]) -> Message:
    """A measure's return value as a result: every wanted metric there, and finite.

    Further metrics are kept, finite or not: another claim may read the same measure.
    """
    if not isinstance(returned, Mapping):
        return failed(
            f"{spec.measure} returned a {type(returned).__name__}, not a mapping of names to numbers"
        )
    metrics: dict[str, float] = {}
    for name, value in returned.items():
        if not isinstance(name, str):
            return failed(f"{spec.measure} returned a metric named {name!r}; names are strings")
        try:
            metrics[name] = number(value)
        except TypeError as error:
            return failed(f"metric {name} is {error}, not a number")
    for name in wanted:
        if name not in metrics:
            names = ", ".join(metrics) or "nothing"
            return failed(f"metric {name} is missing from the result of {spec.measure}; it returned: {names}")
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    for name in wanted:
        if name not in finite:
            return failed(f"metric {name} is {metrics[name]}", metrics=finite)
    return {"status": "ok", "metrics": metrics, "failure": "", "detail": ""}


def number(value: Any) -> float:
    """A Python, NumPy or torch number as a float. Raises TypeError saying what the value is instead."""
    scalar = value
    if not isinstance(value, numbers.Real | Decimal) and callable(getattr(value, "item", None)):
        try:
            scalar = value.item()
        except (ValueError, RuntimeError):
            shape = tuple(getattr(value, "shape", ()))
            raise TypeError(f"a {type(value).__name__} of shape {shape}") from None
    if not isinstance(scalar, numbers.Real | Decimal):
        raise TypeError(f"a {type(value).__name__} ({repr(value)[:60]})")
    try:
        return float(scalar)
    except OverflowError:
        return -math.inf if scalar < 0 else math.inf


def outcome(error: BaseException, group: Group) -> Message:
    """Whose doing an exception is: the arm's (failed), the machine's or the shared set-up's (lost), or nobody's."""
    if isinstance(error, NotApplicable):
        return {"status": "not-applicable", "metrics": {}, "failure": str(error)[:LINE], "detail": ""}
    missing = missing_package(error, group.folder)
    if missing:
        raise Refused(missing) from error
    detail = "".join(traceback.format_exception(error))[-DETAIL:]
    if isinstance(error, SetupError | Unreachable):
        return {**failed(one_line(error), detail), "status": "lost"}
    if isinstance(error, UserError):
        return failed(str(error), detail)
    if _is_machines(error):
        return {**failed(f"machine: {one_line(error)}", detail), "status": "lost"}
    if _is_memory(error):
        return failed(f"memory: {one_line(error)}", detail)
    return failed(one_line(error), detail)


def one_line(error: BaseException) -> str:
    message = " ".join(str(error).split())
    return (f"{type(error).__name__}: {message}" if message else type(error).__name__)[:LINE]


_DISK = re.compile(r"No space left on device|Disk quota exceeded|\(os error (5|28|122)\)|Input/output error")
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_machines(error: BaseException) -> bool:
    """A full or broken disk, also where a library has wrapped it in an error of its own."""
    numbers_of_disks = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE}
    return any(
        (isinstance(e, OSError) and e.errno in numbers_of_disks)
        or (isinstance(e, Exception) and not isinstance(e, OSError) and bool(_DISK.search(str(e))))
        for e in _chain(error)
    )


def _is_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
        or (isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error))))
    )
