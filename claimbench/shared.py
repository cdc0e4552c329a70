"""Set-up that trials share: built once, cached by content, opened read-only by every trial.

A builder is a function `build(folder, **arguments)` that writes files (safetensors, npz, json) into `folder`. Its
artefact is found again by the builder's name, its arguments, subjects' hashes, dtype, device kind and seed, and counts
only while the code it ran and the packages it used are unchanged. It never sees the arm unless the arm is passed: it
stands at the top of a module, and begins with random generators and torch settings that no trial has touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import inspect
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claimbench.errors import UserError
from claimbench.paths import cache_dir
from claimbench.spec import SubjectRef, digest

if TYPE_CHECKING:
    from claimbench.trial import Trial

FRESH = "CLAIMBENCH_FRESH_SETUP"  # a time: artefacts built before it are built again
MANIFEST = "claimbench.json"
GIVEN = (
    "given:"  # how the record of set-up that all seeds share begins; then the builder's name, ":" and the key
)


class SetupError(RuntimeError):
    """A builder failed: nobody's arm is to blame."""


def shared(trial: Trial, build: Callable[..., None], *, per_seed: bool, arguments: Mapping[str, Any]) -> Path:
    """The folder that `build` filled for these arguments.

    Raises SetupError with the builder's error, and UserError for a builder or arguments that cannot be found again.
    """
    _check_builder(build)
    wanted = inspect.signature(build).parameters
    passed = dict(arguments)
    if per_seed and "seed" in wanted:
        passed.setdefault("seed", trial.seed)
    if "device" in wanted:
        passed.setdefault("device", trial.device)
    if "dtype" in wanted:
        passed.setdefault("dtype", trial.dtype)
    identity = {
        "build": f"{build.__module__}:{build.__qualname__}",
        "arguments": {name: _identity(value) for name, value in passed.items() if name != "device"},
        "seed": trial.seed if per_seed else None,
        "dtype": trial.dtype,
        "device": trial.device.split(":")[0],
    }
    key = digest(identity)
    home = cache_dir() / "shared" / key[:2] / key
    found = _current(home)
    if found is None:
        with _paused(trial.context, f"{build.__name__}"):
            found = _build_once(home, build, passed, identity)
    manifest = json.loads((found / MANIFEST).read_bytes())
    _load(manifest["modules"])
    trial.setup[key] = manifest["seconds"]
    if trial.context is not None:
        name = key if per_seed else f"{GIVEN}{build.__name__}:{key}"
        trial.context.artefact(name, manifest["seconds"], manifest["packages"])
    return found


def given(artefacts: Iterable[str]) -> list[str]:
    """Names of the builders among recorded artefacts whose set-up is the same for all seeds, in words."""
    names = {name.split(":")[1] for name in artefacts if name.startswith(GIVEN)}
    return sorted(name.replace("_", " ").strip() for name in names)


def _check_builder(build: Callable[..., None]) -> None:
    """A function inside another could close over the arm, and no name would tell two such apart."""
    found: Any = sys.modules.get(getattr(build, "__module__", ""))
    for part in getattr(build, "__qualname__", "?").split("."):
        found = getattr(found, part, None)
    if found is not build:
        name = getattr(build, "__qualname__", type(build).__name__)
        raise UserError(
            f"shared set-up: {name} is no function at the top of a module; move it there and pass what it needs"
        )


def _identity(value: Any) -> Any:
    if isinstance(value, SubjectRef):
        return {"subject": value.identity}
    if isinstance(value, list | tuple):
        return [_identity(part) for part in value]
    if isinstance(value, dict):
        return {name: _identity(part) for name, part in value.items()}
    if isinstance(value, str | int | float | bool | type(None)):
        return value
    raise UserError(f"shared set-up takes plain values and subjects' references, not {type(value).__name__}")


def _load(modules: Iterable[str]) -> None:
    """Load what the builder loaded: the trial depends on that code too, and its record says what it has loaded."""
    for name in modules:
        if name not in sys.modules:
            importlib.import_module(name)


def _paused(context: Any, label: str) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if context is None else context.paused(label)


def _current(home: Path) -> Path | None:
    """A finished build whose code, packages and files are as they were."""
    from claimbench.currency import changed

    since = float(os.environ.get(FRESH, "0"))
    for folder in sorted(home.glob("build-*"), reverse=True):
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
        except (OSError, ValueError):
            continue
        if (
            manifest["created"] >= since
            and manifest["files"] == _stamps(folder)
            and not changed(manifest["modules"], manifest["packages"])
        ):
            return folder
    return None


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of each file: what a trial that wrote into a shared folder would change."""
    return {
        str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time; the lock goes with its holder, however that one dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_once(
    home: Path, build: Callable[..., None], passed: Mapping[str, Any], identity: Mapping[str, Any]
) -> Path:
    with _locked(home.with_suffix(".lock")):
        found = _current(home)  # somebody may have built it while this one waited
        if found is not None:
            return found
        home.mkdir(parents=True, exist_ok=True)
        for left in home.glob("partial-*"):
            shutil.rmtree(left, ignore_errors=True)  # of a builder that was killed: the lock says it is gone
        partial = home / f"partial-{os.getpid()}"
        partial.mkdir()
        started = time.time()
        try:
            error = _run(build, partial, passed, int(home.name[:8], 16))
            if error:
                raise SetupError(f"shared set-up {build.__qualname__} failed: {error}")
            manifest = json.loads((partial / MANIFEST).read_bytes())
            manifest.update(
                identity=identity, created=started, seconds=time.time() - started, files=_stamps(partial)
            )
            (partial / MANIFEST).write_text(json.dumps(manifest, default=str))
            for path in [*partial.rglob("*"), partial]:
                path.chmod(0o555 if path.is_dir() else 0o444)
            final = home / f"build-{time.time_ns():020d}"
            partial.chmod(0o755)
            partial.rename(final)
            final.chmod(0o555)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return final


def _run(build: Callable[..., None], folder: Path, passed: Mapping[str, Any], seed: int) -> str:
    """Build in a forked process, so that a trial that built and one that found its set-up are in the same state.

    Where forking is unsafe (a GPU context or a thread pool is open) it builds here and puts everything back.
    Returns the error in one line, or nothing.
    """
    if _may_fork():
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            with _untouched(seed, devices=[]):
                os.write(writer, _build_here(build, folder, passed).encode()[:60_000])
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            message = pipe.read().decode(errors="replace")
        _, status = os.waitpid(child, 0)
        if status:
            return (
                f"the builder was killed by signal {os.WTERMSIG(status)}"
                if os.WIFSIGNALED(status)
                else "it ended early"
            )
        return message
    with _untouched(seed, devices=None):
        return _build_here(build, folder, passed)


def _build_here(build: Callable[..., None], folder: Path, passed: Mapping[str, Any]) -> str:
    from claimbench.currency import loaded_modules, loaded_packages

    try:
        build(folder, **passed)
        names = import_closure(build.__module__)
        modules = {name: value for name, value in loaded_modules().items() if name in names}
        (folder / MANIFEST).write_text(json.dumps({"modules": modules, "packages": loaded_packages()}))
    except BaseException as error:
        return f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    return ""


def import_closure(module: str) -> set[str]:
    """The project modules that `module` reaches by imports, itself included: what a builder's result may depend on.

    Read from the source (imports at any depth, and "module:object" strings of registries), and kept to what is loaded,
    so that the other measures of the same `claims.py` do not make a builder's artefact out of date.
    """
    from claimbench.currency import loaded_modules

    project = set(loaded_modules())
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in project:
            continue
        reached.add(name)
        waiting.extend(_imports(name))
    return reached


def _imports(name: str) -> set[str]:
    import ast

    module = sys.modules[name]
    path = getattr(module, "__file__", None)
    if path is None:
        return set()
    package = name if hasattr(module, "__path__") else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(path).read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
            found.add(node.value.split(":", 1)[0])  # a registry's "module:object"
    return found


def _may_fork() -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return True
    return torch.get_num_threads() == 1 and not torch.cuda.is_initialized()


@contextlib.contextmanager
def _untouched(seed: int, *, devices: list[int] | None) -> Iterator[None]:
    """Global generators seeded anew and torch as it starts, with one thread: the builder depends on no trial.

    Afterwards everything is as it was, on these GPUs too (None: all of them; a fork that ends here needs none).
    """
    import random

    import numpy as np

    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        with _torch_untouched(seed, devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def _torch_untouched(seed: int, devices: list[int] | None) -> Iterator[None]:
    if "torch" not in sys.modules:
        yield  # nothing of it was changed; a builder that imports it seeds its own generators
        return
    import torch

    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
