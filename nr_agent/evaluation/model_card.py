"""The model card of an embedded LRM: what it gets right, and how it fails when nobody watches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from nr_agent.detection.labels import first_final, is_right, label_trace
from nr_agent.detection.traces import Traced, sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.tasks import DEVELOPMENT_SEEDS, draw, held_out
from nr_agent.tokens import CORRECTION_TOKENS

_SECOND_THOUGHTS = ("not what I had",)


@dataclass(frozen=True)
class FamilyRow:
    """A family's figures at one temperature.

    Attributes:
        family: the family.
        temperature: of sampling.
        n: problems.
        right: share of right answers.
        unseen: share of right answers among problems whose text training never sees.
        unseen_n: how many those are.
        tokens: mean tokens of thinking and answer.
        after: share of the thinking that comes after the final answer was there.
        slips: share of steps that hold a slip.
        noticed: share of slips that the next step takes back.
        circling: share of traces with a step that brings nothing new before the answer is there.
        unfinished: share of traces that did not end by themselves.
        triggers: share of traces in which the model wrote a correction token itself.
    """

    family: str
    temperature: float
    n: int
    right: float
    unseen: float
    unseen_n: int
    tokens: float
    after: float
    slips: float
    noticed: float
    circling: float
    unfinished: float
    triggers: float


def measure_families(
    engine: Any,
    families: Sequence[str],
    *,
    n: Mapping[float, int],
    first_seed: int = DEVELOPMENT_SEEDS.start,
    sample: Callable[..., list[Traced]] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> list[FamilyRow]:
    """Measure a model on development problems, without control.

    Args:
        engine: the model.
        families: the families.
        n: problems a family, by the temperature of sampling; the draw of problem `i` has seed `i`.
        first_seed: seed of the first problem.
        sample: samples the traces, as `sample_traces` with the engine does, which is the default.
        log: gets a line a row.
    """
    rows: list[FamilyRow] = []
    sample = sample or partial(sample_traces, engine)
    for temperature, count in n.items():
        for family in families:
            problems = [draw(family, seed) for seed in range(first_seed, first_seed + count)]
            traces = sample(problems, sampling=Sampling(temperature=temperature), seed=first_seed)
            rows.append(_row(engine, family, temperature, traces))
            log(" ".join(f"{key}={_short(value)}" for key, value in asdict(rows[-1]).items()))
    return rows


def as_markdown(rows: Sequence[FamilyRow]) -> str:
    """The rows as a table."""
    lines = [
        "| family | T | n | right | right, text unseen (n) | tokens | thinking after the answer | steps with a slip | "
        "slips noticed | traces that circle | unfinished | writes a trigger |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        noticed = "-" if math.isnan(row.noticed) else f"{row.noticed:.0%}"
        unseen = "-" if math.isnan(row.unseen) else f"{row.unseen:.1%} ({row.unseen_n})"
        lines.append(
            f"| {row.family} | {row.temperature:g} | {row.n} | {row.right:.1%} | {unseen} | {row.tokens:.0f} | "
            f"{row.after:.0%} | {row.slips:.1%} | {noticed} | {row.circling:.1%} | {row.unfinished:.1%} | "
            f"{row.triggers:.2%} |"
        )
    return "\n".join(lines)


def _row(engine: Any, family: str, temperature: float, traces: Sequence[Traced]) -> FamilyRow:
    right = [is_right(traced) for traced in traces]
    unseen = [ok for ok, traced in zip(right, traces, strict=True) if held_out(traced.problem.text)]
    controls = {engine.codec.control(token) for token in CORRECTION_TOKENS}
    steps = slips = noticed = circling = after = thinking = triggers = 0
    for traced in traces:
        labels = label_trace(traced)
        steps += sum(label.intra_step is not None for label in labels)
        for place, label in enumerate(labels):
            if label.intra_step:
                slips += 1
                following = traced.steps[place + 1].text if place + 1 < len(traced.steps) else ""
                noticed += any(phrase in following for phrase in _SECOND_THOUGHTS)
        circling += any(label.inter_step for label in labels)
        triggers += bool(controls & set(traced.ids))
        final = first_final(traced)
        thinking += traced.thinking_tokens
        if final is not None:
            after += traced.steps[-1].end - traced.steps[final].end
    count = len(traces)
    return FamilyRow(
        family=family,
        temperature=temperature,
        n=count,
        right=sum(right) / count,
        unseen=sum(unseen) / len(unseen) if unseen else math.nan,
        unseen_n=len(unseen),
        tokens=sum(traced.thinking_tokens + traced.answer_tokens for traced in traces) / count,
        after=after / max(1, thinking),
        slips=slips / max(1, steps),
        noticed=noticed / slips if slips else math.nan,
        circling=circling / count,
        unfinished=sum(not traced.closed for traced in traces) / count,
        triggers=triggers / count,
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
