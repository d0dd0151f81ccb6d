"""The events on the custom stream: a stable contract, plain JSON values, one TypedDict each.

Ask for them with `stream_mode="custom", version="v2"` (and `subgraphs=True` where the reasoner is embedded).
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class Part(TypedDict):
    """A piece of a step's text with one provenance."""

    provenance: str
    text: str


class OpenEvent(TypedDict):
    """An episode began."""

    type: Literal["nr.open"]
    episode_id: str
    problem: str
    model: str
    prompt_tokens: int


class StepEvent(TypedDict):
    """A step was thought (`kind` think) or the answer written (`kind` answer)."""

    type: Literal["nr.step"]
    episode_id: str
    index: int
    kind: str
    branch: str
    parts: list[Part]
    tokens: int
    stop: str
    scores: dict[str, float]


class FailureStreamEvent(TypedDict):
    """A detector crossed its threshold; `event` is `FailureEvent.to_state()`."""

    type: Literal["nr.failure"]
    episode_id: str
    event: dict[str, Any]


class InterventionEvent(TypedDict):
    """An action is carried out; `intervention` is the `Intervention` record, `text` what was inserted."""

    type: Literal["nr.intervention"]
    episode_id: str
    intervention: dict[str, Any]
    text: str


class StopEvent(TypedDict):
    """The episode ended; `report` is the public `reasoning` report."""

    type: Literal["nr.stop"]
    episode_id: str
    reason: str
    report: dict[str, Any]


StreamEvent = OpenEvent | StepEvent | FailureStreamEvent | InterventionEvent | StopEvent
"""Anything on the stream, told apart by `type`."""
