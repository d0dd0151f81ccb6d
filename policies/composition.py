"""Several policies as one: who decides on what, how often, and in which order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel

from nr_agent.actions import Action, AskHuman, Branch, Continue, Recheck, Stop
from nr_agent.errors import PolicyError
from nr_agent.events import LEVELS, AnyFailureEvent, InstanceFailure, InterStepFailure, IntraStepFailure, Level
from nr_agent.policies.protocol import Policy, PolicyContext
from nr_agent.policies.recheck import RecheckPolicy

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
        min_score: events that score lower are not this rule's.
        max_score: nor are events with this score or a higher one; None for no limit.
        reason: why this choice.
    """

    policy: Policy
    min_score: float = 0.0
    max_score: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        top = 1.0 if self.max_score is None else self.max_score
        if not 0.0 <= self.min_score <= top <= 1.0:
            raise PolicyError(
                f"a rule takes scores from {self.min_score} to {self.max_score}",
                hint="scores go from 0 to 1, and min_score is not above max_score",
            )

    def takes(self, score: float) -> bool:
        """Whether an event with this score is the rule's."""
        return self.min_score <= score and (self.max_score is None or score < self.max_score)


Rules = Rule | Policy | Sequence[Rule | Policy]
"""What may stand at an address: a rule, a bare policy, or several of them, which are tried in order."""


@dataclass(frozen=True)
class Decision:
    """What was decided, by whom, and on which event; `Continue` without a policy where nothing was to decide."""

    action: Action
    policy: str = ""
    event: AnyFailureEvent | None = None


@dataclass(frozen=True)
class Policies:
    """Policies by level (or kind), and the limits that hold for all of them.

    The rules at an address are tried in order: the first that takes the event's score, and whose policy does not
    say `Continue`, decides. The rules of a kind go in place of its level's.

    Of several events in one step, one is acted on. A slip comes first: while there is an `intra_step` event, the
    answer may rest on it, so it is decided on first, and no other event stops the thinking in that step, also
    where no rule takes the slip's score. Without one, an `instance` event comes before an `inter_step` event:
    thinking that should stop needs no new branch. Events of a level without rules are not heard at all.

    `Stop` needs neither an intervention left nor the gap: it cannot be repeated.

    Attributes:
        on: rules by `level` or `level.kind`.
        max_interventions: most interventions an episode.
        refractory: how many steps must be thought after an intervention before the next; 1 leaves the step
            that the intervention brought about alone.
        name: how this composition is called in records.
        attended: whether there is a person to ask. Where there is none, a policy that would ask is passed over.
        alarms: share of good traces that may be disturbed, by level, where it is not to be the detector's own: more
            for a remedy that costs little, less for one that costs much.
    """

    on: Mapping[str, Rules] = field(default_factory=dict)
    max_interventions: int = 3
    refractory: int = 1
    name: str = "custom"
    attended: bool = True
    alarms: Mapping[Level, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for level, share in self.alarms.items():
            if level not in LEVELS or not 0 < share < 1:
                raise PolicyError(
                    f"the policies {self.name!r} ask for alarms {level!r}: {share!r}",
                    hint=f"give a share between 0 and 1 for one of: {', '.join(LEVELS)}",
                )
        for limit in ("max_interventions", "refractory"):
            if getattr(self, limit) < 0:
                raise PolicyError(
                    f"the policies {self.name!r} have {limit}={getattr(self, limit)}", hint="give 0 or more"
                )
        for address, rules in self.on.items():
            if address not in ADDRESSES:
                raise PolicyError(
                    f"the policies {self.name!r} have a rule for {address!r}", hint=f"allowed: {', '.join(ADDRESSES)}"
                )
            for rule in _listed(rules):
                where = f"the rule for {address!r} in the policies {self.name!r}"
                _check(rule.policy, where)
                if self.refractory and escalates(rule.policy):
                    raise PolicyError(
                        f"{where} escalates: with refractory={self.refractory} it never can",
                        hint="give refractory=0, or leave `escalate` out",
                    )

    def decide(self, contexts: Sequence[PolicyContext]) -> Decision:
        """What to do after a step.

        Args:
            contexts: one for each event of the step; at most one event a level.

        Raises:
            PolicyError: a policy returned something that is no action.
        """
        heard = {context.event.level: context for context in contexts if self.rules(context.event)}
        order: tuple[Level, ...] = ("instance", "inter_step")
        if "intra_step" in heard:
            order = ("intra_step", "inter_step", "instance")
        for level in order:
            for rule in self.rules(heard[level].event) if level in heard else ():
                if not rule.takes(heard[level].event.score):
                    continue
                decision = _ask(rule.policy, heard[level])
                if self._carried_out(decision.action, heard[level], slip="intra_step" in heard):
                    return decision
        return Decision(Continue())

    def rules(self, event: AnyFailureEvent) -> tuple[Rule, ...]:
        """The rules for an event: its kind's, else its level's; none where there are none."""
        kind = f"{event.level}.{event.kind}"
        return self.at(kind if kind in self.on else event.level)

    def at(self, address: str) -> tuple[Rule, ...]:
        """The rules at an address, in the order in which they are tried."""
        return _listed(self.on.get(address, ()))

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits: the same for the same decisions, whatever the composition and its reasons say.

        Of a policy that is no pydantic model, its type and its plain attributes count.
        """
        rules = {
            address: [[_plain(rule.policy), rule.min_score, rule.max_score] for rule in self.at(address)]
            for address in self.on
        }
        limits = [self.max_interventions, self.refractory, self.attended, dict(self.alarms)]
        return hashlib.sha256(json.dumps([rules, limits], sort_keys=True, default=str).encode()).hexdigest()[:16]

    def _carried_out(self, action: Action, context: PolicyContext, *, slip: bool) -> bool:
        if isinstance(action, Continue) or (isinstance(action, AskHuman) and not self.attended):
            return False
        if isinstance(action, Stop):
            return context.event.level == "intra_step" or not slip
        spent = sum(number for kind, number in context.interventions.items() if kind != "stop")
        since = context.since_intervention
        return spent < self.max_interventions and (since is None or since > self.refractory)


def escalates(policy: Policy) -> bool:
    """Whether it acts on the very step that its own intervention brought about."""
    return isinstance(policy, RecheckPolicy) and policy.escalate


def _listed(rules: Rules) -> tuple[Rule, ...]:
    several: Any = rules if isinstance(rules, list | tuple) else (rules,)
    return tuple(rule if isinstance(rule, Rule) else Rule(rule) for rule in several)


def _plain(policy: Policy) -> list[Any]:
    """A policy's type and settings."""
    kind = f"{type(policy).__module__}.{type(policy).__qualname__}"
    if isinstance(policy, BaseModel):
        return [kind, policy.model_dump(mode="json")]
    attributes: dict[str, Any] = getattr(policy, "__dict__", {})
    return [kind, {name: value for name, value in attributes.items() if isinstance(value, str | int | float)}]


def _check(policy: object, where: str) -> None:
    if not callable(getattr(policy, "decide", None)) or not isinstance(getattr(policy, "name", None), str):
        raise PolicyError(
            f"{where} is {policy!r}, which is no policy",
            hint="give an object with a `name` and a method `decide(context) -> Action`",
        )


def _ask(policy: Policy, context: PolicyContext) -> Decision:
    try:
        action: object = policy.decide(context)  # a policy of a user may return anything
    except Exception as error:
        error.add_note(f"in the policy {policy.name!r}, on an event in step {context.event.step}")
        raise
    if not isinstance(action, ACTIONS):
        event = context.event
        allowed = ", ".join(kind.__name__ for kind in ACTIONS)
        raise PolicyError(
            f"the policy {policy.name!r} answered the event {event.level}.{event.kind} of step {event.step} "
            f"with {action!r}, which is no action",
            hint=f"return one of: {allowed} (nr_agent.actions)",
        )
    return Decision(action, policy.name, context.event)
