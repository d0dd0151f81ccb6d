"""What somebody else's code looks like: `make type` checks it strictly, and with it the types of what is public.

It is never run.
"""

from typing import Any, assert_type

from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from nr_agent import (
    Budget,
    ChatNeuReasoner,
    EpisodeStore,
    ReasonerContext,
    Sampling,
    as_tool,
    build_reasoner,
    create_reasoner,
    load_detector,
    load_engine,
)
from nr_agent.actions import Action, AskHuman, Branch, Continue, Recheck, Stop
from nr_agent.episode import Episode
from nr_agent.errors import BudgetExceededError
from nr_agent.events import FailureEvent
from nr_agent.graphs import HumanAnswer, ReasonerState, ReasoningReport
from nr_agent.graphs.baseline import create_baseline
from nr_agent.graphs.stream import StreamEvent
from nr_agent.policies import AskHumanPolicy, Policies, Policy, PolicyContext, RecheckPolicy, Rule, load_policies
from nr_agent.policies.baselines import Baseline, Deer, Line
from nr_agent.testing import ScriptedDetector, ScriptedEngine


class Patient:
    """A policy is any object with a name and `decide`."""

    name = "patient"

    def decide(self, context: PolicyContext) -> Action:
        if context.event.level == "intra_step" and context.event.kind == "calculation":
            return Recheck(rollback=context.event.score > 0.9)
        if context.interventions.get("branch", 0):
            return AskHuman(question=context.text)
        return Branch(width=2) if context.answer_stated else Continue()


class Mine:
    """So is a baseline."""

    name = "mine"

    def think(self, line: Line) -> None:
        while (thought := line.think(strings=(".",))) is not None:
            if "so" in thought.text:
                line.close("</think>")


policy: Policy = Patient()
shipped: Policy = RecheckPolicy(rollback=True)
baseline: Baseline = Mine()
arm: Baseline = Deer(threshold=0.9)
engine = load_engine("nano")
store = EpisodeStore("episodes.db")
reasoner = create_reasoner(
    engine,
    detector=load_detector("nano", engine),
    policies={"intra_step": [Patient(), Rule(RecheckPolicy(), min_score=0.9)], "instance": AskHumanPolicy()},
    store=store,
    budget=Budget(max_tokens=100),
    sampling=Sampling(temperature=0.2),
    checkpointer=InMemorySaver(),
)
create_reasoner("nano", detector=None, policies=load_policies("math"), exit_behavior="error")
create_reasoner(ScriptedEngine(["a"]), detector=ScriptedDetector(lambda text: {"intra_step": 0.9}))
create_baseline("nano", baseline)

output = reasoner.invoke(
    {"messages": [{"role": "user", "content": "2+2?"}]},
    {"configurable": {"nr_agent": {"seed": 3}}},
    context=ReasonerContext(seed=3),
)
report: ReasoningReport = output["reasoning"]
assert_type(report["answer"], str | None)
assert_type(report["events"], list[dict[str, Any]])
reasoner.invoke(Command(resume=HumanAnswer(action="continue").model_dump()))

tool = as_tool(reasoner)
assert_type(tool, StructuredTool)
chat = ChatNeuReasoner(model="nano", temperature=0.2, max_tokens=100)
assert_type(chat.invoke("2+2?"), AIMessage)
bound = chat.bind_tools([tool])
assert_type(bound.invoke("2+2?"), AIMessage)

parent = StateGraph(MessagesState)
parent.add_node("reason", reasoner)
parent.add_edge(START, "reason")
parent.add_edge("reason", END)
parent.compile()

built = build_reasoner(engine, policies=Policies({"intra_step": policy}, name="mine"))
built.compile(checkpointer=InMemorySaver())


def show(event: StreamEvent) -> str:
    """Events are told apart by their type."""
    if event["type"] == "nr.step":
        return "".join(part["text"] for part in event["parts"])
    if event["type"] == "nr.intervention":
        return event["text"]
    if event["type"] == "nr.stop":
        return event["reason"]
    return event["episode_id"]


def answer(state: ReasonerState) -> str | None:
    """What nodes see."""
    return state["answer"]


def partial(error: BudgetExceededError) -> Any:
    """An error with a report."""
    return error.report["answer"]


def look(episode_id: str) -> Episode:
    """An episode, with its events."""
    episode = store.get(episode_id)
    for event in episode.events:
        assert_type(event.score, float)
    return episode


def read(value: dict[str, Any]) -> Action:
    """Events come back from a report."""
    event = FailureEvent.from_state(value)
    return Stop(reason=event.kind)
