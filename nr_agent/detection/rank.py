"""The channels of each level: ranked on the training problems' steps in one pass, and as many random ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nr_agent.detection.collect import all_channels, read_attributions, read_traces
from nr_agent.detection.labels import StepLabels
from nr_agent.detection.traces import Traced
from nr_agent.errors import DetectorError
from nr_agent.events import LEVELS, Level
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.mon import Group, MixtureOfNeurons
from nr_agent.neurons.ranking import Ranking, StepDifference, choose, choose_random

Layers = Literal["all", "middle"]


@dataclass(frozen=True)
class Choice:
    """Which channels are chosen, and how.

    Attributes:
        channels: how many, a level.
        kinds: `ffn`, `head` or `any`, a level.
        ranking: how they are ranked.
        layers: which layers they are taken from.
        seed: of the random ones.
    """

    channels: Mapping[Level, int]
    kinds: Mapping[Level, str]
    ranking: Ranking = "mean_difference"
    layers: Layers = "all"
    seed: int = 0


def rank_channels(
    model: Any,
    traces: Sequence[Traced],
    labelled: Sequence[Sequence[StepLabels]],
    splits: Sequence[str],
    choice: Choice,
) -> tuple[MixtureOfNeurons, MixtureOfNeurons, Tensor, Tensor]:
    """Rank and choose, on the steps of the split `train`.

    Returns:
        The MoN, a random one of the same size, and the usual mean and standard deviation of every channel of
        `all_channels`.

    Raises:
        DetectorError: a level may use no channel at all.
    """
    channels = all_channels(model)
    chosen = [number for number, split in enumerate(splits) if split == "train"]
    known = [traces[number] for number in chosen]
    labels = [labelled[number] for number in chosen]
    moments = _Moments(len(channels))
    readings = _by_level(_watched(read_traces(model, known, channels), known, moments), known, labels, len(channels))
    rankings = readings
    if choice.ranking == "logit_attribution":
        rankings = _by_level(read_attributions(model, known, channels), known, labels, len(channels))
    ranked, blind = [], []
    for level in LEVELS:
        allowed = [_allowed(channel, model, choice, level) for channel in channels]
        if not any(allowed):
            raise DetectorError(f"{level}: there is no {choice.kinds[level]} channel in {choice.layers} layers")
        top = choice.channels[level]
        best = choose(rankings[level], channels, allowed, top, readings=readings[level])
        ranked.append(_group(level, best, choice.ranking))
        drawn = choose_random(channels, allowed, top, choice.seed, readings=readings[level])
        blind.append(_group(level, drawn, "random"))
    return MixtureOfNeurons(groups=ranked), MixtureOfNeurons(groups=blind), moments.mean(), moments.scale()


class _Moments:
    """Mean and standard deviation of every channel over the tokens of thinking."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._total = torch.zeros(channels).double()
        self._squares = torch.zeros(channels).double()

    def add(self, values: Tensor) -> None:
        self._count += len(values)
        # The sums over one trace's tokens keep enough in single precision; those over all traces do not.
        self._total += values.sum(0).double()
        self._squares += values.square().sum(0).double()

    def mean(self) -> Tensor:
        return (self._total / max(1, self._count)).float()

    def scale(self) -> Tensor:
        mean = self._total / max(1, self._count)
        return (self._squares / max(1, self._count) - mean.square()).clamp(min=0).sqrt().float().clamp(min=1e-6)


def _watched(
    read: Iterator[tuple[int, Tensor]], traces: Sequence[Traced], moments: _Moments
) -> Iterator[tuple[int, Tensor]]:
    for number, values in read:
        if steps := traces[number].steps:
            moments.add(values[steps[0].start - 1 : steps[-1].end - 1])
        yield number, values


def _by_level(
    read: Iterator[tuple[int, Tensor]],
    traces: Sequence[Traced],
    labelled: Sequence[Sequence[StepLabels]],
    channels: int,
) -> dict[Level, StepDifference]:
    """The difference between failing and sound steps in what is read, by level."""
    rankings: dict[Level, StepDifference] = {level: StepDifference(channels) for level in LEVELS}
    for number, values in read:
        steps, labels = traces[number].steps, labelled[number]
        if not steps:
            continue
        means = torch.stack([values[step.start - 1 : step.end - 1].mean(0) for step in steps])
        lasts = torch.stack([values[step.end - 2] for step in steps])
        for level in LEVELS:
            known = [i for i, label in enumerate(labels) if label.of(level) is not None]
            if known:
                rankings[level].add(
                    means[known], lasts[known], torch.tensor([bool(labels[i].of(level)) for i in known])
                )
    return rankings


def _allowed(channel: Channel, model: Any, choice: Choice, level: Level) -> bool:
    # Decoder layer L / 2 of L, as published.
    middle = int(model.config.get_text_config().num_hidden_layers) // 2
    inside = choice.layers == "all" or channel.layer == middle
    return inside and choice.kinds[level] in (channel.kind, "any")


def _group(level: Level, members: Sequence[tuple[Channel, float]], how: Any) -> Group:
    names, scores = [str(channel) for channel, _ in members], [round(score, 4) for _, score in members]
    return Group(level=level, ranking=how, channels=names, scores=scores)
