"""A model's own traces, sampled for labelling: steps, confidences, trial answers at every boundary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nr_agent.answers import extract_answer
from nr_agent.engine.protocol import Engine, ExtendRequest, Sampling, Segment, SequenceRef, StopSpec
from nr_agent.episode import Problem
from nr_agent.tokens import ANSWER_LEAD, CLOSING_SENTENCE, END_THINK, STEP_END

TRACES_VERSION = 2
"""Another one where a trace holds something else than before: traces that are kept are sampled anew then."""

_TRIAL_TOKENS = 48


@dataclass
class TracedStep:
    """A step of a sampled trace.

    Attributes:
        start: position of its first token.
        end: position behind its last token.
        text: its text.
        logprobs: of its tokens.
        entropies: of the distributions they were drawn from.
        trial: what the model answers when it is asked right after this step.
    """

    start: int
    end: int
    text: str
    logprobs: list[float]
    entropies: list[float]
    trial: str | None = None


@dataclass
class Traced:
    """A sampled trace: one problem, thought through without control.

    Attributes:
        problem: the problem.
        seed: seed of the draws.
        ids: all tokens, the prompt's and the answer's among them.
        steps: the steps of the thinking.
        answer: the extracted answer; the last trial's where the trace was cut.
        closed: whether the model ended its thinking, or its turn, itself. Otherwise the trace was cut.
        answer_tokens: tokens of the answer.
    """

    problem: Problem
    seed: int
    ids: list[int]
    steps: list[TracedStep] = field(default_factory=list)
    answer: str | None = None
    closed: bool = False
    answer_tokens: int = 0

    @property
    def thinking_tokens(self) -> int:
        """Tokens of the thinking."""
        return sum(step.end - step.start for step in self.steps)


def sample_traces(
    engine: Engine,
    problems: Sequence[Problem],
    *,
    sampling: Sampling,
    seed: int = 0,
    max_tokens: int = 768,
    trials: bool = True,
    at_once: int = 32,
    seeds: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Traced]:
    """Let a model think about problems, many at once, and ask it for its answer after every step.

    Args:
        engine: the model.
        problems: the problems; trace `i` is drawn with seed `seed + i`.
        sampling: how tokens are drawn.
        seed: seed of the first trace.
        max_tokens: where a trace that does not end is cut.
        trials: whether to take trial answers. They are taken in forks: the trace is untouched.
        at_once: traces that are thought at the same time.
        seeds: a seed a trace, instead.
        progress: called with the number of finished traces.

    Returns:
        A trace a problem, in order.
    """
    sampler = _Sampler(engine, sampling, max_tokens, trials)
    drawn = list(seeds) if seeds is not None else [seed + number for number in range(len(problems))]

    async def all_traces() -> list[Traced]:
        gate, done = asyncio.Semaphore(at_once), 0

        async def one(number: int, problem: Problem) -> Traced:
            nonlocal done
            async with gate:
                traced = await sampler.trace(problem, drawn[number])
            done += 1
            if progress is not None:
                progress(done)
            return traced

        return await asyncio.gather(*(one(number, problem) for number, problem in enumerate(problems)))

    return asyncio.run(all_traces())


class _Sampler:
    def __init__(self, engine: Engine, sampling: Sampling, max_tokens: int, trials: bool) -> None:
        self.engine = engine
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.trials = trials
        end = engine.codec.control(END_THINK)
        self.end_thinking: frozenset[int] = frozenset() if end is None else frozenset({end})
        # As a stop speaks: what is asked for is what the model would answer if it were stopped here.
        self.probe = engine.codec.encode(f"{CLOSING_SENTENCE}{STEP_END}{END_THINK}{STEP_END}{ANSWER_LEAD}")

    async def trace(self, problem: Problem, seed: int) -> Traced:
        engine = self.engine
        ref = engine.open(engine.codec.render([{"role": "user", "content": problem.text}]), seed=seed)
        traced = Traced(problem, seed, [])
        spent, over = 0, False
        while spent < self.max_tokens and not traced.closed:
            stop = StopSpec(self.end_thinking | engine.codec.end_ids, (STEP_END,), self.max_tokens - spent)
            segment = await self._extend(ref, stop, self.sampling)
            ref = segment.ref
            spent += len(segment.ids)
            traced.closed = segment.end == "stop_id"
            if segment.end == "context":
                break
            over = segment.ids[-1] in engine.codec.end_ids
            if over:
                self._end(traced, segment)
            elif not traced.closed:
                traced.steps.append(await self._step(segment))
            elif len(segment.ids) > 1:  # the last step ends with the thinking, without a blank line
                traced.steps.append(self._plain(segment, segment.ids[:-1]))
        if traced.closed and not over:
            thought = ref.length
            stop = StopSpec(engine.codec.end_ids, (), 64)
            segment = await self._extend(ref, stop, self.sampling)
            traced.answer_tokens = len(segment.ids)
            ids = [token for token in segment.ids if token not in engine.codec.end_ids]
            traced.answer = extract_answer(engine.codec.decode(ids))
            if self.trials and traced.steps and traced.steps[-1].end == thought:
                traced.steps[-1].trial = traced.answer
        elif traced.steps and not over:
            traced.answer = traced.steps[-1].trial
        traced.ids = engine.tokens(ref)
        engine.close(ref)
        return traced

    def _end(self, traced: Traced, segment: Segment) -> None:
        """The turn is over, as with models that were never taught to think: the answer is in what was thought."""
        if len(segment.ids) > 1:
            traced.steps.append(self._plain(segment, segment.ids[:-1]))
        traced.answer = extract_answer("".join(step.text for step in traced.steps))
        if traced.steps and self.trials:
            traced.steps[-1].trial = traced.answer

    async def _step(self, segment: Segment) -> TracedStep:
        step = self._plain(segment, segment.ids)
        step.trial = await self._trial(segment.ref) if self.trials else None
        return step

    def _plain(self, segment: Segment, written: Sequence[int]) -> TracedStep:
        return TracedStep(
            start=segment.start,
            end=segment.start + len(segment.ids),
            text=self.engine.codec.decode(written),
            logprobs=[value or 0.0 for value in segment.logprobs],
            entropies=[value or 0.0 for value in segment.entropies],
        )

    async def _trial(self, ref: SequenceRef) -> str | None:
        """What the model answers now, greedily, in a fork; None where its context is too full to be asked."""
        if ref.length + len(self.probe) >= self.engine.capabilities.context:
            return None
        fork, left, text = self.engine.fork(ref), _TRIAL_TOKENS, ""
        force: Sequence[int] = self.probe
        try:
            while left > 0:
                stop = StopSpec(self.engine.codec.end_ids, ("}",), left)
                segment = await self._extend(fork, stop, Sampling(temperature=0), force)
                fork, left, force = segment.ref, left - len(segment.ids) + len(force), ()
                text += self.engine.codec.decode(segment.ids)
                if segment.end != "stop_string" or text.count("{") <= text.count("}"):  # \boxed{\frac{1}{2}}
                    break
        finally:
            self.engine.close(fork)
        return extract_answer(text)

    async def _extend(self, ref: SequenceRef, stop: StopSpec, sampling: Sampling, force: Sequence[int] = ()) -> Segment:
        request = ExtendRequest(ref, stop, sampling, force, readings=False)
        return await asyncio.wrap_future(self.engine.submit(request))
