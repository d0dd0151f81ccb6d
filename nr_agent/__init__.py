"""Watch a reasoning model's neurons while it thinks, and correct it in time.

The public names load what they need when they are first used: importing this package loads neither torch nor
LangGraph.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nr_agent.actions import Action
    from nr_agent.engine.protocol import Sampling
    from nr_agent.episode import Episode, Problem
    from nr_agent.errors import NRAgentError
    from nr_agent.events import FailureEvent
    from nr_agent.graphs import Budget, ReasonerContext, as_tool, build_reasoner, create_reasoner
    from nr_agent.graphs.chat import ChatNeuReasoner
    from nr_agent.models.registry import load_detector, load_engine
    from nr_agent.policies import Policy
    from nr_agent.store import EpisodeStore

    __version__: str

_HOMES = {
    "Action": "nr_agent.actions",
    "Budget": "nr_agent.graphs",
    "ChatNeuReasoner": "nr_agent.graphs.chat",
    "Episode": "nr_agent.episode",
    "EpisodeStore": "nr_agent.store",
    "FailureEvent": "nr_agent.events",
    "NRAgentError": "nr_agent.errors",
    "Policy": "nr_agent.policies",
    "Problem": "nr_agent.episode",
    "ReasonerContext": "nr_agent.graphs",
    "Sampling": "nr_agent.engine.protocol",
    "as_tool": "nr_agent.graphs",
    "build_reasoner": "nr_agent.graphs",
    "create_reasoner": "nr_agent.graphs",
    "load_detector": "nr_agent.models.registry",
    "load_engine": "nr_agent.models.registry",
}

__all__ = [
    "Action",
    "Budget",
    "ChatNeuReasoner",
    "Episode",
    "EpisodeStore",
    "FailureEvent",
    "NRAgentError",
    "Policy",
    "Problem",
    "ReasonerContext",
    "Sampling",
    "__version__",
    "as_tool",
    "build_reasoner",
    "create_reasoner",
    "load_detector",
    "load_engine",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("nr-agent")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
