"""What a policy can decide. The graph maps an action to a node; an unknown one is an error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Action(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Continue(_Action):
    """Go on thinking."""

    type: Literal["continue"] = "continue"


class Recheck(_Action):
    """Look at the last step again.

    Attributes:
        rollback: take the step back first and think it anew; otherwise it stays, and the recheck follows it.
    """

    type: Literal["recheck"] = "recheck"
    rollback: bool = False


class Branch(_Action):
    """Leave the line of thought: fork at the last good step and keep the fork that the detectors like best.

    Attributes:
        width: how many forks.
        back: how many steps to go back before forking; 0 forks where the thinking stands.
        fresh: whether the forks are kept from writing what was written already.
    """

    type: Literal["branch"] = "branch"
    width: int = Field(default=2, ge=1, le=8)
    back: int = Field(default=0, ge=0)
    fresh: bool = True


class Stop(_Action):
    """Close the thinking and answer.

    Attributes:
        reason: in a word or two, for the report.
    """

    type: Literal["stop"] = "stop"
    reason: str = "the answer is there"


class AskHuman(_Action):
    """Ask a person before going on.

    Attributes:
        question: what to ask.
    """

    type: Literal["ask_human"] = "ask_human"
    question: str


Action = Annotated[Continue | Recheck | Branch | Stop | AskHuman, Field(discriminator="type")]
"""Any action, told apart by `type`."""
