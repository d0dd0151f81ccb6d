"""What a reasoner's graph carries: plain JSON values, of constant size a step.

The text and the tokens of an episode are in its store, never in here. Only `messages` and `reasoning` are seen
from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Annotated, Any

from langchain_core.messages import AnyMessage, MessageLikeRepresentation
from langgraph.graph.message import add_messages
from langgraph.managed import RemainingSteps
from typing_extensions import TypedDict

from nr_agent.episode import StopReason


class ReasoningReport(TypedDict):
    """The public report of an episode.

    `events` and `interventions` are records as in `nr_agent.events` and `nr_agent.episode`; `usage` is
    `nr_agent.episode.Usage`; `steps` counts steps of thinking, discarded ones included.
    """

    answer: str | None
    stop_reason: str
    episode_id: str
    events: list[dict[str, Any]]
    interventions: list[dict[str, Any]]
    usage: dict[str, int]
    steps: int


class Counters(TypedDict):
    """How far an episode is. `last_intervention` is the number of steps thought before it."""

    steps: int
    tokens: int
    seconds: float
    interventions: dict[str, int]
    last_intervention: int | None
    forks: int


class Fork(TypedDict):
    """A fork that is to think one step: what `Send` carries to `explore`.

    `before` is the first step index that does not belong to what the fork has in common with its parent.
    """

    episode_id: str
    branch: str
    sequence: dict[str, Any]
    seed: int
    sampling: dict[str, Any]
    next_index: int
    before: int
    pending: list[int]
    max_new: int


class Candidate(TypedDict):
    """What a fork thought, in numbers."""

    branch: str
    sequence: dict[str, Any]
    seed: int
    boundary: list[int]
    indices: list[int]
    tokens: int
    seconds: float
    logprob: float
    scores: dict[str, float]
    events: list[dict[str, Any]]
    answered: bool
    closed: bool
    ended: bool


def merge_candidates(old: list[Candidate], new: list[Candidate] | None) -> list[Candidate]:
    """Collect the forks' candidates, one a branch; None forgets them."""
    if new is None:
        return []
    return list({candidate["branch"]: candidate for candidate in [*old, *new]}.values())


class ReasonerInput(TypedDict):
    """What goes in: a conversation whose last human message is the problem."""

    messages: Annotated[list[AnyMessage], add_messages]


class Asked(TypedDict):
    """The same as callers may write it; only type checkers see this."""

    messages: Sequence[MessageLikeRepresentation]


class ReasonerOutput(TypedDict):
    """What comes out: the answer as a message, and the report."""

    messages: Annotated[list[AnyMessage], add_messages]
    reasoning: ReasoningReport


class ReasonerState(TypedDict, total=False):
    """All of it, as the reasoner's own nodes see it; nodes of yours in its graph have `messages` and `reasoning`.

    Attributes:
        messages: the conversation.
        reasoning: the report, once there is one.
        episode_id: the episode in the store.
        domain: domain of the problem.
        seed: of the sequence.
        budget: `Budget` as a dict.
        sampling: `Sampling` as a dict.
        stop: strings that end the answer.
        tools: whether there are tools to call.
        lead: text that the answer is made to begin with.
        sequence: `SequenceRef` as a dict.
        branch: the line of thought that is being followed.
        next_index: index of the next step.
        boundaries: `[index, start]` of the last few steps of thinking that are still part of the sequence.
        pending: ids to insert before the next step.
        remedy: the recheck whose outcome the next step will show, as a dict.
        counters: how far the episode is.
        events: failure events of the last step.
        action: what is to be done about them: an action's fields, with `policy` and `event_id`.
        next: the node that does it.
        answered: whether a step has said what the answer is.
        closed: whether the thinking is closed.
        stop_reason: why it was, or why it will be.
        answer: the answer, once it is known.
        forks: forks that are to think a step.
        candidates: what they thought.
        remaining_steps: supersteps that LangGraph still allows.
    """

    messages: Annotated[list[AnyMessage], add_messages]
    reasoning: ReasoningReport
    episode_id: str
    domain: str
    seed: int
    budget: dict[str, Any]
    sampling: dict[str, Any]
    stop: list[str]
    tools: bool
    lead: str
    sequence: dict[str, Any]
    branch: str
    next_index: int
    boundaries: list[list[int]]
    pending: list[int]
    remedy: dict[str, Any] | None
    counters: Counters
    events: list[dict[str, Any]]
    action: dict[str, Any]
    next: str
    answered: bool
    closed: bool
    stop_reason: StopReason | None
    answer: str | None
    forks: list[Fork]
    candidates: Annotated[list[Candidate], merge_candidates]
    remaining_steps: RemainingSteps


class Channels(TypedDict, total=False):
    """The same as LangGraph keeps it, in few pieces: what it notes for each of them is more than most values take.

    Attributes:
        messages: the conversation.
        reasoning: the report, once there is one.
        facts: what an episode begins with (`FACTS`).
        course: everything else that changes from node to node.
        candidates: what the forks thought, who run at the same time.
        remaining_steps: supersteps that LangGraph still allows.
    """

    messages: Annotated[list[AnyMessage], add_messages]
    reasoning: ReasoningReport
    facts: dict[str, Any]
    course: dict[str, Any]
    candidates: Annotated[list[Candidate], merge_candidates]
    remaining_steps: RemainingSteps


FACTS = ("episode_id", "domain", "budget", "sampling", "stop", "tools", "lead")
_APART = ("messages", "reasoning", "candidates")
_USUAL: dict[str, Any] = {
    "pending": [],
    "remedy": None,
    "events": [],
    "answered": False,
    "closed": False,
    "stop_reason": None,
    "answer": None,
    "forks": [],
}
"""What is the same at most times is not kept."""


def unpack(channels: Mapping[str, Any]) -> dict[str, Any]:
    """The state that is in these channels."""
    state = {**deepcopy(_USUAL), **channels.get("facts", {}), **channels.get("course", {}), **channels}
    return {name: value for name, value in state.items() if name not in ("facts", "course")}


def pack(channels: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """An update of the state as an update of the channels."""
    facts = {name: value for name, value in update.items() if name in FACTS}
    course = {name: value for name, value in update.items() if name not in (*FACTS, *_APART)}
    packed = {name: update[name] for name in _APART if name in update}
    if facts:
        packed["facts"] = {**channels.get("facts", {}), **facts}
    if course:
        course = {**channels.get("course", {}), **course}
        packed["course"] = {name: value for name, value in course.items() if value != _USUAL.get(name, ...)}
    return packed
