"""Let a program speak for itself before its step is worked out again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nr_agent.actions import Action, Continue, Recheck
from nr_agent.policies.protocol import PolicyContext
from nr_agent.policies.sandbox import programs, run_program


class RunTestsPolicy(BaseModel):
    """Recheck a step whose program fails; one that passes was suspected in vain.

    The program is the fenced Python that the step ends, with the problem's tests (`metadata["tests"]`) behind it. It is
    run by the sandbox of the settings (`NR_AGENT_SANDBOX`) and by nothing else: without one, or without a program, the
    step is rechecked in words. A pack cannot name the command, because a pack may be somebody else's.

    Attributes:
        seconds: a program that takes longer has failed.
        rollback: take the step back first and think it anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["run_tests"] = "run_tests"
    seconds: float = Field(default=10.0, gt=0, le=600)
    rollback: bool = False

    def decide(self, context: PolicyContext) -> Action:
        """Go on where the program passes, else recheck."""
        program = programs(context.text, context.before)
        if program.strip():
            tests = str(context.metadata.get("tests", ""))
            if run_program(f"{program}\n{tests}\n", seconds=self.seconds) == "passed":
                return Continue()
        return Recheck(rollback=self.rollback)
