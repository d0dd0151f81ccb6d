"""What comes next after a step: the policies' action, unless a budget is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nr_agent.actions import Action, Branch, Continue, Stop
from nr_agent.episode import StopReason
from nr_agent.events import FailureEvent
from nr_agent.graphs.budget import Budget
from nr_agent.graphs.parts import Parts
from nr_agent.policies import Decision, PolicyContext
from nr_agent.policies.remedies import least_tokens

NODES = {"continue": "think", "recheck": "recheck", "branch": "branch", "stop": "stop", "ask_human": "ask_human"}
"""The node for each type of action."""

RESERVED_SUPERSTEPS = 4
"""With so many supersteps left the thinking is closed: what is left is `answer`, `record` and LangGraph's own."""

_EXTRA_SUPERSTEPS = {"recheck": 1, "branch": 3, "ask_human": 4}
"""A branch takes three supersteps: forking, exploring, choosing. A person may ask for one."""


class Control:
    """Decides what comes next.

    Args:
        parts: of the reasoner.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def after_step(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """What the state says after a step of thinking: `action`, `next`, and `stop_reason` where it ends.

        Args:
            state: as it will be after the step, with the step's `events`.

        Raises:
            PolicyError: a policy returned something that is no action.
        """
        if state["closed"]:
            return _end("answer", "finished")
        decision = self._decide(state)
        if isinstance(decision.action, Stop):
            return {**_take(decision), "stop_reason": "early_stop"}
        spent = self.spent(state)
        if spent is not None:
            return _end("answer", spent)
        extra = _EXTRA_SUPERSTEPS.get(decision.action.type, 0)
        if state["remaining_steps"] <= RESERVED_SUPERSTEPS + extra or not self._affordable(decision.action, state):
            decision = Decision(Continue())
        return _take(decision)

    def spent(self, state: Mapping[str, Any]) -> StopReason | None:
        """The budget that does not allow another step, or None."""
        budget = Budget.model_validate(state["budget"])
        counters = state["counters"]
        if self.room(state) <= len(state["pending"]):
            return "context"
        if counters["tokens"] >= budget.max_tokens:
            return "token_budget"
        if counters["steps"] >= budget.max_steps or state["remaining_steps"] <= RESERVED_SUPERSTEPS:
            return "step_budget"
        if budget.max_seconds is not None and counters["seconds"] >= budget.max_seconds:
            return "time_budget"
        return None

    def room(self, state: Mapping[str, Any]) -> int:
        """Tokens of the context that are left for thinking: room to close it and to answer is kept.

        For the answer that is as much as it may be long, and at most a quarter of the context: a budget that allows
        for an answer of any length leaves room to think, too.
        """
        answer = min(int(state["budget"]["max_answer_tokens"]), self.parts.engine.capabilities.context // 4)
        reserve = len(self.parts.remedies.closing(boundary=False)) + answer
        return self.parts.room(int(state["sequence"]["length"])) - reserve

    def step_length(self, state: Mapping[str, Any], pending: Sequence[int], *, forks: int = 1) -> int:
        """Most tokens that the next step may sample; of forks each, which share what is left of the budget."""
        budget = Budget.model_validate(state["budget"])
        left = (budget.max_tokens - int(state["counters"]["tokens"])) // forks - len(pending)
        return max(1, min(budget.max_step_tokens, left, self.room(state) - len(pending)))

    def _affordable(self, action: Action, state: Mapping[str, Any]) -> bool:
        """Whether the budget, which forks share, and the context have room for what a remedy inserts and a step."""
        left = Budget.model_validate(state["budget"]).max_tokens - int(state["counters"]["tokens"])
        least, forks = least_tokens(action), action.width if isinstance(action, Branch) else 1
        return left >= least and self.room(state) >= least // forks

    def _decide(self, state: Mapping[str, Any]) -> Decision:
        if not self.parts.control or not state["events"]:
            return Decision(Continue())
        counters, budget = state["counters"], Budget.model_validate(state["budget"])
        events = [FailureEvent.from_state(value) for value in state["events"]]
        since = None if counters["last_intervention"] is None else counters["steps"] - counters["last_intervention"]
        episode = self.parts.store.get(state["episode_id"])
        done = episode.interventions
        texts = {step.index: step.text for step in episode.steps}
        thoughts = [step for step in episode.kept if step.kind == "think"]
        return self.parts.policies.decide(
            [
                PolicyContext(
                    event=event,
                    step=event.step,
                    steps=counters["steps"],
                    since_intervention=since,
                    last_intervention=done[-1].kind if done else None,
                    interventions=dict(counters["interventions"]),
                    tokens_used=counters["tokens"],
                    tokens_left=max(0, budget.max_tokens - counters["tokens"]),
                    events=tuple(episode.events),
                    domain=state["domain"],
                    answer_stated=state["answered"],
                    text=texts.get(event.step, ""),
                    before="".join(step.text for step in thoughts if step.index < event.step),
                    metadata=episode.problem.metadata,
                )
                for event in events
            ]
        )


def count_intervention(counters: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The counters with one more intervention, carried out now."""
    numbers = dict(counters["interventions"])
    numbers[kind] = numbers.get(kind, 0) + 1
    return {**counters, "interventions": numbers, "last_intervention": counters["steps"]}


def _take(decision: Decision) -> dict[str, Any]:
    action = decision.action.model_dump(mode="json")
    if decision.event is not None:
        action |= {"policy": decision.policy, "event_id": decision.event.id, "step": decision.event.step}
    return {"action": action, "next": NODES[decision.action.type]}


def _end(node: str, reason: StopReason) -> dict[str, Any]:
    return {"action": Continue().model_dump(mode="json"), "next": node, "stop_reason": reason}
