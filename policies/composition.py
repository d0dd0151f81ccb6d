"""Several policies as one: who decides on what, how often, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from nr_agent.actions import Action, AskHuman, Branch, Continue, Recheck, Stop
from nr_agent.errors import PolicyError
from nr_agent.events import LEVELS, AnyFailureEvent, InstanceFailure, InterStepFailure, IntraStepFailure, Level
from nr_agent.policies.protocol import Policy, PolicyContext

ACTIONS = (Continue, Recheck, Branch, Stop, AskHuman)
KINDS: dict[Level, tuple[str, ...]] = {
    "intra_step": get_args(IntraStepFailure.model_fields["kind"].annotation),
    "inter_step": get_args(InterStepFailure.model_fields["kind"].annotation),
    "instance": get_args(InstanceFailure.model_fields["kind"].annotation),
}
ADDRESSES: tuple[str, ...] = (*LEVELS, *(f"{level}.{kind}" for level in LEVELS for kind in KINDS[level]))
"""What a rule can be for: a level, or a kind of a level, which goes first."""


@dataclass(frozen=True)
class Rule:
    """Who decides on an event.

    Attributes:
        policy: the policy.
        min_score: events that score lower are let pass.
    """

    policy: Policy
    min_score: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What was decided, by whom, and on which event; `Continue` without a policy where nothing was to decide."""

    action: Action
    policy: str = ""
    event: AnyFailureEvent | None = None


@dataclass(frozen=True)
class Policies:
    """A policy a level (or kind), and the limits that hold for all of them.

    Of several events in one step, one is acted on. A slip comes first: while an `intra_step` event is present,
    the answer may rest on it, so it is decided on first, and no other event stops the thinking in that step.
    Without one, an `instance` event comes before an `inter_step` event: thinking that should stop needs no
    new branch. The first policy that does not say `Continue` wins.

    `Stop` needs neither an intervention left nor the gap: it cannot be repeated.

    Attributes:
        on: a rule by `level` or `level.kind`.
        max_interventions: most interventions an episode.
        refractory: how many steps must be thought after an intervention before the next; 1 leaves the step
            that the intervention brought about alone.
        name: how this composition is called in records.
    """

    on: Mapping[str, Rule | Policy] = field(default_factory=dict)
    max_interventions: int = 3
    refractory: int = 1
    name: str = "custom"

    def __post_init__(self) -> None:
        for address, rule in self.on.items():
            if address not in ADDRESSES:
                raise PolicyError(
                    f"the policies {self.name!r} have a rule for {address!r}", hint=f"allowed: {', '.join(ADDRESSES)}"
                )
            policy = rule.policy if isinstance(rule, Rule) else rule
            if not callable(getattr(policy, "decide", None)) or not isinstance(getattr(policy, "name", None), str):
                raise PolicyError(
                    f"the rule for {address!r} in the policies {self.name!r} is {policy!r}, which is no policy",
                    hint="give an object with a `name` and a method `decide(context) -> Action`",
                )

    def decide(self, contexts: Sequence[PolicyContext]) -> Decision:
        """What to do after a step.

        Args:
            contexts: one for each event of the step; at most one event a level.

        Raises:
            PolicyError: a policy returned something that is no action.
        """
        heard = {
            context.event.level: (context, rule)
            for context in contexts
            if (rule := self.rule(context.event)) is not None and context.event.score >= rule.min_score
        }
        order: tuple[Level, ...] = ("instance", "inter_step")
        if "intra_step" in heard:
            order = ("intra_step", "inter_step", "instance")
        for level in order:
            if level not in heard:
                continue
            context, rule = heard[level]
            decision = _ask(rule.policy, context)
            stops = isinstance(decision.action, Stop)
            held_back = stops and level != "intra_step" and "intra_step" in heard
            if isinstance(decision.action, Continue) or held_back:
                continue
            if stops or self._may_intervene(context):
                return decision
        return Decision(Continue())

    def rule(self, event: AnyFailureEvent) -> Rule | None:
        """The rule for an event: its kind's, else its level's."""
        rule = self.on.get(f"{event.level}.{event.kind}", self.on.get(event.level))
        return rule if rule is None or isinstance(rule, Rule) else Rule(rule)

    def _may_intervene(self, context: PolicyContext) -> bool:
        spent = sum(number for kind, number in context.interventions.items() if kind != "stop")
        since = context.since_intervention
        return spent < self.max_interventions and (since is None or since > self.refractory)


def _ask(policy: Policy, context: PolicyContext) -> Decision:
    action: object = policy.decide(context)  # a policy of a user may return anything
    if not isinstance(action, ACTIONS):
        event = context.event
        allowed = ", ".join(kind.__name__ for kind in ACTIONS)
        raise PolicyError(
            f"the policy {policy.name!r} answered the event {event.level}.{event.kind} of step {event.step} "
            f"with {action!r}, which is no action",
            hint=f"return one of: {allowed} (nr_agent.actions)",
        )
    return Decision(action, policy.name, context.event)
