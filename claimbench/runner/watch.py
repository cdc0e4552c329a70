"""Process trees: binding a child's life to its parent's, finding descendants, their memory, ending them all.

Linux gives the guarantees: a child dies with its parent (PR_SET_PDEATHSIG), orphaned descendants of a trial
become children of its worker (PR_SET_CHILD_SUBREAPER), and a marker in the environment finds what is left of
a worker that was killed. Elsewhere process groups and psutil are used, which a process can leave by starting
a session of its own after its parent is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

LINUX = sys.platform == "linux"
MARKER = "CLAIMBENCH_WORKER"  # environment of a worker and all it starts: see `marker_prefix`
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PAGE = os.sysconf("SC_PAGE_SIZE")


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with(parent: int, sent: signal.Signals) -> None:
    """Receive `sent` when the parent dies. Ends this process at once if `parent` is dead already."""
    if LINUX and _libc().prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Descendants whose parents are gone become children of this process, so that none can slip away."""
    if LINUX and _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def threads_here() -> int:
    """Threads of this process, those that libraries started included; 0 where the system does not tell."""
    return sum(1 for _ in Path("/proc/self/task").iterdir()) if LINUX else 0


class Tree:
    """All descendants of one process, with the cost of looking kept to a small share of the time."""

    def __init__(self, root: int, *, share: float = 0.02) -> None:
        self.root, self._share = root, share
        self.ended: dict[int, tuple[int, int]] = {}  # by `reap`: pid -> wait status, largest resident bytes
        self._pids: list[int] = []
        self._next = 0.0
        self._by_file = LINUX and Path(f"/proc/self/task/{os.getpid()}/children").exists()

    def forget(self) -> None:
        """Begin anew for another trial."""
        self.ended.clear()
        self._pids, self._next = [], 0.0

    def pids(self) -> list[int]:
        """Descendants, the root not among them."""
        if self._by_file:
            found: list[int] = []
            waiting = [self.root]
            while waiting:
                children = _children(waiting.pop())
                found += children
                waiting += children
            return found
        return _below(self.root, _parents())

    def resident(self) -> int:
        """Bytes resident in the descendants, pages that they share counted once for each.

        Where the kernel does not list children by process, finding them means reading all of /proc; that is
        then done as often as `share` of one core allows, and in between the known ones are read.
        """
        started = time.monotonic()
        if started >= self._next:
            self._pids = self.pids()
            took = time.monotonic() - started
            self._next = started + took / self._share
        return sum(map(_resident, self._pids))

    def proportional(self) -> int:
        """Bytes with shared pages divided among those that share them: exact, and slow."""
        return sum(map(_proportional, self.pids()))

    def end(self, *, own_group: int, patience: float = 5.0) -> bool:
        """Kill all descendants with their process groups, until none is left. False if some would not go.

        Groups are killed at once, so that a process that forks faster than it can be found does not get away.
        """
        until = time.monotonic() + patience
        while pids := [pid for pid in self.pids() if not _is_zombie(pid)]:
            groups = set()
            for pid in pids:
                with contextlib.suppress(OSError):
                    groups.add(os.getpgid(pid))
            for group in groups - {own_group, 0, 1}:
                with contextlib.suppress(OSError):
                    os.killpg(group, signal.SIGKILL)
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.reap()
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        self.reap()
        return True

    def reap(self) -> bool:
        """Collect ended children of this process without waiting. False if it has no more children.

        Where orphans are adopted, no children means no descendants: one system call instead of a look at all
        of /proc.
        """
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.ended[pid] = (status, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


# --- what is left of workers that were killed ---


_runs = itertools.count(1)


def marker_prefix() -> str:
    """A name for one run of this process: a later process with its pid has another start time."""
    pid = os.getpid()
    return f"{_namespace()}.{pid}.{_started(pid)}.{next(_runs)}."


def end_marked(prefix: str, *, patience: float = 3.0) -> int:
    """Kill every process whose marker begins with `prefix`. Returns how many there were."""
    return _end_marked(lambda marker: marker.startswith(prefix), patience)


def end_leftovers() -> int:
    """Kill what remains of workers whose runner is gone: runner and worker were killed at the same moment."""

    def orphaned(marker: str) -> bool:
        parts = marker.split(".")
        if len(parts) < 4 or parts[0] != str(_namespace()) or not parts[1].isdigit():
            return False
        return _started(int(parts[1])) != parts[2]

    return _end_marked(orphaned, 3.0)


def _end_marked(wanted: Callable[[str], bool], patience: float) -> int:
    until = time.monotonic() + patience
    ended: set[int] = set()
    while pids := [pid for pid, marker in _marked() if wanted(marker)]:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        ended.update(pids)
        if time.monotonic() > until:
            break
        time.sleep(0.002)
    return len(ended)


def _marked() -> Iterator[tuple[int, str]]:
    """This user's processes that carry a marker, this one left out."""
    key = f"{MARKER}=".encode()
    for pid in _all_pids():
        if pid == os.getpid():
            continue
        for entry in _environment(pid):
            if entry.startswith(key):
                yield pid, entry[len(key) :].decode(errors="replace")
                break


def _environment(pid: int) -> list[bytes]:
    if LINUX:
        return _read(f"/proc/{pid}/environ").split(b"\0")
    import psutil

    try:
        return [f"{name}={value}".encode() for name, value in psutil.Process(pid).environ().items()]
    except (psutil.Error, OSError):
        return []


def _namespace() -> int:
    """Pids belong to one pid namespace: a container's runner must not look dead from outside."""
    return Path("/proc/self/ns/pid").stat().st_ino if LINUX else 0


def _started(pid: int) -> str:
    if LINUX:
        fields = _stat(pid)
        return fields[19] if fields and fields[0] not in "ZX" else ""
    import psutil

    try:
        return str(int(psutil.Process(pid).create_time()))
    except psutil.Error:
        return ""


# --- /proc, or psutil where there is none ---


def _read(path: str) -> bytes:
    """A file of /proc; empty if the process is gone or somebody else's."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name, state first (proc_pid_stat(5)); empty if it is gone."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].decode().split()


def _all_pids() -> list[int]:
    if LINUX:
        return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    import psutil

    return psutil.pids()


def _parents() -> dict[int, int]:
    if not LINUX:
        import psutil

        found = {}
        for process in psutil.process_iter(["ppid"]):
            found[process.pid] = process.info["ppid"]
        return found
    return {pid: int(fields[1]) for pid in _all_pids() if (fields := _stat(pid))}


def _below(root: int, parents: dict[int, int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _children(pid: int) -> list[int]:
    """By the kernel's own list, of every thread that may have forked."""
    try:
        tasks = [entry.name for entry in os.scandir(f"/proc/{pid}/task")]
    except OSError:
        return []
    return [int(child) for task in tasks for child in _read(f"/proc/{pid}/task/{task}/children").split()]


def _is_zombie(pid: int) -> bool:
    if not LINUX:
        import psutil

        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True
    fields = _stat(pid)
    return not fields or fields[0] in "ZX"


def _resident(pid: int) -> int:
    if not LINUX:
        import psutil

        try:
            return psutil.Process(pid).memory_info().rss
        except psutil.Error:
            return 0
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE if len(fields) > 1 else 0


def _proportional(pid: int) -> int:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return _resident(pid)
