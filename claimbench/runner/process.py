"""A worker as its runner sees it: how it is started, spoken to, and ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

from claimbench import subjects
from claimbench.currency import PACKAGE
from claimbench.runner import watch
from claimbench.runner.wire import Frames, Message, frame, group_to_message
from claimbench.runner.worker import TAIL, Settings, command
from claimbench.spec import Group

THREAD_VARIABLES = (
    *(
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    *("VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"),
)


class Kind(NamedTuple):
    """What a worker is for. Groups of one kind may follow each other in one worker."""

    folder: Path
    device: str
    threads: int
    timing: bool
    imports: tuple[str, ...] = ()  # modules that its groups' subjects need

    @classmethod
    def of(cls, group: Group) -> Kind:
        first = group.specs[0]
        imports = subjects.imports(ref for spec in group.specs for ref in spec.subjects.values())
        return cls(group.folder, first.device, first.threads, group.timing, tuple(imports))


class WorkerProcess:
    """One `python -m claimbench.runner.worker`, with its socket and its output."""

    def __init__(self, kind: Kind, marker: str) -> None:
        self.kind, self.marker = kind, marker
        self.socket, theirs = socket.socketpair()
        self._frames = Frames()
        self._tail = b""
        path = [str(Path(entry or os.curdir).absolute()) for entry in sys.path]
        settings = Settings(theirs.fileno(), os.getpid(), os.fspath(kind.folder), path, kind.imports)
        with theirs:
            self.process = subprocess.Popen(
                command(settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environment(kind, marker),
            )
        assert self.process.stdout is not None
        self.output = self.process.stdout
        os.set_blocking(self.output.fileno(), False)

    def send(self, group: Group) -> None:
        """Hand over a group. If the worker has died, the end of its stream will tell, not this."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(frame({"kind": "run", "group": group_to_message(group)}))

    def receive(self) -> list[Message] | None:
        """The messages that have come, without waiting. None: the worker is gone."""
        try:
            data = self.socket.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        return list(self._frames.feed(data)) if data else None

    def listen(self) -> bool:
        """Read what the worker printed outside of trials, and keep its end. False when no more can come."""
        try:
            data = os.read(self.output.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        self._tail = (self._tail + data)[-TAIL:]
        return bool(data)

    def last_words(self) -> str:
        while self.listen():
            if not self._readable():
                break
        return self._tail.decode(errors="replace").strip()

    def _readable(self) -> bool:
        return bool(select.select([self.output], [], [], 0)[0])

    def cause_of_death(self) -> tuple[str, int]:
        """Why a worker whose stream has ended is gone, and its exit code. Ends what is left of its trial."""
        try:
            code = self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        watch.end_marked(self.marker)
        return (f"killed by signal {-code}" if code < 0 else f"the worker ended with status {code}"), code

    def close(self) -> None:
        """Let it go: it ends, with all that it started, when its stream does."""
        self.socket.close()

    def dispose(self) -> None:
        self.socket.close()
        self.output.close()


def end_all(workers: list[WorkerProcess], *, patience: float = 3.0) -> None:
    """End workers at once: they end their trials first, and are killed if that takes too long."""
    for worker in workers:
        worker.close()
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)  # one that is importing does not read its stream
    await_end(workers, patience=patience)


def await_end(workers: list[WorkerProcess], *, patience: float) -> None:
    until = time.monotonic() + patience
    for worker in workers:
        try:
            worker.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
            watch.end_marked(worker.marker)
        worker.dispose()


def environment(kind: Kind, marker: str) -> dict[str, str]:
    """A worker's environment: threads as the trial's key says, and nothing random outside the seed."""
    variables = {
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(kind.threads)),
        watch.MARKER: marker,
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for a GPU must not start CUDA before the fork
        # pyarrow, which scikit-learn imports where pandas is installed, would start a thread: no fork could follow
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "TOKENIZERS_PARALLELISM": "true" if kind.threads > 1 else "false",
        "PYTHONHASHSEED": "random"
        if kind.timing
        else "0",  # rounds vary what a run may vary; other trials repeat
    }
    home = str(PACKAGE.parent)
    standard = {sysconfig.get_paths()[key] for key in ("purelib", "platlib")} | {*site.getsitepackages()}
    if home not in standard:  # a checkout: the worker must import the same claimbench as its runner
        others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != home]
        variables["PYTHONPATH"] = os.pathsep.join([home, *others])
    return variables
