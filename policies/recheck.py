"""Look at a suspect step again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from nr_agent.actions import Action, Recheck
from nr_agent.policies.protocol import PolicyContext


class RecheckPolicy(BaseModel):
    """Have the step worked out again.

    Attributes:
        rollback: take the step back first and think it anew; otherwise it stays, and the recheck follows it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["recheck"] = "recheck"
    rollback: bool = False

    def decide(self, context: PolicyContext) -> Action:
        """Recheck, whatever the event."""
        return Recheck(rollback=self.rollback)
