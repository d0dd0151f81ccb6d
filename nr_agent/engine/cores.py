"""How many cores this process may use: fewer than the machine has, in a container or a job of a cluster."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of a container on Linux: microseconds of all cores together, in a period of so many; or `max`."""


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores by the process's affinity, and by its container's share of time where that is less.

    Args:
        quota: the file that says the share.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a share: the affinity is all there is
        most, period = quota.read_text().split()
        cores = min(cores, max(1, int(most) // int(period)))
    return cores
