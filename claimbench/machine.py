"""What this machine is: the facts a number needs beside it, without host names, paths or users."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from claimbench.errors import UserError
from claimbench.spec import canonical, digest


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_gib: float


@dataclass(frozen=True)
class Machine:
    """`id` tells machines apart without naming them."""

    id: str
    cpu: str
    cores: int
    memory_gib: float
    system: str
    gpus: tuple[Gpu, ...]

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    def label(self) -> str:
        gpus = f" + {', '.join(gpu.name for gpu in self.gpus)}" if self.gpus else ""
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB{gpus}"


@cache
def this_machine() -> Machine:
    cpu, cores, memory = _cpu(), len(os.sched_getaffinity(0)), _memory_bytes()
    gpus, system = _gpus(), f"{platform.system()} {platform.machine()}"
    try:
        own = Path("/etc/machine-id").read_bytes()
    except OSError:
        own = b""
    identity = hashlib.sha256(
        repr((cpu, cores, round(memory / 2**30), system, gpus)).encode() + own
    ).hexdigest()[:12]
    return Machine(identity, cpu, cores, round(memory / 2**30, 1), system, gpus)


def environment_facts(device: str) -> dict[str, Any]:
    """What all trials of a set share. Package versions stand with each trial, since only those it loaded matter."""
    return {"machine": this_machine().facts(), "python": platform.python_version(), "device": device}


def alike(device: str) -> dict[str, Any]:
    """The same of all machines like this one: processor, cores, memory, GPUs, system and Python."""
    facts = environment_facts(device)
    machine = {**facts["machine"], "memory_gib": float(round(facts["machine"]["memory_gib"])), "id": ""}
    kind = hashlib.sha256(canonical(machine).encode()).hexdigest()[:12]
    return {**facts, "machine": {**machine, "id": kind}, "machines": "alike"}


def environments(devices: Iterable[str]) -> frozenset[str]:
    """Identities of the environments whose sets this machine may measure: its own, and that of its kind."""
    return frozenset(digest(facts(device)) for device in devices for facts in (environment_facts, alike))


def choose_device(wanted: str) -> str:
    """`auto` is the first GPU if there is one, else the CPU. Raises UserError for a device that is not here."""
    if wanted == "cpu":
        return "cpu"
    if wanted == "auto":
        return "cuda" if this_machine().gpus else "cpu"
    if wanted.split(":")[0] == "cuda":
        if not this_machine().gpus:
            raise UserError("--device: no CUDA GPU on this machine; use --device cpu")
        return wanted
    raise UserError(f'--device: "{wanted}" is none of auto, cpu, cuda, cuda:N')


def memory_bytes() -> int:
    return _memory_bytes()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    """Physical memory, or the control group's limit where that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _gpus() -> tuple[Gpu, ...]:
    """CUDA GPUs by the driver's own library: a fraction of the time that importing torch takes."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    found = []
    for index in range(count.value):
        device, name, total = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, 128, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device)
        found.append(Gpu(name.value.decode(errors="replace"), round(total.value / 2**30, 1)))
    return tuple(found)
