"""What a policy is: it decides an action from an event and the episode so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nr_agent.actions import Action
from nr_agent.events import AnyFailureEvent


@dataclass(frozen=True)
class PolicyContext:
    """A failure event, and the episode so far.

    Attributes:
        event: the event to decide on.
        step: index of the step in which it was seen.
        steps: how many steps were thought, discarded ones included.
        since_intervention: steps thought since the last intervention; None before the first.
        last_intervention: the kind of that intervention.
        interventions: how many interventions there were, by kind.
        tokens_used: tokens thought and inserted so far, discarded ones included.
        tokens_left: what remains of the token budget for thinking.
        events: all events of the episode in order, this one included.
        domain: domain of the problem: `math`, `code`, `general`, ...
        answer_stated: whether a step of the thinking has already said what the answer is.
        text: of the step in which the event was seen.
        before: text of the thoughts before it: a step ends at a blank line, and a program may go on behind one.
        metadata: what travels with the problem: the tests of a programming problem, say.
    """

    event: AnyFailureEvent
    step: int
    steps: int = 0
    since_intervention: int | None = None
    last_intervention: str | None = None
    interventions: Mapping[str, int] = field(default_factory=dict)
    tokens_used: int = 0
    tokens_left: int = 0
    events: tuple[AnyFailureEvent, ...] = ()
    domain: str = "general"
    answer_stated: bool = False
    text: str = ""
    before: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Policy(Protocol):
    """Decides what to do about one failure event."""

    @property
    def name(self) -> str:
        """How the policy is called in records and reports."""
        ...

    def decide(self, context: PolicyContext) -> Action:
        """The action to take; `Continue()` to let it pass."""
        ...
