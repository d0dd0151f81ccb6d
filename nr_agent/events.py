"""Typed failure events: a detector crossed its threshold."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Level = Literal["intra_step", "inter_step", "instance"]
"""Inside a step, between steps, or of the whole attempt."""

LEVELS: tuple[Level, ...] = ("intra_step", "inter_step", "instance")


class ChannelEvidence(BaseModel):
    """A channel behind an event.

    Attributes:
        channel: its address, such as `FFN 7:1031` or `head 9:4`.
        z: how far its reading was from what is usual, in standard deviations.
        position: absolute position of the token where that was.
        writes: tokens that the channel pushed most there, the strongest first; empty where that is not known, as
            for heads: their reading is a norm without a direction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str
    z: float
    position: int
    writes: list[str] = Field(default_factory=list)


class Evidence(BaseModel):
    """Why an event was raised.

    Attributes:
        channels: the channels that moved most, the strongest first.
        features: the features that the detector saw, by name.
        pattern: how the channels moved: `spike`, `period`, `collapse` or `shift`.
        text: the step's text, shortened, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: list[ChannelEvidence] = Field(default_factory=list)
    features: dict[str, float] = Field(default_factory=dict)
    pattern: Literal["spike", "period", "collapse", "shift"] = "shift"
    text: str = ""


class FailureEvent(BaseModel):
    """A detector crossed its threshold. Base of the three levels' events.

    Attributes:
        type: name of the event on the stream.
        schema_version: version of this record's form.
        id: its identifier.
        level: where the failure is.
        kind: what failed.
        step: index of the step in which it was seen.
        position: absolute position of the last token that the detector had seen.
        score: the detector's calibrated score, 0 to 1.
        threshold: the threshold that it crossed.
        detector: the detector that saw it.
        evidence: why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["nr.failure"] = "nr.failure"
    schema_version: Literal[1] = 1
    id: str
    level: Level
    kind: str
    step: int = Field(ge=0)
    position: int = Field(ge=0)
    score: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    detector: str
    evidence: Evidence = Evidence()

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values, as graph state and streams carry them."""
        return self.model_dump(mode="json")

    @classmethod
    def from_state(cls, value: dict[str, Any]) -> AnyFailureEvent:
        """The event of the right level from plain values.

        Raises:
            pydantic.ValidationError: the values are no event.
        """
        return _ADAPTER.validate_python(value)

    def moved(self, *, step: int) -> Self:
        """The same event, placed at another step."""
        return self.model_copy(update={"step": step})


class IntraStepFailure(FailureEvent):
    """A slip inside a step."""

    level: Literal["intra_step"] = "intra_step"
    kind: Literal["calculation", "derivation"] = "calculation"


class InterStepFailure(FailureEvent):
    """Circling: steps that lead nowhere new."""

    level: Literal["inter_step"] = "inter_step"
    kind: Literal["oscillation", "stagnation"] = "stagnation"


class InstanceFailure(FailureEvent):
    """Thinking on after the answer is there."""

    level: Literal["instance"] = "instance"
    kind: Literal["overthinking"] = "overthinking"


AnyFailureEvent = Annotated[IntraStepFailure | InterStepFailure | InstanceFailure, Field(discriminator="level")]
"""Any of the three, told apart by `level`."""

_ADAPTER: TypeAdapter[AnyFailureEvent] = TypeAdapter(AnyFailureEvent)

KINDS: tuple[str, ...] = tuple(
    kind
    for event in (IntraStepFailure, InterStepFailure, InstanceFailure)
    for kind in get_args(event.model_fields["kind"].annotation)
)
"""The kinds of all levels."""
