"""The node `recheck`: have the last step worked out again."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.control import count_intervention
from nr_agent.graphs.parts import Parts, make_intervention
from nr_agent.graphs.state import ReasonerState


class Recheck:
    """Put the recheck behind the last step, or in the step's place.

    Reads `sequence`, `boundaries`, `action`; writes `sequence`, `boundaries`, `pending`, `remedy`, `counters`. The
    tokens are inserted with the next step, so that they are read by the model and the detector only once.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """Prepare the recheck."""
        with self.parts.guard(state["episode_id"]):
            return self._prepare(state)

    def _prepare(self, state: ReasonerState) -> dict[str, Any]:
        episode_id, boundaries = state["episode_id"], state["boundaries"]
        ref = self.parts.sequence(state)
        rolled_back = 0
        if state["action"].get("rollback") and boundaries:
            index, start = boundaries[-1]
            rolled_back = ref.length - start
            ref = self.parts.engine.rollback(ref, to=start)
            self.parts.memory.rewind(episode_id, state["branch"], before=index)
            self.parts.store.discard(episode_id, [index])
            boundaries = boundaries[:-1]
        inserted = self.parts.remedies.recheck(
            boundary=self.parts.at_boundary(ref), rollback=bool(state["action"].get("rollback"))
        )
        intervention = make_intervention(
            state,
            "recheck",
            mode=self.parts.remedies.mode,
            position=ref.length,
            inserted=inserted,
            rolled_back=rolled_back,
        )
        self.parts.intervene(episode_id, intervention)
        return {
            "sequence": self.parts.hold(episode_id, ref),
            "boundaries": boundaries,
            "pending": inserted,
            "remedy": intervention.model_dump(mode="json"),
            "answered": self.parts.answered(episode_id) if rolled_back else state["answered"],
            "counters": count_intervention(state["counters"], "recheck"),
            "next": "think",
        }
