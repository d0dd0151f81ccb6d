"""A container's share of the machine is what counts."""

import os

import pytest

from nr_agent.engine.cores import usable_cores


@pytest.mark.parametrize(
    ("written", "most"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("nonsense", None)]
)
def test_a_quota_bounds_the_cores(tmp_path, written, most):
    quota = tmp_path / "cpu.max"
    quota.write_text(written + "\n")
    free = usable_cores(tmp_path / "none")
    assert 1 <= free <= (os.cpu_count() or 1)
    assert usable_cores(quota) == (free if most is None else min(free, most))
