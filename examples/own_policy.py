"""Policies from scratch for a made-up domain: the ledgers of a lighthouse.

The keeper writes down how much oil is left. A figure that looks wrong early in the thinking is rechecked; later, when
much rests on it, the step is thought anew; and once the answer is stated, nobody goes on reading. The same policies are
then tried on the episode that was recorded, as `nr-agent policies test` does.

    python examples/own_policy.py
"""

from dataclasses import dataclass

from nr_agent import Action, EpisodeStore, create_reasoner
from nr_agent.actions import Continue, Recheck, Stop
from nr_agent.policies import BranchPolicy, Policies, PolicyContext, Rule, replay

QUESTION = "State the final answer to the following arithmetic problem: 412 - 961 + 57 - 8 ="


@dataclass(frozen=True)
class KeepTheLedger:
    """Rechecks a doubtful figure, or takes it back where others were written below it and there is oil to spare."""

    early: int = 3
    spare: int = 200
    name: str = "keep_the_ledger"

    def decide(self, context: PolicyContext) -> Action:
        """Recheck, in the step's place from the fourth step on."""
        if context.tokens_left < self.spare:
            return Continue()
        return Recheck(rollback=context.steps > self.early)


@dataclass(frozen=True)
class LightTheLamp:
    """Stops once a step has said what the answer is."""

    name: str = "light_the_lamp"

    def decide(self, context: PolicyContext) -> Action:
        """Stop, or go on."""
        return Stop(reason="the answer was stated") if context.answer_stated else Continue()


def main() -> None:
    """Solve a problem under these policies, say what they did, and what stricter ones would have done."""
    lighthouse = Policies(
        {
            "intra_step": KeepTheLedger(),
            "inter_step": Rule(BranchPolicy(until_answer=True), min_score=0.95, reason="fog: try another course"),
            "instance": LightTheLamp(),
        },
        name="lighthouse",
    )
    store = EpisodeStore.in_memory()
    reasoner = create_reasoner("nano", policies=lighthouse, store=store, seed=3)
    report = reasoner.invoke({"messages": [{"role": "user", "content": QUESTION}]})["reasoning"]
    print(f"answer {report['answer']}, ended by {report['stop_reason']}, {report['usage']['output']} tokens")
    for intervention in report["interventions"]:
        print(f"{intervention['policy']}: {intervention['kind']} after step {intervention['step']}")

    stricter = Policies({"intra_step": KeepTheLedger(early=0)}, name="stricter")
    for point in replay(store.get(report["episode_id"]), stricter).points:
        print(f"step {point.step}: {point.was}, and under stricter policies {point.now}")


if __name__ == "__main__":
    main()
