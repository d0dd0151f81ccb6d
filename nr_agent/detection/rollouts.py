"""Labels by finishing a trace many times: after which step does the model no longer get there?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nr_agent.answers import extract_answer
from nr_agent.detection.sources import Label, make_label
from nr_agent.detection.traces import Traced
from nr_agent.engine.protocol import Engine, ExtendRequest, Sampling, StopSpec
from nr_agent.errors import LabelError
from nr_agent.tasks import score
from nr_agent.tokens import END_THINK


def roll_out(
    engine: Engine,
    traced: Traced,
    steps: Sequence[int],
    *,
    forks: int = 8,
    sampling: Sampling | None = None,
    seed: int = 0,
    max_tokens: int = 768,
) -> list[float]:
    """The share of rollouts that come out right, from the end of each of some steps.

    Args:
        engine: the model that wrote the trace.
        traced: the trace; its problem must be one that can be scored.
        steps: numbers of the steps; -1 starts from the prompt.
        forks: rollouts a step.
        sampling: how they are drawn.
        seed: of the first fork; the same seeds are used at every step.
        max_tokens: a rollout that does not end by then counts as wrong.

    Raises:
        LabelError: the problem has no scorer, or the trace no such step.
    """
    if traced.problem.task is None or traced.problem.seed is None:
        raise LabelError("the problem has no scorer: whether a rollout is right cannot be said")
    if not traced.steps or not all(-1 <= step < len(traced.steps) for step in steps):
        raise LabelError(f"steps {list(steps)} are not all among the {len(traced.steps)} of the trace")
    drawn = sampling or Sampling()

    async def one(step: int, number: int) -> bool:
        end = traced.steps[0].start if step < 0 else traced.steps[step].end
        ref = engine.restore(traced.ids[:end], seed=seed + number)
        try:
            stop = StopSpec(engine.codec.end_ids, (), max_tokens)
            segment = await asyncio.wrap_future(engine.submit(ExtendRequest(ref, stop, drawn, readings=False)))
        finally:
            engine.close(ref)
        # A last step may hold the end of the thinking itself.
        thought = [*traced.ids[traced.steps[0].start : end], *segment.ids]
        ids = [token for token in thought if token not in engine.codec.end_ids]
        _, closed, said = engine.codec.decode(ids).rpartition(END_THINK)
        return bool(closed) and score(traced.problem, extract_answer(said))

    async def every() -> list[list[bool]]:
        rows = [asyncio.gather(*(one(step, number) for number in range(forks))) for step in steps]
        return [list(row) for row in await asyncio.gather(*rows)]

    return [sum(row) / forks for row in asyncio.run(every())]


def rollout_labels(before: float, shares: Sequence[float], *, right: float = 0.0) -> list[Label]:
    """Labels of steps from the shares of right rollouts behind them.

    Args:
        before: the share from the prompt: where the model does not get there from there, no step is to blame.
        shares: behind each step of a trace, in order.
        right: a share above it counts as still getting there. At 0, as Math-Shepherd's hard labels (arXiv
            2312.08935), one right rollout is enough.

    Returns:
        Sound steps up to the first behind which the model no longer gets there, and that one as wrong; of those
        behind it nothing is said.
    """
    labels: list[Label] = []
    if before <= right:
        return labels
    for step, share in enumerate(shares):
        lost = share <= right
        labels.append(make_label(step, "intra_step", lost, "rollouts", share=share))
        if lost:
            break
    return labels
