"""Stop thinking when the answer is there."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nr_agent.actions import Action, Continue, Stop
from nr_agent.policies.protocol import PolicyContext


class EarlyStopPolicy(BaseModel):
    """Close the thinking.

    Attributes:
        require_answer: only once a step has said what the answer is (as `nr_agent.answers` reads it).
        min_steps: only after so many steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["early_stop"] = "early_stop"
    require_answer: bool = False
    min_steps: int = Field(default=1, ge=0)

    def decide(self, context: PolicyContext) -> Action:
        """Stop, or go on while an answer is still required."""
        if context.steps < self.min_steps or (self.require_answer and not context.answer_stated):
            return Continue()
        return Stop(reason=context.event.kind)
