"""A policy of one's own, for a made-up domain.

A slip is thought anew instead of rechecked, and nothing is stopped before the answer was stated.

    python examples/own_policy.py
"""

from dataclasses import dataclass

from nr_agent import Action, create_reasoner
from nr_agent.actions import Continue, Recheck, Stop
from nr_agent.policies import Policies, PolicyContext


@dataclass(frozen=True)
class ThinkAnew:
    """Takes a doubtful step back, but only while there are tokens to spare."""

    spare: int = 200
    name: str = "think_anew"

    def decide(self, context: PolicyContext) -> Action:
        """Roll the step back, or go on."""
        return Recheck(rollback=True) if context.tokens_left > self.spare else Continue()


@dataclass(frozen=True)
class StopWhenStated:
    """Stops once a step has said what the answer is."""

    name: str = "stop_when_stated"

    def decide(self, context: PolicyContext) -> Action:
        """Stop, or go on."""
        return Stop(reason="the answer was stated") if context.answer_stated else Continue()


def main() -> None:
    """Solve a problem under these policies, and say what they did."""
    policies = Policies({"intra_step": ThinkAnew(), "instance": StopWhenStated()}, name="orchard")
    reasoner = create_reasoner("nano", policies=policies, seed=3)
    question = "State the final answer to the following arithmetic problem: 412 - 961 + 57 - 8 ="
    result = reasoner.invoke({"messages": [{"role": "user", "content": question}]})
    report = result["reasoning"]
    print(f"answer {report['answer']}, ended by {report['stop_reason']}, {report['usage']['output']} tokens")
    for intervention in report["interventions"]:
        print(f"{intervention['policy']}: {intervention['kind']} after step {intervention['step']}")


if __name__ == "__main__":
    main()
