"""Events as policies see them."""

from __future__ import annotations

from nr_agent.events import FailureEvent
from nr_agent.policies import Policies, PolicyContext

KINDS = {"intra_step": "calculation", "inter_step": "stagnation", "instance": "overthinking"}


def seen(level: str, *, score: float = 0.9, kind: str | None = None, **facts) -> PolicyContext:
    event = {"id": level, "level": level, "kind": kind or KINDS[level], "step": 4, "position": 9, "score": score}
    given = {"step": 4, "steps": 4, **facts}
    return PolicyContext(event=FailureEvent.from_state({**event, "threshold": 0.5, "detector": "d"}), **given)


def kinds(policies: Policies, *contexts: PolicyContext) -> str:
    return policies.decide(contexts).action.type
