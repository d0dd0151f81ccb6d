"""What an episode may cost before it is brought to an end with what it has."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Budget(BaseModel):
    """Limits of an episode. Reaching one closes the thinking and asks for the answer; it is no error.

    Attributes:
        max_tokens: most tokens of thinking: sampled and inserted, discarded ones included.
        max_answer_tokens: most tokens of the answer.
        max_steps: most steps of thinking, discarded ones included.
        max_step_tokens: most tokens a step; a longer one is cut there.
        max_seconds: most seconds of thinking, looked at between steps; waiting for a person does not count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=1024, ge=1)
    max_answer_tokens: int = Field(default=128, ge=1)
    max_steps: int = Field(default=256, ge=1)
    max_step_tokens: int = Field(default=512, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
