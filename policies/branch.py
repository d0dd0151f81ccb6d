"""Leave a line of thought that leads nowhere."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nr_agent.actions import Action, Branch, Continue
from nr_agent.policies.protocol import PolicyContext


class BranchPolicy(BaseModel):
    """Think one step in several forks and go on with the best.

    Attributes:
        until_answer: only until a step has said what the answer is: what repeats itself after that is a check.
        width: how many forks.
        back: how many steps to give up before forking; 1 gives up the step that was flagged.
        fresh: the forks do not write what was written already: where all of a step but its last choice stands there
            again, that choice is not drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["branch"] = "branch"
    until_answer: bool = False
    width: int = Field(default=2, ge=1, le=8)
    back: int = Field(default=1, ge=0, le=8)
    fresh: bool = True

    def decide(self, context: PolicyContext) -> Action:
        """Branch, or go on where the answer is there already."""
        if self.until_answer and context.answer_stated:
            return Continue()
        return Branch(width=self.width, back=self.back, fresh=self.fresh)
