"""Which rows are computed together in a pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nr_agent.engine.forward import Runner
from nr_agent.engine.jobs import Job

_MOST_LOGITS = 1 << 27
"""Logits of one pass: half a gigabyte in float32."""


def grouped(jobs: Sequence[Job], runner: Runner, chunk: int) -> list[list[Job]]:
    """All of them, unless their padding would need more room than they do, or their logits too much.

    Args:
        jobs: that have tokens to take in.
        runner: computes the passes.
        chunk: most tokens that a row takes in at once.
    """
    if not jobs:
        return []
    sizes = {job: min(len(job.state.ids) - job.state.cached, chunk) for job in jobs}
    longest = max(job.state.cached + size for job, size in sizes.items())
    padded = max(job.state.cached for job in jobs) + max(sizes.values())
    if runner.cache.room is not None and padded > max(longest, runner.cache.capacity):
        return [[job] for job in jobs]
    return _halved(sorted(jobs, key=sizes.__getitem__), sizes, runner)


def _halved(jobs: list[Job], sizes: Mapping[Job, int], runner: Runner) -> list[list[Job]]:
    """Rows by length, in groups whose logits are not too many: each row has those of every other row's end, too."""
    ends = {sizes[job] for job in jobs}
    logits = len(jobs) * (len(ends) if runner.picks else max(ends)) * runner.vocabulary
    if logits <= _MOST_LOGITS or len(jobs) == 1:
        return [jobs]
    middle = len(jobs) // 2
    return [*_halved(jobs[:middle], sizes, runner), *_halved(jobs[middle:], sizes, runner)]
