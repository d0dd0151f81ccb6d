"""The node `ask_human`: a person decides. It does nothing but ask, because an interrupt runs its node again."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from langgraph.config import get_config
from langgraph.runtime import Runtime
from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from nr_agent import actions
from nr_agent.errors import ConfigurationError
from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.control import NODES, count_intervention
from nr_agent.graphs.parts import Parts, make_intervention
from nr_agent.graphs.state import ReasonerState

_ACTIONS: dict[str, actions.Action] = {
    "continue": actions.Continue(),
    "recheck": actions.Recheck(),
    "rollback": actions.Recheck(rollback=True),
    "branch": actions.Branch(back=1),
    "stop": actions.Stop(reason="a person said so"),
}


class HumanAnswer(BaseModel):
    """What a person may say: resume with `Command(resume="recheck")`, for example, or `{"action": "recheck"}`.

    Attributes:
        action: what to do: go on, have the step rechecked (or thought anew), branch, stop, or give the answer.
        answer: the answer, if that is the action; a number is taken as it is written.
    """

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    action: Literal["continue", "recheck", "rollback", "branch", "stop", "answer"]
    answer: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_word(cls, value: Any) -> Any:
        return {"action": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _answer_with_its_action(self) -> Self:
        if (self.action == "answer") != (self.answer is not None):
            raise ValueError("`answer` goes with the action 'answer', and only with it")
        return self


class AskHuman:
    """Interrupt with the question; go on as the person says.

    Reads `action`, `events`; writes `action`, `next`, `counters`, and `answer` where the person gave it.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """Ask, or take the answer."""
        asked = state["action"]
        question = {
            "question": asked["question"],
            "episode_id": state["episode_id"],
            "event": next((event for event in state["events"] if event["id"] == asked.get("event_id")), None),
            "actions": [*_ACTIONS, "answer"],
        }
        with self.parts.guard(state["episode_id"]):
            self._check_can_ask(state["episode_id"])
        self.parts.wait(state["episode_id"])
        answer = interrupt(question, response_schema=HumanAnswer)
        with self.parts.guard(state["episode_id"]):
            return self._go_on(state, answer)

    def _check_can_ask(self, episode_id: str) -> None:
        # LangGraph would end the run as if nothing were: nobody could ever answer.
        if get_config().get("configurable", {}).get("__pregel_checkpointer", self) is None:
            raise ConfigurationError(
                f"episode {episode_id} has a question for a person, and this run cannot ask: it has no checkpointer",
                hint="compile the graph with a checkpointer and give a thread_id, or use policies with attended=False",
            )

    def _go_on(self, state: ReasonerState, answer: HumanAnswer) -> dict[str, Any]:
        asked, mode = state["action"], self.parts.remedies.mode
        self.parts.come_back(state)
        position = int(state["sequence"]["length"])
        self.parts.intervene(
            state["episode_id"],
            make_intervention(state, "ask_human", mode=mode, position=position, outcome="answered"),
        )
        update: dict[str, Any] = {"counters": count_intervention(state["counters"], "ask_human")}
        if answer.action == "answer":
            return {**update, "answer": answer.answer, "stop_reason": "human", "next": "record"}
        action = _ACTIONS[answer.action]
        chosen = action.model_dump(mode="json") | {"policy": "human"}
        chosen |= {name: asked[name] for name in ("event_id", "step") if name in asked}
        reason = "human" if answer.action == "stop" else None
        return {**update, "action": chosen, "stop_reason": reason, "next": NODES[action.type]}
