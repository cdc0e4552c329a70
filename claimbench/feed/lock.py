"""One pull at a time, on any database: a row that names its holder.

The holder is a process of a machine. One that is gone frees the lock at once on its own machine, and elsewhere when
the row expires; every page that is saved renews it and fails if somebody else has taken over meanwhile.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import sqlalchemy as sa

from claimbench.errors import UserError
from claimbench.feed.schema import LOCK

if TYPE_CHECKING:
    from claimbench.feed.store import PageStore

SECONDS = 1800.0  # longer than one page with all its attempts takes


class LostLock(Exception):
    """Another pull has taken over: this one was silent for too long."""


@contextmanager
def pulling(store: PageStore) -> Iterator[str]:
    """Hold the lock; the value is the owner to pass to `save_page`. Raises UserError if a pull is under way."""
    owner = this_owner()
    _take(store, owner)
    try:
        yield owner
    finally:
        with store.write() as connection:
            connection.execute(LOCK.delete().where(LOCK.c.name == "pull", LOCK.c.owner == owner))


def _take(store: PageStore, owner: str) -> None:
    with store.write() as connection:
        row = connection.execute(sa.select(LOCK).where(LOCK.c.name == "pull")).one_or_none()
        if row is not None and row.expires > time.time() and alive(row.owner):
            node, pid, _ = row.owner.rsplit(" ", 2)
            raise UserError(
                f"feed pull: another pull is under way (process {pid} on {node}); wait for it or stop it"
            )
        connection.execute(LOCK.delete().where(LOCK.c.name == "pull"))
        connection.execute(LOCK.insert().values(name="pull", owner=owner, expires=time.time() + SECONDS))


def hold(connection: sa.Connection, owner: str) -> None:
    """Renew the lock within a transaction. Raises LostLock unless `owner` holds it."""
    where = (LOCK.c.name == "pull") & (LOCK.c.owner == owner)
    if connection.execute(LOCK.update().where(where).values(expires=time.time() + SECONDS)).rowcount != 1:
        raise LostLock("another pull has taken over")


def this_owner() -> str:
    """Machine, process, and when it began: process numbers are used again."""
    pid = os.getpid()
    return f"{platform.node() or 'here'} {pid} {psutil.Process(pid).create_time():.2f}"


def alive(owner: str) -> bool:
    """Whether the holder may still run: only a process of this machine can be looked up."""
    node, pid, began = owner.rsplit(" ", 2)
    if node != (platform.node() or "here"):
        return True
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == began
    except psutil.Error:
        return False
