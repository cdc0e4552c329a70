"""Runs groups of trials on this machine, each in a process of its own, as many at once as asked for.

A group that raises, hangs, floods, forks or eats memory costs only itself. One that is killed from outside
runs again in a fresh worker, a few times, and is then recorded as lost. The runner knows nothing of where
results are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from claimbench.errors import UserError
from claimbench.runner import watch
from claimbench.runner.interrupts import Interrupts
from claimbench.runner.process import Kind, WorkerProcess, await_end, end_all
from claimbench.runner.wire import Message
from claimbench.spec import Group, Result

TICK = 0.5  # seconds between calls of `tick`, and the longest wait
GRACE = 60.0  # seconds after a group's limit by which its worker must have answered
IMPORT_LIMIT = 900.0  # seconds that a paper's import may take
IMPORT_DEATHS = 10  # kills during the import, none having succeeded, after which the paper is given up
FINAL_WAIT = 5.0

Begin = Callable[[Group], bool]
Finish = Callable[[Group, list[Result]], None]


@dataclass(frozen=True)
class Event:
    """Something that a progress display may show.

    started: the group was handed to a worker. building: shared set-up is built, named by the message.
    progress: a word on where it stands. retry: it was killed from outside and will run again. finished: its
    results were handed over. refused: nothing of its paper can run here; `run` raises the message when the
    other papers are done.
    """

    kind: Literal["started", "finished", "retry", "building", "progress", "refused"]
    group: Group
    message: str = ""


class LocalRunner:
    """Runs groups in workers, at most `jobs` at once; one that is killed is tried `attempts` times in all."""

    def __init__(
        self, *, jobs: int, on_event: Callable[[Event], None] | None = None, attempts: int = 3
    ) -> None:
        if jobs < 1:
            raise UserError(f"jobs: {jobs} is none; give 1 or more")
        self.jobs, self.attempts = jobs, attempts
        self.on_event = on_event or (lambda event: None)

    def run(self, groups: Iterable[Group], *, begin: Begin, finish: Finish, tick: Callable[[], None]) -> None:
        """Run groups until each is finished, skipped or refused; then, alone and one by one, those that take
        times.

        begin(group) is called right before it starts; False skips it. finish(group, results) is called once
        for each group that began, with one result a trial. tick() is called at least every second. Raises
        UserError for papers whose code cannot run here, after the others are done; KeyboardInterrupt on
        Ctrl-C or SIGTERM, after all workers have ended.
        """
        waiting = list(groups)
        watch.end_leftovers()
        with Interrupts() as interrupts:
            execution = _Execution(self, begin, finish, tick, interrupts)
            try:
                execution.drive([_Job(g) for g in waiting if not g.timing], self.jobs)
                for group in waiting:
                    if group.timing:
                        with execution.alone(group):
                            execution.drive([_Job(group)], 1, begin_first=True)
                interrupts.check(lambda: None)  # one that came while the last results were handed over
                execution.close()
            except BaseException:
                execution.abandon()
                raise
        if execution.refused:
            raise UserError("\n".join(dict.fromkeys(execution.refused.values())))


@dataclass
class _Job:
    group: Group
    attempts: int = 0  # that ended by a kill
    begun: bool = False


@dataclass
class _Worker:
    process: WorkerProcess
    state: Literal["starting", "idle", "busy"] = "starting"
    job: _Job | None = None
    since: float = field(default_factory=time.monotonic)
    paused_since: float | None = None
    paused: float = 0.0

    @property
    def kind(self) -> Kind:
        return self.process.kind

    def overdue(self) -> bool:
        """True if the worker itself hangs, which holds trials to their limits but not itself."""
        took = time.monotonic() - self.since
        if self.state == "starting":
            return took > IMPORT_LIMIT
        if self.job is None or self.paused_since is not None or self.job.group.time_limit <= 0:
            return False
        return took - self.paused > self.job.group.time_limit + GRACE


class _Execution:
    """One call of `LocalRunner.run`."""

    def __init__(
        self,
        runner: LocalRunner,
        begin: Begin,
        finish: Finish,
        tick: Callable[[], None],
        interrupts: Interrupts,
    ) -> None:
        self.attempts, self.event = runner.attempts, runner.on_event
        self._begin, self._finish, self._tick, self._interrupts = begin, finish, tick, interrupts
        self.refused: dict[Path, str] = {}
        self._pending: dict[Kind, deque[_Job]] = {}
        self._workers: list[_Worker] = []
        self._leaving: list[WorkerProcess] = []
        self._imported: set[Kind] = set()
        self._import_deaths: dict[Kind, int] = {}
        self._prefix, self._started = watch.marker_prefix(), 0
        self._ticked = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(interrupts.wake, selectors.EVENT_READ)

    # --- which group runs where ---

    def drive(self, jobs: list[_Job], most: int, *, begin_first: bool = False) -> None:
        """Run jobs to their end with at most `most` workers. begin_first: before there is a worker for them."""
        for job in jobs:
            if begin_first:
                job.begun = self._begin(job.group)
                if not job.begun:
                    continue
            self._pending.setdefault(Kind.of(job.group), deque()).append(job)
        while True:
            self._assign(most)
            if not self._workers:
                return
            self._wait()

    def _assign(self, most: int) -> None:
        for worker in [w for w in self._workers if w.state == "idle"]:
            job = self._next(worker.kind)
            if job is None:
                self._let_go(worker)
                continue
            worker.state, worker.job, worker.since, worker.paused, worker.paused_since = (
                "busy",
                job,
                time.monotonic(),
                0.0,
                None,
            )
            self.event(Event("started", job.group))
            worker.process.send(job.group)
        while len(self._workers) < most and (kind := self._neediest()) is not None:
            self._started += 1
            worker = _Worker(WorkerProcess(kind, f"{self._prefix}{self._started}."))
            self._workers.append(worker)
            self._selector.register(worker.process.socket, selectors.EVENT_READ, worker)
            self._selector.register(worker.process.output, selectors.EVENT_READ, worker)

    def _next(self, kind: Kind) -> _Job | None:
        """The next job of a kind that nobody else has taken."""
        queue = self._pending.get(kind, deque())
        while queue:
            job = queue.popleft()
            job.begun = job.begun or self._begin(job.group)
            if job.begun:
                return job
        return None

    def _neediest(self) -> Kind | None:
        """The kind with most jobs for each of its workers, those without a worker first: imports cost seconds."""
        best, most = None, 0.0
        for kind, queue in self._pending.items():
            workers = [w for w in self._workers if w.kind == kind]
            if len(queue) <= sum(w.state == "starting" for w in workers):
                continue
            if not workers:
                return kind
            if len(queue) / len(workers) > most:
                best, most = kind, len(queue) / len(workers)
        return best

    # --- what workers say, and how they end ---

    def _wait(self) -> None:
        for key, _ in self._selector.select(TICK):
            if key.data is None:
                self._interrupts.drain()
            elif key.data not in self._workers:
                continue  # it was let go while its turn had not come
            elif key.fileobj is key.data.process.output:
                if not key.data.process.listen():
                    self._selector.unregister(key.fileobj)
            else:
                self._receive(key.data)
        self._interrupts.check(self._collect)
        for worker in list(self._workers):
            if worker.overdue():
                worker.process.process.kill()
        self._leaving = [w for w in self._leaving if not self._gone(w)]
        self.tick()

    def tick(self) -> None:
        if time.monotonic() - self._ticked >= TICK:
            self._tick()
            self._ticked = time.monotonic()

    @staticmethod
    def _gone(worker: WorkerProcess) -> bool:
        if worker.process.poll() is None:
            return False
        worker.dispose()
        return True

    def _receive(self, worker: _Worker) -> None:
        messages = worker.process.receive()
        if messages is None:
            self._died(worker)
            return
        for message in messages:
            self._hear(worker, message)

    def _collect(self) -> None:
        """Take in what has arrived, so that nothing finished is lost."""
        for worker in list(self._workers):
            for message in worker.process.receive() or []:
                if message["kind"] == "results":
                    self._hear(worker, message)

    def _hear(self, worker: _Worker, message: Message) -> None:
        kind = message["kind"]
        if kind == "ready":
            worker.state = "idle"
            if (
                message["late"]
                and worker.kind not in self._imported
                and (queue := self._pending.get(worker.kind))
            ):
                why = "claims.py starts threads when it is imported, so each trial imports it anew"
                self.event(Event("progress", queue[0].group, why))
            self._imported.add(worker.kind)
        elif kind == "refused":
            self._refuse(worker, message["message"])
        elif kind == "results":
            assert worker.job is not None
            job, worker.job, worker.state = worker.job, None, "idle"
            self._hand_over(job.group, message)
        elif kind == "killed":
            assert worker.job is not None
            killed, worker.job = worker.job, None
            self._let_go(worker)
            self._lost(killed, f"killed by signal {message['signal']}", message["output"])
        elif worker.job is not None and kind == "building":
            worker.paused_since = time.monotonic()
            self.event(Event("building", worker.job.group, message["label"]))
        elif worker.job is not None and kind == "built" and worker.paused_since is not None:
            worker.paused += time.monotonic() - worker.paused_since
            worker.paused_since = None
            self.event(Event("progress", worker.job.group, "built"))

    def _hand_over(self, group: Group, message: Message) -> None:
        common = message["common"]
        self._end(
            group,
            [Result(s, **{**common, **r}) for s, r in zip(group.specs, message["results"], strict=True)],
        )

    def _end(self, group: Group, results: list[Result]) -> None:
        self._finish(group, results)
        failures = [r.failure for r in results if r.status != "ok"]
        self.event(Event("finished", group, failures[0] if failures else ""))

    def _lost(self, job: _Job, cause: str, detail: str) -> None:
        """Killed from outside, nobody's failure: it runs again in a fresh worker, or is recorded as lost."""
        job.attempts += 1
        if job.attempts < self.attempts:
            self.event(Event("retry", job.group, cause))
            self._pending[Kind.of(job.group)].appendleft(job)
            return
        tries = f"{job.attempts} attempt{'s' if job.attempts > 1 else ''}"
        self._end(
            job.group,
            [Result(s, "lost", failure=f"{cause} ({tries})", detail=detail) for s in job.group.specs],
        )

    def _refuse(self, worker: _Worker, message: str) -> None:
        """Nothing of this paper can run here: drop what waits, go on with the others, say so at the end."""
        folder = worker.kind.folder
        dropped = [job for kind, jobs in self._pending.items() if kind.folder == folder for job in jobs]
        for kind, jobs in self._pending.items():
            if kind.folder == folder:
                jobs.clear()
        first = worker.job or (dropped[0] if dropped else None)
        worker.job = None
        self._let_go(worker)
        if folder not in self.refused:
            self.refused[folder] = message
            if first is not None:
                self.event(Event("refused", first.group, message))

    def _died(self, worker: _Worker) -> None:
        self._forget(worker)
        cause, code = worker.process.cause_of_death()
        words = worker.process.last_words()
        worker.process.dispose()
        if worker.job is not None:
            self._lost(worker.job, cause, words)
        elif worker.state == "starting" and worker.kind not in self._imported:
            deaths = self._import_deaths[worker.kind] = self._import_deaths.get(worker.kind, 0) + 1
            outside = code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
            if deaths >= (IMPORT_DEATHS if outside else self.attempts):
                last = f": {words.splitlines()[-1]}" if words else ""
                self._refuse(
                    worker, f"{worker.kind.folder / 'claims.py'}: {cause} while it was imported{last}"
                )

    def _forget(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            for stream in (worker.process.socket, worker.process.output):
                with contextlib.suppress(KeyError):
                    self._selector.unregister(stream)

    def _let_go(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._forget(worker)
            worker.process.close()
            self._leaving.append(worker.process)

    # --- beginning and end ---

    @contextlib.contextmanager
    def alone(self, group: Group) -> Iterator[None]:
        """While times are measured nothing else of this runner runs, and no other of this user's measures times."""
        await_end(self._leaving, patience=FINAL_WAIT)
        self._leaving = []
        path = Path(tempfile.gettempdir()) / f"claimbench-timing-{os.getuid()}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            told = False
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        self.event(Event("progress", group, "waiting for another timing run on this machine"))
                        told = True
                    self._wait()
            yield
        finally:
            os.close(descriptor)

    def close(self) -> None:
        await_end(self._leaving, patience=FINAL_WAIT)
        self._selector.close()

    def abandon(self) -> None:
        """End every worker with its trial."""
        workers = [*(w.process for w in self._workers), *self._leaving]
        self._workers, self._leaving = [], []
        self._selector.close()
        end_all(workers)
        watch.end_marked(self._prefix)
