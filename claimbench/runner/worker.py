"""A worker: one process for one paper on one device, which forks for every group of trials and watches the fork.

The worker imports the paper and its subjects' libraries once and stays single-threaded, so that forks are safe, no
trial sees another's state and an import of seconds is paid once. It enforces the group's limits and ends everything
that a trial started. Where the import leaves threads behind (or a thread count cannot be had), it starts over without
importing, and every fork imports for itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import io
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from claimbench.currency import imports_begin, loaded_modules, loaded_packages
from claimbench.runner import watch
from claimbench.runner.measure import Measures, Refused, failed, import_measures, run_group
from claimbench.runner.wire import Frames, Message, group_from_message, write_frame
from claimbench.spec import Group

TAIL = 4096  # bytes of a trial's output that are kept; the rest is read and dropped
POLL = 0.05  # seconds between looks at a trial's memory
POLL_TIMING = 0.25  # the same while times are measured: looking costs under 0.1 % of a core
LINGER = (
    0.2  # seconds that helpers of a finished trial have to end by themselves (they may have files to remove)
)
LEAVE = 10.0  # seconds that a finished trial's process may take to end (freeing a GPU takes a while)


@dataclass
class Settings:
    """How a worker is started: the only argument, as JSON."""

    descriptor: int  # socket to the runner
    parent: int  # the runner's pid
    folder: str
    path: list[str]  # the runner's sys.path
    imports: Sequence[str] = ()  # modules that opening its groups' subjects will import
    late: bool = False  # forks import for themselves


@dataclass
class Running:
    """One forked group, as its worker sees it."""

    pid: int
    group: Group
    started: float = field(default_factory=time.monotonic)
    messages: list[Message] = field(default_factory=list)
    tail: bytes = b""
    written: int = 0  # bytes of output
    paused_since: float | None = None
    paused: float = 0.0
    peak: int = 0
    status: int | None = None  # wait status, once it has ended
    killed: str = ""  # why this worker ended it
    finished: float | None = None  # when its results came

    def elapsed(self) -> float:
        now = time.monotonic()
        return (
            now
            - self.started
            - self.paused
            - (now - self.paused_since if self.paused_since is not None else 0.0)
        )


class Worker:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = Path(settings.folder)
        self.runner = socket.socket(fileno=settings.descriptor)
        self.frames = Frames()
        self.measures: Measures | None = None
        self.modules: dict[str, str] = {}
        self.packages: dict[str, str] = {}
        self.tree = watch.Tree(os.getpid())
        self.wake, wake = socket.socketpair()
        for end in (self.wake, wake):
            end.setblocking(False)
        self._wake_writer = wake
        self.stopping = False

    def send(self, message: Message) -> None:
        write_frame(self.runner.fileno(), message)

    def serve(self) -> NoReturn:
        """Import, then run groups until the runner closes its end."""
        if not self.settings.late:
            try:
                self.measures = import_measures(self.folder)
            except Refused as refused:
                self.send({"kind": "refused", "message": str(refused)})
                os._exit(0)
            for name in self.settings.imports:
                with contextlib.suppress(ImportError):  # the trial that needs it will say so
                    importlib.import_module(name)
            if not may_fork():
                self.start_over()
            self.modules, self.packages = loaded_modules(), loaded_packages()
            gc.collect()
            gc.freeze()  # collections in the forks then leave the shared pages alone
        self.send({"kind": "ready", "late": self.settings.late})
        while data := self.runner.recv(1 << 16):
            for message in self.frames.feed(data):
                answer = self.run(group_from_message(message["group"]))
                self.send(answer)
        os._exit(0)

    def start_over(self) -> NoReturn:
        """Become a worker whose forks import for themselves: threads die in a fork, their locks do not."""
        late = Settings(**{**vars(self.settings), "late": True})
        os.set_inheritable(self.settings.descriptor, True)
        os.execv(sys.executable, command(late))

    # --- one group ---

    def run(self, group: Group) -> Message:
        watch.die_with(
            self.settings.parent, signal.SIGTERM
        )  # while a trial runs, its descendants must be ended first
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, stack: None)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        self.tree.forget()
        try:
            return self._run(group)
        except BaseException:
            self.tree.end(own_group=os.getpgrp())
            raise
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            watch.die_with(self.settings.parent, signal.SIGKILL)

    def _stop(self, number: int, stack: Any) -> None:
        self.stopping = True

    def _run(self, group: Group) -> Message:
        results, results_end = os.pipe()
        output, output_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            for descriptor in (results, output):
                os.close(descriptor)
            for end in (self.runner, self.wake, self._wake_writer):
                os.close(end.detach())
            child_main(group, self.measures, parent, results_end, output_end)
        os.close(results_end)
        os.close(output_end)
        running = Running(pid, group)
        try:
            self._watch(running, results, output)
            self._clean_up(running)
            drain(output, lambda data: add_output(running, data))
        finally:
            os.close(results)
            os.close(output)
        return self._answer(running)

    def _watch(self, running: Running, results: int, output: int) -> None:
        """Until the fork has ended: pass on what it says, keep its output's tail, hold it to its limits."""
        frames = Frames()
        poll = POLL_TIMING if running.group.timing else POLL
        with selectors.DefaultSelector() as selector:
            for descriptor in (results, output):
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            selector.register(self.wake, selectors.EVENT_READ)
            selector.register(self.runner, selectors.EVENT_READ)
            look = time.monotonic() + min(poll, 0.02)
            while running.status is None:
                ready = {key.fd for key, _ in selector.select(max(0.0, look - time.monotonic()))}
                if self.stopping or (self.runner.fileno() in ready and self._runner_is_gone()):
                    self._abandon()
                if self.wake.fileno() in ready:
                    drain(self.wake.fileno(), lambda data: None)
                if results in ready and not read(
                    results, lambda data: self._hear(running, frames.feed(data))
                ):
                    selector.unregister(results)
                if output in ready and not read(output, lambda data: add_output(running, data)):
                    selector.unregister(output)
                self._collect(running)
                if running.status is None and time.monotonic() >= look:
                    self._limit(running)
                    look = time.monotonic() + poll
        drain(results, lambda data: self._hear(running, frames.feed(data)))

    def _runner_is_gone(self) -> bool:
        return self.runner.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""

    def _abandon(self) -> NoReturn:
        self.tree.end(own_group=os.getpgrp())
        os._exit(0)

    def _hear(self, running: Running, messages: Any) -> None:
        for message in messages:
            if message["kind"] == "paused":
                running.paused_since = time.monotonic()
                self.send({"kind": "building", "label": message["label"]})
            elif message["kind"] == "resumed" and running.paused_since is not None:
                running.paused += time.monotonic() - running.paused_since
                running.paused_since = None
                self.send({"kind": "built"})
            elif message["kind"] == "loaded":
                self.modules, self.packages = message["modules"], message["packages"]
                running.started = time.monotonic()  # the limit is the trial's, not the import's
            else:
                running.messages.append(message)
                running.finished = time.monotonic()

    def _collect(self, running: Running) -> None:
        self.tree.reap()
        if running.pid in self.tree.ended:
            running.status, largest = self.tree.ended[running.pid]
            running.peak = max(running.peak, largest)

    def _limit(self, running: Running) -> None:
        """Hold the group to its limits, which rest while shared set-up is built."""
        group = running.group
        if running.finished is not None:
            if time.monotonic() - running.finished > LEAVE:
                os.kill(running.pid, signal.SIGKILL)
            return
        resident = self.tree.resident()
        running.peak = max(running.peak, resident)
        if running.paused_since is not None:
            return
        if group.time_limit > 0 and running.elapsed() > group.time_limit:
            running.killed = f"time: {group.time_limit:g} s"
        elif 0 < group.memory_limit < resident and (used := self.tree.proportional()) > group.memory_limit:
            running.killed = f"memory: {_gib(used)} of {_gib(group.memory_limit)}"
        if running.killed:
            self.tree.end(own_group=os.getpgrp())

    def _clean_up(self, running: Running) -> None:
        """End what the trial left behind: orphans are this process's children, so none is overlooked."""
        until = time.monotonic() + (0.0 if running.killed else LINGER)
        while (left := self.tree.reap()) and time.monotonic() < until:
            time.sleep(0.005)
        if not watch.LINUX:
            with contextlib.suppress(OSError):
                os.killpg(running.pid, signal.SIGKILL)
        if left and not self.tree.end(own_group=os.getpgrp()):
            raise RuntimeError("processes that a trial started could not be ended")

    def _answer(self, running: Running) -> Message:
        output = running.tail.decode(errors="replace")
        if running.written > TAIL:
            output = f"[{running.written} bytes of output; the last {TAIL}:]\n{output}"
        common: Message = {"peak_bytes": running.peak}
        for message in running.messages:
            if message["kind"] == "refused":
                return message
            for result in message["results"]:
                if result["status"] not in ("ok", "not-applicable") and output:
                    result["detail"] = f"{result['detail']}\n--- output ---\n{output}".lstrip()
            return {**message, "common": {**message["common"], **common}}
        assert running.status is not None
        code = os.waitstatus_to_exitcode(running.status)
        if code < 0 and not running.killed:
            return {"kind": "killed", "signal": -code, "output": output}
        failure = running.killed or f"the process ended with status {code} before the measure returned"
        common |= {
            "modules": self.modules,
            "packages": self.packages,
            "seconds": running.elapsed() / len(running.group.specs),
        }
        results = [failed(failure, output) for _ in running.group.specs]
        return {"kind": "results", "results": results, "common": common}


def add_output(running: Running, data: bytes) -> None:
    running.written += len(data)
    running.tail = (running.tail + data)[-TAIL:]


def read(descriptor: int, take: Any) -> bool:
    """Read once without waiting. False at the end of the stream."""
    try:
        data = os.read(descriptor, 1 << 18)
    except BlockingIOError:
        return True
    take(data)
    return bool(data)


def drain(descriptor: int, take: Any, most: int = 1 << 22) -> None:
    """Read what is there without waiting, at most about `most` bytes."""
    while most > 0:
        try:
            data = os.read(descriptor, 1 << 18)
        except BlockingIOError:
            return
        if not data:
            return
        most -= len(data)
        take(data)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def may_fork() -> bool:
    """True if this process has one thread, once pools that close at a fork (OpenBLAS's) have seen one."""
    if watch.threads_here() > 1:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return watch.threads_here() == 1


# --- in the fork ---


def child_main(group: Group, measures: Measures | None, parent: int, results: int, output: int) -> NoReturn:
    """Run one group and end this process, whatever happens."""
    own = os.getpid()
    try:
        watch.die_with(parent, signal.SIGKILL)
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for stream in (sys.stdout, sys.stderr):
            assert isinstance(stream, io.TextIOWrapper)
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
        volunteer()
        faulthandler.enable()

        def send(message: Message) -> None:
            write_frame(results, message)

        try:
            if measures is None:
                measures = import_measures(group.folder)
                send({"kind": "loaded", "modules": loaded_modules(), "packages": loaded_packages()})
            answer = run_group(group, measures, send)
        except Refused as refused:
            answer = {"kind": "refused", "message": str(refused)}
        if os.getpid() == own:  # a fork of the measure's own may come back here; it has nothing to say
            sys.stdout.flush()
            sys.stderr.flush()
            send(answer)
            os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(70)


def volunteer() -> None:
    """Let the kernel end trials rather than the runner or the user's other programs when memory runs out."""
    if watch.LINUX:
        try:
            Path("/proc/self/oom_score_adj").write_text("800")
        except OSError:
            return  # a sandbox without a writable /proc: the kernel then chooses for itself


def command(settings: Settings) -> list[str]:
    """How a worker is started. -P: modules are never taken from the current directory by accident."""
    return [sys.executable, "-P", "-m", "claimbench.runner.worker", json.dumps(vars(settings))]


def main() -> NoReturn:
    imports_begin()
    settings = Settings(**json.loads(sys.argv[1]))
    watch.die_with(settings.parent, signal.SIGKILL)
    watch.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's to answer
    os.set_inheritable(settings.descriptor, False)
    sys.path += [entry for entry in settings.path if entry not in sys.path]
    Worker(settings).serve()


if __name__ == "__main__":
    main()
