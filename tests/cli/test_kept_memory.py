"""What tensors leave stays with the process: seen by the page faults of a real one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_LOOP = """
import resource, sys, torch
from nr_agent.cli._memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _LOOP, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_tensor_that_is_made_again_takes_the_memory_of_the_last_one() -> None:
    fetched, kept = _faults("as it is"), _faults("keep")
    assert fetched > 10 * 16_000_000 * 4 // 2**21  # at least a fault for every huge page of ten of them
    assert kept < fetched / 5
