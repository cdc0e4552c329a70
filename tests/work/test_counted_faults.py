"""A small storm on each kind of ledger: no trial lost, none twice. The large one is benchmarks/faults.py."""

from __future__ import annotations

import sys
from pathlib import Path

from postgres import Server, programs

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import faults

TRIALS, FAULTS = 60, 12


def sound(count: faults.Count) -> None:
    assert count.sound, count
    assert count.asked == count.finished == TRIALS
    assert sum(count.faults.values()) >= FAULTS // 2, count.faults  # the storm was one


def test_killed_workers_and_a_full_disk_lose_nothing(tmp_path: Path) -> None:
    with faults.small_disk(tmp_path / "disk") as disk:
        sound(faults.run(TRIALS, FAULTS, folder=tmp_path, disk=disk, seconds=0.2, lease=4.0))


def test_killed_workers_and_a_restarting_server_lose_nothing(tmp_path: Path, postgres_server: Server) -> None:
    """On a server of its own: the other tests' goes on."""
    found = programs()
    assert found is not None
    server = Server(found)
    try:
        place = server.url(server.create())
        sound(faults.run(TRIALS, FAULTS, folder=tmp_path, place=place, server=server, seconds=0.2, lease=4.0))
    finally:
        server.close()
