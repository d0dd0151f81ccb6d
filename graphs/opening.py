"""The node `open`: the problem becomes a sequence and an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config, get_stream_writer
from langgraph.runtime import Runtime

from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Episode, Problem, Step
from nr_agent.errors import ContextLengthError
from nr_agent.graphs.budget import Budget
from nr_agent.graphs.checking import read_budget, read_sampling, read_stop
from nr_agent.graphs.context import ReasonerContext, read_context
from nr_agent.graphs.control import Control
from nr_agent.graphs.conversation import find_problem, to_template
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.replies import lead
from nr_agent.graphs.state import ReasonerState
from nr_agent.graphs.stream import OpenEvent
from nr_agent.ids import new_id
from nr_agent.tokens import THINK


class Open:
    """Render the conversation, open its sequence, begin the episode.

    Reads `messages` and the run's context; writes everything that an episode begins with.

    Args:
        parts: of the reasoner.
        budget: unless the run says otherwise.
        seed: unless the run says otherwise.
        settings: what the episode's record keeps of how the reasoner was made.
    """

    def __init__(self, parts: Parts, *, budget: Budget, seed: int, settings: dict[str, Any]) -> None:
        self.parts = parts
        self.budget = budget
        self.seed = seed
        self.settings = settings
        self.control = Control(parts)

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """Open an episode.

        Raises:
            ProblemError: there is no human message with text in it, or a message that is not text.
            ToolsUnsupportedError: the run has tools, and the model's chat template knows none.
            ContextLengthError: the conversation leaves no room to think.
            ConfigurationError: the run's overrides make no sense.
        """
        config = get_config()
        context = read_context(runtime.context, config)
        problem = _problem(state["messages"], context)
        budget = read_budget(context.budget, self.budget)
        seed = self.seed if context.seed is None else context.seed
        sampling = read_sampling(context.sampling, self.parts.sampling)
        stop = read_stop(context.stop)
        begun = lead(context.tools, context.tool_choice)
        turns = to_template(state["messages"], calls=self.parts.engine.codec.takes_tools)
        prompt = self._render(turns, context)
        self._check_length(len(prompt))
        episode_id = new_id()
        settings = {
            **self.settings,
            "budget": budget.model_dump(mode="json"),
            "sampling": plain(sampling),
            # What the model saw besides the problem: a row of training data holds the problem alone.
            "turns": len(turns),
            "tools": len(context.tools),
        }
        self._begin(episode_id, problem, seed, settings, config)
        with self.parts.guard(episode_id):
            sequence = self.parts.hold(episode_id, self.parts.engine.open(prompt, seed=seed))
            self._add_prompt(episode_id, problem, prompt)
        opened: dict[str, Any] = {
            "episode_id": episode_id,
            "domain": problem.domain,
            "seed": seed,
            "budget": budget.model_dump(mode="json"),
            "sampling": plain(sampling),
            "stop": stop,
            "tools": bool(context.tools),
            "lead": begun,
            "sequence": sequence,
            "branch": "main",
            "next_index": 1,
            "boundaries": [],
            "pending": [],
            "remedy": None,
            "counters": {
                "steps": 0,
                "tokens": 0,
                "seconds": 0.0,
                "interventions": {},
                "last_intervention": None,
                "forks": 0,
            },
            "events": [],
            "action": {},
            "next": "think",
            "answered": False,
            "closed": False,
            "stop_reason": None,
            "answer": None,
            "forks": [],
        }
        if begun and self.parts.engine.codec.control(THINK) is None:
            # A model that was never taught to think would make its call, or say something else, as its thinking.
            return opened | {"closed": True, "next": "answer"}
        spent = self.control.spent({**opened, "remaining_steps": state["remaining_steps"]})
        return opened if spent is None else {**opened, "next": "answer", "stop_reason": spent}

    def _check_length(self, length: int) -> None:
        needed = length + len(self.parts.remedies.closing()) + 1
        if self.parts.room(needed) < 0:
            raise ContextLengthError(
                f"the conversation has {length} tokens, {self.parts.engine.name} takes "
                f"{self.parts.engine.capabilities.context} in all, thinking and answer included",
                hint="shorten the problem, or choose a model with a longer context",
            )

    def _render(self, turns: list[dict[str, Any]], context: ReasonerContext) -> list[int]:
        codec = self.parts.engine.codec
        return codec.render(turns, context.tools) if context.tools else codec.render(turns)

    def _begin(
        self, episode_id: str, problem: Problem, seed: int, settings: dict[str, Any], config: RunnableConfig
    ) -> None:
        engine, detector = self.parts.engine, self.parts.detector
        thread = config.get("configurable", {}).get("thread_id")
        self.parts.store.begin(
            Episode(
                id=episode_id,
                problem=problem,
                model=engine.name,
                fingerprint=engine.fingerprint,
                detector=detector.id if detector else None,
                policy=self.parts.policies.name if self.parts.control else None,
                seed=seed,
                settings=settings,
                thread_id=None if thread is None else str(thread),
            ),
            wait=False,  # `settle` sees to it where a checkpoint will speak of it
        )

    def _add_prompt(self, episode_id: str, problem: Problem, prompt: list[int]) -> None:
        engine = self.parts.engine
        text = engine.codec.decode(prompt)
        provenance = [("prompt", len(prompt))]
        step = Step.model_validate(
            {"index": 0, "kind": "prompt", "start": 0, "ids": prompt, "provenance": provenance, "text": text}
        )
        self.parts.store.add(episode_id, step)
        get_stream_writer()(
            OpenEvent(
                type="nr.open",
                episode_id=episode_id,
                problem=problem.text,
                model=engine.name,
                prompt_tokens=len(prompt),
            )
        )


def plain(sampling: Sampling) -> dict[str, Any]:
    """A sampling in JSON values."""
    return {**asdict(sampling), "suppress": list(sampling.suppress), "avoid": list(map(list, sampling.avoid))}


def _problem(messages: Sequence[AnyMessage], context: ReasonerContext) -> Problem:
    return Problem(
        text=find_problem(messages),
        reference=context.reference,
        domain=context.domain or "general",
        task=context.task,
        seed=context.problem_seed,
        metadata=context.metadata,
    )
