"""Why a detector scored a step as it did: the stored tokens are read again, and every channel says what it saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nr_agent.detection.collect import read_confidence
from nr_agent.detection.detector import LevelDetector, NeuronDetector, NeuronObserver, align
from nr_agent.detection.evidence import classify_pattern
from nr_agent.detection.features import StepSignal
from nr_agent.engine.protocol import Readings, Segment, SequenceRef
from nr_agent.episode import Episode, Record, Step
from nr_agent.errors import DetectorMismatchError, NotFoundError
from nr_agent.events import AnyFailureEvent, ChannelEvidence, Level
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.writes import head_pushes, strongest
from nr_agent.tokens import END_THINK, STEP_END

_MOVED_BY = 5


class Moment(Record):
    """A token at which a channel stood out.

    Attributes:
        position: absolute position of the token.
        token: the token that the model had just read there.
        wrote: the token that it wrote then.
        z: the channel's reading, in standard deviations from what is usual.
    """

    position: int
    token: str
    wrote: str
    z: float


class ChannelExplanation(Record):
    """A channel behind a score.

    Attributes:
        channel: its address.
        peak: where in the step it stood out most.
        writes: tokens that it pushed most there, the strongest first.
        moved_by: the tokens of the episode so far that moved it most.
    """

    channel: str
    peak: Moment
    writes: list[str]
    moved_by: list[Moment]


class FeatureExplanation(Record):
    """A feature of the step: its value, and how far it is from the usual, in standard deviations."""

    name: str
    value: float
    z: float


class LevelExplanation(Record):
    """What a level's detector made of the step.

    Attributes:
        level: the failure level.
        score: of the step, 0 to 1.
        threshold: of an event; None where the level never speaks.
        families: the feature families that it sees.
        pattern: how its channels moved: `spike`, `period`, `collapse` or `shift`.
        channels: those that went furthest, the first most.
        features: those that stand out most.
    """

    level: Level
    score: float
    threshold: float | None
    families: list[str]
    pattern: str
    channels: list[ChannelExplanation]
    features: list[FeatureExplanation]


class Explanation(Record):
    """Why a step of an episode was scored as it was.

    Attributes:
        episode: its id.
        step: index of the step.
        text: of the step.
        model: that thought it.
        detector: that explains it.
        watched_by: the detector that watched the episode, if one did.
        events: what was raised then.
        levels: what the detector says now.
    """

    schema_version: int = 1
    episode: str
    step: int
    text: str
    model: str
    detector: str
    watched_by: str | None
    events: list[AnyFailureEvent]
    levels: list[LevelExplanation]


def explain_step(engine: Any, detector: NeuronDetector, episode: Episode, index: int) -> Explanation:
    """Read an episode's tokens again and explain a step's scores.

    The readings come from one plain pass over the stored ids: they are those of the time of thinking, up to rounding.

    Raises:
        NotFoundError: the episode has no such step, or no detector looks at it.
        DetectorMismatchError: another model thought the episode.
    """
    step = find_step(episode, index)
    if engine.fingerprint != episode.fingerprint:
        raise DetectorMismatchError(
            f"episode {episode.id} was thought by {episode.model} (fingerprint {episode.fingerprint}), "
            f"{engine.name} is another model ({engine.fingerprint})",
            hint="name the model that thought it: --model NAME or FOLDER",
        )
    line = line_before(episode, step)
    segments = _segments(line, _after(episode, step, engine.codec.decode))
    ids = [token for one in line for token in one.ids]
    ids = ids[: segments[-1][0]] + segments[-1][1]
    with engine.quiet() as model:
        values, _, entropies = read_confidence(model, ids, detector.channels)
        observer = detector.observe(episode.id)
        for start, tokens, logprobs in segments[:-1]:
            observer.look(_segment(start, tokens, logprobs, entropies, values, ids), step=index, text="")
        start, tokens, logprobs = segments[-1]
        segment = _segment(start, tokens, logprobs, entropies, values, ids)
        # Scored by the watch itself, so that what is explained is what it would say.
        scores = observer.fork().look(segment, step=index, text=step.text).scores
        told = [
            _explain_level(model, observer, level, segment, scores, values, ids, engine.codec.decode)
            for level in detector.levels
        ]
    return Explanation(
        episode=episode.id,
        step=index,
        text=step.text,
        model=episode.model,
        detector=detector.id,
        watched_by=episode.detector,
        events=[event for event in episode.events if event.step == index],
        levels=told,
    )


def find_step(episode: Episode, index: int) -> Step:
    """The step with an index, if it is one that detectors look at.

    Raises:
        NotFoundError: there is none, or it is the prompt or the answer.
    """
    watched = [step for step in episode.steps if step.kind == "think"]
    for step in watched:
        if step.index == index:
            return step
    known = _ranges([step.index for step in watched])
    other = next((step.kind for step in episode.steps if step.index == index), None)
    what = f"has no step {index}" if other is None else f"has no thought at step {index}: it is the {other}"
    raise NotFoundError(f"episode {episode.id} {what}", hint=f"its steps of thinking are {known or 'none'}")


def line_before(episode: Episode, step: Step) -> list[Step]:
    """The steps that a step was thought behind, the prompt first and the step itself last.

    What was taken back, and the forks beside it, are left out; a step that was itself taken back has its own line.

    Raises:
        NotFoundError: the store does not hold the whole line.
    """
    line, needed = [step], step.start
    while needed > 0:
        behind = [one for one in episode.steps if one.index < line[0].index and one.start + len(one.ids) == needed]
        if not behind:
            raise NotFoundError(
                f"episode {episode.id} cannot be read again: what stood before position {needed} is missing",
                hint="explain a step of an episode that was stored whole",
            )
        # The same branch first; of forks side by side the one that was kept; then the latest: others were taken back.
        branch = line[0].branch
        best = max(behind, key=lambda one: (one.branch == branch, not one.discarded, one.index))
        line.insert(0, best)
        needed = best.start
    return line


def _after(episode: Episode, step: Step, decode: Callable[[Sequence[int]], str]) -> Step | None:
    """The closing of the thinking, where it was written in one go with the step."""
    for one in episode.steps:
        if one.index == step.index + 1 and one.branch == step.branch and one.kind == "answer":
            own = one.count("model") == len(one.ids) and one.start == step.start + len(step.ids)
            # What was written in one go ended in one way, and within the step.
            together = own and one.stop == step.stop and not step.text.endswith(STEP_END)
            return one if together and decode(one.ids).strip() == END_THINK else None
    return None


def _segments(line: Sequence[Step], closing: Step | None) -> list[tuple[int, list[int], list[float | None]]]:
    """What the watch was shown of a line: start, ids and log-probabilities of each thought."""
    told = [(one.start, list(one.ids), _logprobs(one)) for one in line if one.kind == "think"]
    if closing is not None:
        start, ids, logprobs = told[-1]
        told[-1] = (start, ids + closing.ids, logprobs + _logprobs(closing))
    return told


def _logprobs(step: Step) -> list[float | None]:
    return list(step.logprobs) if step.logprobs else [None] * len(step.ids)


def _segment(
    start: int, tokens: list[int], logprobs: list[float | None], entropies: Tensor, values: Tensor, ids: Sequence[int]
) -> Segment:
    """A stored step as the engine returned it when it was thought."""
    window = torch.arange(start - 1, start + len(tokens) - 1)
    drawn = entropies[start : start + len(tokens)].tolist()
    return Segment(
        ref=SequenceRef(engine="", id="", length=start + len(tokens)),
        start=start,
        ids=tokens,
        provenance=[("model", len(tokens))],
        logprobs=logprobs,
        entropies=[None if logprob is None else entropy for logprob, entropy in zip(logprobs, drawn, strict=True)],
        end="stop_string",
        readings=Readings("", window, torch.tensor(ids)[window], values[window]),
    )


def _explain_level(
    model: Any,
    observer: NeuronObserver,
    level: LevelDetector,
    segment: Segment,
    scores: dict[Level, float],
    values: Tensor,
    ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
) -> LevelExplanation:
    read = align(segment)
    assert read is not None  # noqa: S101 - the whole line was read
    signal = observer.signal(level, *read)
    settings = level.settings
    return LevelExplanation(
        level=settings.level,
        score=scores[settings.level],
        threshold=settings.threshold,
        families=list(settings.families),
        pattern=classify_pattern(_whole(signal)),
        channels=_channels(model, observer, level, signal, segment.start, values, ids, decode),
        features=[
            FeatureExplanation(name=name, value=round(value, 4), z=round(z, 2))
            for name, (value, z) in observer.standing(level, signal).items()
        ],
    )


def _channels(
    model: Any,
    observer: NeuronObserver,
    level: LevelDetector,
    signal: StepSignal,
    start: int,
    values: Tensor,
    ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
) -> list[ChannelExplanation]:
    detector = observer.detector
    named = observer.channels(level, signal, start)
    written = _head_writes(model, named, ids, decode)
    told = []
    for one in named:
        column = detector.channels.index(Channel.parse(one.channel))
        standard = (values[:, column] - detector.mean[column]) / detector.scale[column]
        # The last reading wrote a token that is not part of the line yet.
        top = standard[:-1].abs().topk(min(_MOVED_BY, len(standard) - 1)).indices.tolist()

        def moment(position: int, standard: Tensor = standard) -> Moment:
            return Moment(
                position=position,
                token=decode([ids[position]]),
                wrote=decode([ids[position + 1]]),
                z=round(float(standard[position]), 2),
            )

        told.append(
            ChannelExplanation(
                channel=one.channel,
                peak=moment(one.position - 1),
                writes=written.get(one.channel, one.writes),
                moved_by=[moment(position) for position in top],
            )
        )
    return told


def _head_writes(
    model: Any, named: Sequence[ChannelEvidence], ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> dict[str, list[str]]:
    """What the heads among the channels pushed at their peaks."""
    heads = [(Channel.parse(one.channel), one.position - 1) for one in named if one.channel.startswith("head")]
    pushes = list(head_pushes(model, heads, ids)) if heads else []
    return {str(head): strongest(push, decode) for (head, _), push in zip(heads, pushes, strict=True)}


def _whole(signal: StepSignal) -> Tensor:
    return torch.cat([signal.history, signal.signal])


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in words: `1 to 4, 9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
