"""What may be said about a single run: as LangGraph context, or in the config where a parent has its own context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from langchain_core.runnables import RunnableConfig

from nr_agent.engine.protocol import Sampling
from nr_agent.errors import ConfigurationError
from nr_agent.graphs.budget import Budget


@dataclass(frozen=True)
class ReasonerContext:
    """Facts about the problem, and overrides for one run.

    Pass it as `context=ReasonerContext(...)`. A reasoner that is a node of another graph gets that graph's
    context instead, which is ignored: use `config={"configurable": {"nr_agent": {...}}}` with the same names there.

    Attributes:
        domain: domain of the problem.
        seed: seed of the sampling, instead of the reasoner's.
        reference: the right answer, where it is known.
        task: the benchmark family of the problem.
        problem_seed: the problem's seed in that family.
        metadata: anything that should be kept with the problem.
        budget: instead of the reasoner's; a dict changes what it names.
        sampling: instead of the reasoner's; a dict changes what it names.
        stop: the answer ends before this string, or before the first of these.
        tools: that the model may call, in OpenAI's form; its calls are the `tool_calls` of the message that comes out.
        tool_choice: `any`, or the name of one of the tools: the answer is then made to begin with a call.
    """

    domain: str | None = None
    seed: int | None = None
    reference: str | None = None
    task: str | None = None
    problem_seed: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    budget: Budget | dict[str, Any] | None = None
    sampling: Sampling | dict[str, Any] | None = None
    stop: str | Sequence[str] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | None = None


def read_context(context: object, config: RunnableConfig) -> ReasonerContext:
    """The run's context: ours if it is ours, with what the config says on top.

    Raises:
        ConfigurationError: the config names something that there is not, or a value is of another kind.
    """
    own = context if isinstance(context, ReasonerContext) else ReasonerContext()
    overrides: object = config.get("configurable", {}).get("nr_agent") or {}
    names = [item.name for item in fields(ReasonerContext)]
    if not isinstance(overrides, Mapping):
        raise ConfigurationError(
            f"config['configurable']['nr_agent'] is a {type(overrides).__name__}",
            hint=f"give a dict with some of: {', '.join(names)}",
        )
    for name in overrides:
        if name not in names:
            raise ConfigurationError(
                f"config['configurable']['nr_agent'] has {name!r}, which a run does not take",
                hint=f"allowed: {', '.join(names)}",
            )
    merged = ReasonerContext(**{**{name: getattr(own, name) for name in names}, **overrides})
    for name, (kinds, expected) in _KINDS.items():
        value = getattr(merged, name)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ConfigurationError(f"a run's {name} is {value!r}", hint=f"give {expected}")
    return merged


_TEXT = ((str, type(None)), "a text")
_NUMBER = ((int, type(None)), "a whole number")
_LIST = ((list, tuple), "a list of tools in OpenAI's form")
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "domain": _TEXT,
    "seed": _NUMBER,
    "reference": _TEXT,
    "task": _TEXT,
    "problem_seed": _NUMBER,
    "metadata": ((Mapping,), "a dict"),
    "tools": _LIST,
    "tool_choice": _TEXT,
}
