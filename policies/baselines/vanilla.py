"""The model as it is."""

from __future__ import annotations

from dataclasses import dataclass

from nr_agent.policies.baselines.protocol import Line


@dataclass(frozen=True)
class Vanilla:
    """Think to the end."""

    name: str = "vanilla"

    def think(self, line: Line) -> None:
        """Step by step, and nothing else."""
        while line.think() is not None:
            pass
