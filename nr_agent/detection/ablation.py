"""How few channels keep a detector's quality: the same training on the best 8, 16, ..., and on as many random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean as average
from typing import Any

import torch
from torch import Tensor

from nr_agent.detection.classifier import train_classifier
from nr_agent.detection.collect import all_channels, read_traces
from nr_agent.detection.labels import StepLabels
from nr_agent.detection.metrics import auroc, average_precision
from nr_agent.detection.rank import Choice, rank_channels
from nr_agent.detection.traces import Traced
from nr_agent.events import LEVELS, Level
from nr_agent.neurons.channels import Channel

COUNTS = (8, 16, 32, 64, 128, 512)


@dataclass(frozen=True)
class AblationRow:
    """Quality with so many channels, on the test problems.

    Attributes:
        level: the failure level.
        channels: how many are read.
        ranked: AUROC with the best ones.
        ranked_precision: average precision with them.
        random: mean AUROC with as many random ones.
        random_precision: mean average precision with those.
    """

    level: Level
    channels: int
    ranked: float
    ranked_precision: float
    random: float
    random_precision: float


def ablate_channels(
    model: Any,
    traces: Sequence[Traced],
    labelled: Sequence[Sequence[StepLabels]],
    splits: Sequence[str],
    choice: Choice,
    *,
    counts: Sequence[int] = COUNTS,
    draws: int = 2,
    log: Callable[[str], None] = lambda _: None,
) -> list[AblationRow]:
    """Measure a detector of each size that sees nothing but its channels' statistics over the step.

    The ranking is made once, on the training problems; the best 8 are among the best 16. Counts above what a level
    has are left out: a small model has few heads.

    Args:
        model: the model.
        traces: its traces.
        labelled: their labels.
        splits: the split of each.
        choice: kinds, ranking and layers; its numbers of channels are not used.
        counts: how many channels.
        draws: random choices that are averaged.
        log: told of what was measured.
    """
    widest = dict.fromkeys(LEVELS, max(counts))
    chosen: dict[tuple[Level, str], list[Channel]] = {}
    for draw in range(draws):
        wanted = replace(choice, channels=widest, seed=choice.seed + draw)
        ranked, blind, mean, scale = rank_channels(model, traces, labelled, splits, wanted)
        for name, mon in (("ranked", ranked), (f"random {draw}", blind)):
            for group in mon.groups:
                chosen[group.level, name] = [Channel.parse(address) for address in group.channels]
    union = sorted({channel for members in chosen.values() for channel in members})
    log(f"reading {len(union)} channels")
    steps = _read(model, traces, labelled, splits, union, mean, scale)
    column = {channel: number for number, channel in enumerate(union)}
    rows = []
    for level in LEVELS:
        for count in counts:
            if count > len(chosen[level, "ranked"]):
                continue
            found = {
                name: _quality(steps, level, [column[channel] for channel in members[:count]])
                for (owner, name), members in chosen.items()
                if owner == level
            }
            blind_rows = [pair for name, pair in found.items() if name != "ranked"]
            row = AblationRow(
                level,
                count,
                *(round(value, 4) for value in found["ranked"]),
                *(round(average(values), 4) for values in zip(*blind_rows, strict=True)),
            )
            rows.append(row)
            log(str(asdict(row)))
    return rows


def as_markdown(rows: Sequence[AblationRow]) -> str:
    """The rows as a table."""
    lines = [
        "| level | channels | ranked: AUROC | AP | random: AUROC | AP |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row.level} | {row.channels} | {row.ranked:.3f} | {row.ranked_precision:.3f} | {row.random:.3f} | "
            f"{row.random_precision:.3f} |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Steps:
    """Statistics of all channels over all steps, in half precision, and what is known of the steps.

    Attributes:
        statistics: `[steps, 5, channels]`: mean, max, min, std, last; standardised.
        labels: `[steps]` a level, NaN where there is none.
        splits: `[steps]`.
    """

    statistics: Tensor
    labels: dict[Level, Tensor]
    splits: list[str]


def _read(
    model: Any,
    traces: Sequence[Traced],
    labelled: Sequence[Sequence[StepLabels]],
    splits: Sequence[str],
    channels: Sequence[Channel],
    mean: Tensor,
    scale: Tensor,
) -> _Steps:
    index = {channel: number for number, channel in enumerate(all_channels(model))}
    columns = torch.tensor([index[channel] for channel in channels])
    statistics: list[Tensor] = []
    labels: dict[Level, list[float]] = {level: [] for level in LEVELS}
    owners: list[str] = []
    for number, values in read_traces(model, traces, channels):
        standard = (values - mean[columns]) / scale[columns]
        for step, label in zip(traces[number].steps, labelled[number], strict=True):
            read = standard[step.start - 1 : step.end - 1]
            summary = [read.mean(0), read.amax(0), read.amin(0), read.std(0, correction=0), read[-1]]
            statistics.append(torch.stack(summary).half())
            owners.append(splits[number])
            for level in LEVELS:
                truth = label.of(level)
                labels[level].append(float("nan") if truth is None else float(truth))
    known = {level: torch.tensor(values) for level, values in labels.items()}
    return _Steps(torch.stack(statistics), known, owners)


def _quality(steps: _Steps, level: Level, columns: Sequence[int]) -> tuple[float, float]:
    """AUROC and average precision on the test steps."""
    labels = steps.labels[level]

    def part(split: str) -> tuple[Tensor, Tensor]:
        rows = [i for i, name in enumerate(steps.splits) if name == split and not labels[i].isnan()]
        return steps.statistics[rows][:, :, list(columns)].flatten(1).float(), labels[rows]

    train, held, test = part("train"), part("held"), part("test")
    scores = train_classifier(*train, held).score(test[0])
    return auroc(scores, test[1]), average_precision(scores, test[1])
