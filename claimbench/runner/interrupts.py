"""Ctrl-C and SIGTERM while workers run."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM: like Ctrl-C for whoever cleans up, and told apart for the exit status."""


class Interrupts:
    """Ctrl-C and SIGTERM, answered between two steps rather than in the middle of one.

    The first is noted and raised where nothing is half-done; a second one is raised at once, for a user who
    will not wait for whatever hangs. Outside the main thread signals stay with whoever has them.
    """

    def __init__(self) -> None:
        self.wake, self._writer = socket.socketpair()
        self._raised = False
        self._received: int | None = None
        self._old: dict[int, object] = {}
        self._old_wakeup = -1

    def __enter__(self) -> Interrupts:
        for end in (self.wake, self._writer):
            end.setblocking(False)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._old[number] = signal.signal(number, self._handle)
            self._old_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._old_wakeup)
            for number, handler in self._old.items():
                signal.signal(number, handler)  # type: ignore[arg-type]  # as `signal.signal` returned it
        self.wake.close()
        self._writer.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self._received is not None
        self._received = number
        if again and not self._raised:
            raise self._error()

    def _error(self) -> KeyboardInterrupt:
        self._raised = True  # whoever is ending the workers by now must not be interrupted once more
        return Terminated() if self._received == signal.SIGTERM else KeyboardInterrupt()

    def check(self, before: Callable[[], None]) -> None:
        """Raise what has been received, after `before()`."""
        if self._received is not None and not self._raised:
            before()
            raise self._error()

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.wake.recv(4096):
                pass
