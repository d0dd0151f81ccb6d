"""Look at a suspect step again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from nr_agent.actions import Action, Branch, Recheck
from nr_agent.policies.protocol import PolicyContext


class RecheckPolicy(BaseModel):
    """Have the step worked out again.

    Attributes:
        rollback: take the step back first and think it anew; otherwise it stays, and the recheck follows it.
        escalate: where the recheck is flagged itself, take it and the step back and go on in two forks: what stands
            there twice is believed, and a third look says the same. It takes a `refractory` of 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["recheck"] = "recheck"
    rollback: bool = False
    escalate: bool = False

    def decide(self, context: PolicyContext) -> Action:
        """Recheck; or leave what a recheck did not mend."""
        if self.escalate and context.last_intervention == "recheck" and context.since_intervention == 1:
            return Branch(width=2, back=1 if self.rollback else 2)
        return Recheck(rollback=self.rollback)
