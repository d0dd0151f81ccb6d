"""The reasoner as a LangGraph graph: think, watch, act, answer."""

from nr_agent.graphs.asking import HumanAnswer
from nr_agent.graphs.budget import Budget
from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.reasoner import build_reasoner, create_reasoner
from nr_agent.graphs.state import ReasonerState, ReasoningReport
from nr_agent.graphs.tool import as_tool

__all__ = [
    "Budget",
    "HumanAnswer",
    "ReasonerContext",
    "ReasonerState",
    "ReasoningReport",
    "as_tool",
    "build_reasoner",
    "create_reasoner",
]
