"""What may stand in a pack, as a model: its JSON schema is `packs/schema.json`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from nr_agent.events import Level
from nr_agent.policies.ask_human import AskHumanPolicy
from nr_agent.policies.branch import BranchPolicy
from nr_agent.policies.composition import ADDRESSES, Policies, Rule, escalates
from nr_agent.policies.early_stop import EarlyStopPolicy
from nr_agent.policies.plugins import find_policy
from nr_agent.policies.protocol import Policy
from nr_agent.policies.recheck import RecheckPolicy
from nr_agent.policies.run_tests import RunTestsPolicy

POLICIES: dict[str, type[BaseModel]] = {
    kind.model_fields["name"].default: kind
    for kind in (RecheckPolicy, BranchPolicy, EarlyStopPolicy, AskHumanPolicy, RunTestsPolicy)
}
"""The policies that are shipped, by the name that a pack calls them by."""

ONE, SEVERAL = "<rule>", "<rules>"
"""Tags that pydantic puts into the place of an error; no key of a pack looks like them."""


def _others(value: Any, handler: Any) -> Any:
    """A policy of an installed package, where the name is none of ours."""
    name = value.get("name") if isinstance(value, dict) else None
    if isinstance(name, str) and name not in POLICIES and (kind := find_policy(name)) is not None:
        return kind.model_validate(value)
    return handler(value)


AnyPolicy = Annotated[
    Annotated[
        RecheckPolicy | BranchPolicy | EarlyStopPolicy | AskHumanPolicy | RunTestsPolicy, Field(discriminator="name")
    ],
    WrapValidator(_others),
]


class RuleFile(BaseModel):
    """A rule: which policy, with its own settings, for which scores, and why."""

    model_config = ConfigDict(extra="forbid")

    policy: AnyPolicy = Field(description="Who decides: its name and its settings.")
    min_score: float = Field(default=0.0, ge=0, le=1, description="Events that score lower are not this rule's.")
    max_score: float | None = Field(
        default=None, gt=0, le=1, description="Nor are events with this score or a higher one; no limit by default."
    )
    reason: str = Field(default="", description="Why this choice, in a sentence.")

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> RuleFile:
        if self.max_score is not None and self.max_score <= self.min_score:
            raise PydanticCustomError(
                "empty_band",
                "no score is at least {low} and below {high}",
                {"low": self.min_score, "high": self.max_score},
            )
        return self


def _known(address: str) -> str:
    if address not in ADDRESSES:
        raise PydanticCustomError(
            "unknown_address", "there is no {address} that a rule could be for", {"address": repr(address)}
        )
    return address


def _shape(value: Any) -> str:
    return SEVERAL if isinstance(value, list) else ONE


OneOrSeveral = Annotated[
    Annotated[RuleFile, Tag(ONE)] | Annotated[list[RuleFile], Field(min_length=1), Tag(SEVERAL)],
    Discriminator(_shape),
]


Address = Annotated[str, AfterValidator(_known)]
Share = Annotated[float, Field(gt=0, lt=1)]


class PackFile(BaseModel):
    """A pack: rules by `level` or `level.kind`, and the limits that hold for all of them."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="How the pack is called in records.")
    about: str = Field(default="", description="What it is for, in a line.")
    max_interventions: int = Field(default=3, ge=0, description="Most interventions an episode; stops do not count.")
    refractory: int = Field(
        default=1, ge=0, description="Steps that must be thought after an intervention before the next."
    )
    alarms: dict[Level, Share] = Field(
        default_factory=dict,
        description="Share of good traces that may be disturbed, by level, instead of the detector's own.",
    )
    on: dict[Address, OneOrSeveral] = Field(
        description="A rule, or several that are tried in order, by level or by kind of a level.",
        json_schema_extra={"propertyNames": {"enum": list(ADDRESSES)}},
    )

    @field_validator("on")
    @classmethod
    def _escalation_is_possible(cls, on: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        refractory = info.data.get("refractory", 0)
        several = [rule for rules in on.values() for rule in (rules if isinstance(rules, list) else [rules])]
        if refractory and any(escalates(rule.policy) for rule in several):
            raise PydanticCustomError(
                "never_escalates",
                "a recheck escalates, which it never can with a refractory of {refractory}",
                {"refractory": refractory, "expected": "`escalate` with `refractory: 0`"},
            )
        return on

    def rules(self) -> dict[str, list[RuleFile]]:
        """The rules by address, always as a list."""
        return {address: rules if isinstance(rules, list) else [rules] for address, rules in self.on.items()}

    def policies(self) -> Policies:
        """What the pack says, ready to decide."""
        on: dict[str, list[Rule | Policy]] = {
            address: [Rule(rule.policy, rule.min_score, rule.max_score, rule.reason) for rule in rules]
            for address, rules in self.rules().items()
        }
        return Policies(on, self.max_interventions, self.refractory, self.name, alarms=dict(self.alarms))


def schema() -> dict[str, Any]:
    """The JSON schema of a pack. It knows the policies that are shipped, not those of other packages."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **PackFile.model_json_schema()}
