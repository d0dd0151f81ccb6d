"""Ask a person what to do about a suspect step."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nr_agent.actions import Action, AskHuman, Continue
from nr_agent.policies.protocol import PolicyContext


class AskHumanPolicy(BaseModel):
    """Interrupt the graph with a question; it needs a checkpointer to be answered.

    Attributes:
        question: what to ask; `{kind}`, `{level}`, `{step}` and `{score}` are filled in from the event.
        require_answer: only once a step has said what the answer is: what is in doubt then is the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["ask_human"] = "ask_human"
    question: str = Field(default="Step {step} looks like a {kind} failure (score {score}). What now?", min_length=1)
    require_answer: bool = False

    def decide(self, context: PolicyContext) -> Action:
        """Ask, or go on while an answer is still required."""
        if self.require_answer and not context.answer_stated:
            return Continue()
        event = context.event
        fields = {"kind": event.kind, "level": event.level, "step": str(event.step), "score": f"{event.score:.2f}"}
        question = self.question
        for name, value in fields.items():
            question = question.replace("{" + name + "}", value)
        return AskHuman(question=question)
