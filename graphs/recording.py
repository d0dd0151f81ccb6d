"""The node `record`: close the episode and report."""

from __future__ import annotations

import importlib.util
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.config import get_stream_writer
from langgraph.runtime import Runtime

from nr_agent import tasks
from nr_agent.answers import extract_answer, same_answer, states_answer
from nr_agent.episode import Episode, Problem, Usage, measure_usage
from nr_agent.errors import BudgetExceededError
from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.replies import Reply, read_reply
from nr_agent.graphs.state import ReasonerState, ReasoningReport
from nr_agent.graphs.stream import StopEvent

_BROKEN = "\ufffd"
_BUDGETS = ("token_budget", "step_budget", "time_budget", "context")


class Record:
    """Finish the episode in the store, close its sequences, and write the message and the report.

    Reads `episode_id`, `answer`, `stop_reason`, `stop`, `tools`; writes `messages`, `reasoning`.

    Args:
        parts: of the reasoner.
        raises: whether an episode that ran into a budget is raised as an error.
    """

    def __init__(self, parts: Parts, *, raises: bool) -> None:
        self.parts = parts
        self.raises = raises

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """Close the episode.

        Raises:
            BudgetExceededError: a budget ended it, and that was to be an error.
        """
        episode_id, reason = state["episode_id"], state["stop_reason"] or "finished"
        with self.parts.guard(episode_id):
            episode = self.parts.store.get(episode_id)
            thoughts = self._thoughts(episode)
            reply = self._reply(episode, state)
            answer = state["answer"]
            if answer is None and not (reply.calls or reply.broken):
                # Without a closing there was no answer to write: then it is in the last thought.
                answer = extract_answer(thoughts)
            usage = measure_usage(episode.steps)
            self.parts.store.finish(
                episode_id,
                status="completed",
                stop_reason=reason,
                answer=answer,
                correct=judge(episode.problem, answer),
                usage=usage,
                error=None,
            )
            self.parts.clean_up(episode_id)
        report = _report(episode, answer, reason, usage)
        get_stream_writer()(StopEvent(type="nr.stop", episode_id=episode_id, reason=reason, report=dict(report)))
        if self.raises and reason in _BUDGETS:
            raise BudgetExceededError(
                f"episode {episode_id} was ended by its {reason}",
                report=dict(report),
                hint="raise the budget, or take the partial answer from the error's `report`",
            )
        return {"messages": [_message(episode, reply, thoughts, report, usage)], "reasoning": report}

    def _reply(self, episode: Episode, state: ReasonerState) -> Reply:
        def read(kind: str) -> Reply:
            turn = "".join(step.text for step in episode.kept if step.kind == kind)
            return read_reply(turn, self.parts.engine.codec, episode.id, stop=state["stop"], tools=tools)

        # An episode that was laid aside by an older version knows nothing of tools.
        tools = state.get("tools", False)
        reply = read("answer")
        last = episode.kept[-1]
        if tools and last.kind == "think" and self.parts.engine.codec.end_ids.issuperset(last.ids[-1:]):
            # A model that never closes its thinking calls where it ends its turn.
            called = read("think")
            reply = called if called.calls or called.broken else reply
        return reply

    def _thoughts(self, episode: Episode) -> str:
        """What was thought, without the token that ended the turn: models that were never taught to think write it."""
        codec = self.parts.engine.codec
        thinking = [step for step in episode.kept if step.kind == "think"]
        text = "".join(step.text for step in thinking)
        ids = [token for step in thinking for token in step.ids]
        if _BROKEN in text and all(token >= 0 for token in ids):
            text = codec.decode(ids)  # a step that was cut inside a character is none by itself
        last = thinking[-1].ids[-1:] if thinking else []
        return (text.removesuffix(codec.decode(last)) if codec.end_ids.issuperset(last) else text).strip()


def judge(problem: Problem, answer: str | None) -> bool | None:
    """Whether an answer is right: by the task's own scorer where there is one, else as it is written, or as a number.

    Returns:
        None where that cannot be said: no reference, or several right answers and no scorer installed.
    """
    if problem.reference is None:
        return None
    if answer is not None and answer.strip() == problem.reference.strip():
        return True
    if problem.task is None or problem.seed is None or problem.task not in tasks.FAMILIES:
        return answer is not None and same_answer(answer, problem.reference)
    if importlib.util.find_spec("reasoning_gym") is None:
        return None
    return tasks.score(problem, answer)


def _content(reply: Reply, answer: str | None) -> str:
    """The bare answer where the reply says which it is, else all of the reply: a program, or an explanation."""
    plain = not states_answer(reply.text) and extract_answer(reply.text) == answer
    return reply.text if plain or reply.calls or reply.broken else answer or ""


def _report(episode: Episode, answer: str | None, reason: str, usage: Usage) -> ReasoningReport:
    return ReasoningReport(
        answer=answer,
        stop_reason=reason,
        episode_id=episode.id,
        events=[event.to_state() for event in episode.events],
        interventions=[intervention.model_dump(mode="json") for intervention in episode.interventions],
        usage={**usage.model_dump(mode="json"), "output": usage.output, "total": usage.total},
        steps=sum(step.kind == "think" for step in episode.steps),
    )


def _message(episode: Episode, reply: Reply, thoughts: str, report: ReasoningReport, usage: Usage) -> AIMessage:
    return AIMessage(
        id=f"nr-{episode.id}",
        content=_content(reply, report["answer"]),
        tool_calls=reply.calls,
        invalid_tool_calls=reply.broken,
        additional_kwargs={"reasoning_content": thoughts},
        usage_metadata={
            "input_tokens": usage.prompt,
            "output_tokens": usage.output,
            "total_tokens": usage.total,
            "output_token_details": {"reasoning": usage.output - usage.answer},
        },
        response_metadata={
            "model_name": episode.model,
            "model_provider": "nr_agent",
            "finish_reason": "tool_calls" if reply.calls else report["stop_reason"],
            "nr_agent": {"episode_id": episode.id},
        },
    )
