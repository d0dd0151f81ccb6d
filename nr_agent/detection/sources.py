"""Where labels come from, and what each source cannot tell: no label goes without both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, get_args

from nr_agent.detection.labels import label_trace
from nr_agent.detection.traces import Traced
from nr_agent.episode import Record
from nr_agent.events import Level

LabelSource = Literal[
    "equations", "repetition", "trial_answers", "judge", "rollouts", "processbench", "calculator", "reference"
]
SOURCES: tuple[LabelSource, ...] = get_args(LabelSource)

LIMITS: dict[LabelSource, str] = {
    "equations": "sees wrong equations, wrong counts, and operands from nowhere in the families that are shipped; in "
    "another problem a wrong operand of a right equation is not seen",
    "repetition": "a step whose results were all there before the answer was; a new thought in old numbers counts too",
    "trial_answers": "a forced answer can be guessed, and depends on how it is asked for",
    "judge": "a model's opinion: it has its own errors, more of them where it is of the same family",
    "rollouts": "says whether the model can still get there, not whether the step is valid; a lucky end counts",
    "processbench": "the first wrong step only, found by people, in other models' text: what comes after is unknown",
    "calculator": "sees wrong results of marked calculations, and whole solutions that end right; a right result by "
    "wrong reasoning passes",
    "reference": "the first result that no right solution of the problem has; a way of one's own counts from its first "
    "step on, and a right result by wrong reasoning passes",
}
"""What each source cannot tell."""

OWN_SOURCES: Mapping[Level, LabelSource] = MappingProxyType(
    {"intra_step": "equations", "inter_step": "repetition", "instance": "trial_answers"}
)
"""Where `label_trace` has its labels from."""


class Label(Record):
    """What is held to be true of a step, by whom, and how far that goes.

    Attributes:
        step: number of the step in its trace, from 0.
        level: the failure level.
        value: whether the failure is there.
        source: where the label comes from.
        limit: what that source cannot tell.
        share: of rollouts that came out right, where it was found by rollouts.
        note: the source's own words, shortened.
    """

    step: int
    level: Level
    value: bool
    source: LabelSource
    limit: str
    share: float | None = None
    note: str | None = None


def make_label(
    step: int, level: Level, value: bool, source: LabelSource, *, share: float | None = None, note: str | None = None
) -> Label:
    """A label with its source's limit."""
    return Label(step=step, level=level, value=value, source=source, limit=LIMITS[source], share=share, note=note)


def own_labels(traced: Traced) -> list[Label]:
    """The labels that a trace carries without any judge: checkers, repeated results, and trial answers."""
    return [
        make_label(number, level, bool(value), source)
        for number, labels in enumerate(label_trace(traced))
        for level, source in OWN_SOURCES.items()
        if (value := labels.of(level)) is not None
    ]


def first_error_labels(first: int, steps: int, source: LabelSource, *, note: str | None = None) -> list[Label]:
    """Labels from the index of the first wrong step, -1 where none is: of what comes behind it nothing is said."""
    until = steps if first < 0 else first + 1
    return [
        make_label(step, "intra_step", step == first, source, note=note if step == first else None)
        for step in range(until)
    ]


def agreeing(first: Sequence[Label], second: Sequence[Label]) -> list[Label]:
    """The labels of the first source that the second one gives as well: fewer, and better (arXiv 2501.07301)."""
    said = {(label.step, label.level): label.value for label in second}
    return [label for label in first if said.get((label.step, label.level)) == label.value]
