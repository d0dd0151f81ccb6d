"""Whether a detector's channels only tell of failures or take part in them: what a model does without them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nr_agent.answers import states_answer
from nr_agent.detection.labels import is_right, label_trace
from nr_agent.detection.traces import Traced, sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Problem
from nr_agent.evaluation.statistics import paired_bootstrap
from nr_agent.neurons.ablate import matched_random, mean_ablated, site_means
from nr_agent.neurons.channels import Channel


@dataclass(frozen=True)
class AblatedRow:
    """What a model does without some channels.

    Attributes:
        arm: `intact`, `mon`, or `random N`.
        channels: how many were taken out.
        problems: how many were thought through.
        right: share of right answers.
        slips: share of the steps that hold a slip.
        slipping: share of traces with a slip.
        circling: share of the steps that bring nothing new, before an answer is stated.
        finished: share of traces that the model ended itself.
        tokens: mean tokens of thinking.
        slips_change: mean over problems of the share of steps with a slip, against the intact model; problems without
            a step in either are left out.
        interval: its 95% interval, problems drawn with replacement.
    """

    arm: str
    channels: int
    problems: int
    right: float
    slips: float
    slipping: float
    circling: float
    finished: float
    tokens: float
    slips_change: float
    interval: tuple[float, float]


def measure_ablation(
    engine: Any,
    channels: Sequence[Channel],
    problems: Sequence[Problem],
    *,
    sampling: Sampling,
    seed: int = 0,
    draws: int = 3,
    max_tokens: int = 768,
    log: Callable[[str], None] = lambda _: None,
) -> list[AblatedRow]:
    """Let a model think about the same problems intact, without a detector's channels, and without random ones.

    The random ones are as many, of the same kinds, in the same layers. Means are those of the intact model's own
    thinking, so that what is taken out is what the channels tell and not their level.

    Args:
        engine: the model.
        channels: to take out.
        problems: to think about.
        sampling: how tokens are drawn; the same seeds in every arm.
        seed: of the first trace.
        draws: how often random channels are drawn.
        max_tokens: where a trace that does not end is cut.
        log: gets a line an arm.

    Raises:
        ChannelError: the model has no such channel, or not enough others.
    """
    engine.attach(None)

    def think() -> list[Traced]:
        return sample_traces(engine, problems, sampling=sampling, seed=seed, max_tokens=max_tokens, trials=False)

    intact = think()
    with engine.quiet() as model:
        spans = [(t.ids, t.steps[0].start - 1, t.steps[-1].end - 1) for t in intact if t.steps]
        means = site_means(model, spans)
        arms: Mapping[str, Sequence[Channel]] = {
            "mon": list(channels),
            **{f"random {draw}": matched_random(model, channels, seed + draw) for draw in range(draws)},
        }
    rows = [_row("intact", 0, intact, intact)]
    log(str(asdict(rows[0])))
    for name, members in arms.items():
        with contextlib.ExitStack() as ablation:
            with engine.quiet() as model:  # nothing is computed while the hooks go in
                ablation.enter_context(mean_ablated(model, members, means))
            traces = think()
        rows.append(_row(name, len(members), traces, intact))
        log(str(asdict(rows[-1])))
    return rows


def as_markdown(rows: Sequence[AblatedRow]) -> str:
    """The rows as a table."""
    lines = [
        "| arm | channels | right | steps with a slip | change [95%] | traces with a slip | circling | finished | "
        "tokens |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        change = f"{row.slips_change:+.1%} [{row.interval[0]:+.1%}, {row.interval[1]:+.1%}]"
        lines.append(
            f"| {row.arm} | {row.channels} | {row.right:.1%} | {row.slips:.1%} | {change} | {row.slipping:.1%} | "
            f"{row.circling:.1%} | {row.finished:.1%} | {row.tokens:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _row(arm: str, channels: int, traces: Sequence[Traced], intact: Sequence[Traced]) -> AblatedRow:
    labelled = [label_trace(traced) for traced in traces]
    steps = [label for labels in labelled for label in labels if label.intra_step is not None]
    pairs = zip(_shares(intact), _shares(traces), strict=True)
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    before, own = [one for one, _ in known], [other for _, other in known]
    low, high = paired_bootstrap(before, own)
    return AblatedRow(
        arm=arm,
        channels=channels,
        problems=len(traces),
        right=_mean([is_right(traced) for traced in traces]),
        slips=_mean([bool(label.intra_step) for label in steps]),
        slipping=_mean([any(label.intra_step for label in labels) for labels in labelled]),
        circling=_mean([circles for traced in traces for circles in _circling(traced)]),
        finished=_mean([traced.closed for traced in traces]),
        tokens=round(sum(traced.thinking_tokens for traced in traces) / max(1, len(traces)), 1),
        slips_change=round(sum(own) / max(1, len(own)) - sum(before) / max(1, len(before)), 4),
        interval=(round(low, 4), round(high, 4)),
    )


def _shares(traces: Sequence[Traced]) -> list[float | None]:
    """The share of steps with a slip, a trace; None where there is no step."""
    known = [[label for label in label_trace(traced) if label.intra_step is not None] for traced in traces]
    return [_mean([bool(label.intra_step) for label in labels]) if labels else None for labels in known]


def _circling(traced: Traced) -> list[bool]:
    """Whether each step repeats, before an answer is stated: without trial answers labels do not know of one."""
    stated = [states_answer(step.text) for step in traced.steps]
    labels = label_trace(traced)
    return [
        bool(label.inter_step) and not any(stated[:number])
        for number, label in enumerate(labels)
        if label.inter_step is not None
    ]


def _mean(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0
