"""Which tokens of an episode are trained on: the four mask presets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nr_agent.episode import Episode, Provenance, Step
from nr_agent.tokens import END_THINK

Mask = Literal["respond", "internalize", "clean", "full"]
Treatment = Literal["train", "mask", "remove"]

MASKS: Final[dict[Mask, str]] = {
    "respond": "failed steps and inserted tokens are shown, not trained: the model learns to respond to a remedy",
    "internalize": "failed steps are shown, not trained; inserted tokens are trained: the model learns to call for it",
    "clean": "failed steps and inserted tokens are left out: only the line that led to the answer remains",
    "full": "everything that the episode holds is trained, errors included: for ablations",
}
"""What each preset does, in a line."""

Closes = Callable[[Sequence[int]], int | None]
"""Where in some ids the thinking is closed; None where it is not."""

IGNORED: Final = -100
"""Label of a token that is not trained on."""


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens of one step that are treated alike.

    Attributes:
        step: the step that they belong to.
        start: where they begin in the step.
        ids: the tokens.
        provenance: where they came from.
        failed: whether the step went wrong, as far as the detectors and policies know.
        treatment: what the mask does with them.
    """

    step: Step
    start: int
    ids: list[int]
    provenance: Provenance
    failed: bool
    treatment: Treatment

    @property
    def whole(self) -> bool:
        """Whether it is all of its step."""
        return len(self.ids) == len(self.step.ids)


def spans(episode: Episode, mask: Mask, *, closes: Closes | None = None) -> Iterator[Span]:
    """The final sequence of an episode in spans, in order, those to be removed included.

    Args:
        episode: a whole one.
        mask: the preset.
        closes: finds `</think>`. Where the controller closed the thinking, `clean` keeps that token and what
            follows it: without them the answer would stand inside the thoughts.
    """
    failed = failed_steps(episode)
    for step in episode.kept:
        start = 0
        for provenance, length in step.provenance:
            forced = mask == "clean" and provenance == "inserted" and END_THINK in step.text
            for ids, keeps in _cut(step.ids[start : start + length], closes if forced else None):
                wrong = step.index in failed
                treatment = "train" if keeps else _treatment(mask, step, provenance, failed=wrong)
                yield Span(step, start, ids, provenance, wrong, treatment)
                start += len(ids)


def failed_steps(episode: Episode) -> set[int]:
    """Steps of thinking that were answered with a remedy, and not confirmed to be right afterwards."""
    places = {event.id: event.step for event in episode.events}
    answered = {
        places.get(intervention.event_id or "", intervention.step)
        for intervention in episode.interventions
        if intervention.kind != "ask_human" and intervention.outcome != "confirmed"
    }
    return {step.index for step in episode.steps if step.kind == "think" and step.index in answered}


def _treatment(mask: Mask, step: Step, provenance: Provenance, *, failed: bool) -> Treatment:
    if step.kind == "prompt" or provenance in ("prompt", "template"):
        return "mask"
    if mask == "full":
        return "train"
    if provenance == "inserted":
        return {"respond": "mask", "internalize": "train", "clean": "remove"}[mask]  # type: ignore[return-value]
    if failed:
        return "remove" if mask == "clean" else "mask"
    return "train"


def _cut(ids: list[int], closes: Closes | None) -> Iterator[tuple[list[int], bool]]:
    """The ids before a closing and from there on, and whether they stay whatever the mask says."""
    at = closes(ids) if closes is not None else None
    if at is None:
        yield ids, False
        return
    if at:
        yield ids[:at], False
    yield ids[at:], True
