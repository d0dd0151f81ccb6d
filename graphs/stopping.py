"""The node `stop`: close the thinking because a policy, or a person, says so."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.control import count_intervention
from nr_agent.graphs.parts import Parts, make_intervention
from nr_agent.graphs.state import ReasonerState


class Stop:
    """Close the thinking. Reads `sequence`, `action`; writes `pending`, `closed`, `counters`, `stop_reason`."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """Prepare the closing; the node `answer` inserts it."""
        episode_id = state["episode_id"]
        with self.parts.guard(episode_id):
            ref = self.parts.sequence(state)
            inserted = self.parts.remedies.closing(boundary=self.parts.at_boundary(ref))
            intervention = make_intervention(
                state,
                "stop",
                mode=self.parts.remedies.mode,
                position=ref.length,
                inserted=inserted,
                outcome="closed",
            )
            self.parts.intervene(episode_id, intervention)
            return {
                "sequence": self.parts.hold(episode_id, ref),
                "pending": inserted,
                "counters": count_intervention(state["counters"], "stop"),
                "stop_reason": state["stop_reason"] or "early_stop",
                "next": "answer",
            }
