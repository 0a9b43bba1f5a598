"""What a benchmark ran on, and what memory it took."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path


def describe() -> str:
    """The processor's name and the number of cores that may be used."""
    name = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        lines = facts.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def peak_memory_gb(usage: resource.struct_rusage | None = None) -> float:
    """The highest resident memory of a process that has ended, or of this one, in GB (Linux counts KiB)."""
    usage = usage or resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * 1024 / 1e9
