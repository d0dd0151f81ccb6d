"""The traces of a fit: sampled block by block and kept after each, so that an interrupted fit goes on from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nr_agent.detection.hashes import digest, tokenizer_hash
from nr_agent.detection.trace_files import append_traces, begun_traces, kept_traces, write_traces
from nr_agent.detection.traces import TRACES_VERSION, Traced
from nr_agent.engine.cores import usable_cores
from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Problem
from nr_agent.errors import ContextLengthError, ProblemError

BLOCK = max(240, 32 * usable_cores())
"""Traces that are sampled before they are written: enough for every process, as starting those takes seconds."""

_WHOLE = "traces.jsonl"
_BEGUN = "traces.begun.jsonl"


def sample_or_resume(
    engine: Any,
    problems: Sequence[Problem],
    folder: Path,
    *,
    sampling: Sampling,
    seed: int,
    max_tokens: int,
    sample: Callable[..., list[Traced]],
    log: Callable[[str], None],
    block: int = BLOCK,
) -> list[Traced]:
    """The traces of these problems: those that a folder keeps, and what is missing of them.

    Trace `i` has seed `seed + i`, whatever block it is in: the result is that of sampling all at once.

    Args:
        engine: the model.
        problems: what it is to think about.
        folder: keeps the traces: `traces.jsonl` once all are there, `traces.begun.jsonl` until then.
        sampling: how tokens are drawn.
        seed: seed of the first trace.
        max_tokens: where a trace that does not end is cut.
        sample: samples traces, as `sample_traces` with the engine does.
        log: gets a line now and then.
        block: traces between two writes.

    Raises:
        ContextLengthError: a problem leaves no room in the model's context; nothing is sampled then.
        ProblemError: a problem that the model's chat template does not take; nothing is sampled then.
    """
    key = traces_key(engine, problems, sampling=sampling, seed=seed, max_tokens=max_tokens)
    whole, begun = folder / _WHOLE, folder / _BEGUN
    if (kept := kept_traces(whole, key)) is not None:
        log("using the traces that are there")
        return kept
    _check_prompts(engine, problems)
    traces = begun_traces(begun, key)
    write_traces(begun, traces, key)  # anew: the last line may be torn, or the traces of other problems
    total = len(problems)
    log(f"going on behind {len(traces)} of {total} traces" if traces else f"sampling {total} traces")
    report = _Progress(len(traces), total, log)
    for start in range(len(traces), total, block):
        report.start = start
        part = problems[start : start + block]
        new = sample(part, sampling=sampling, seed=seed + start, max_tokens=max_tokens, progress=report)
        append_traces(begun, new)
        traces += new
    write_traces(whole, traces, key)
    begun.unlink()
    return traces


def traces_key(engine: Any, problems: Sequence[Problem], *, sampling: Sampling, seed: int, max_tokens: int) -> str:
    """Names everything that traces depend on: the model, how it is asked, the problems, and how they are sampled.

    The template goes in as it is written, not what it makes of the problems: some put the day's date there.
    """
    tokenizer = engine.codec.tokenizer
    asked = [tokenizer_hash(tokenizer), tokenizer.chat_template, sorted(engine.codec.end_ids)]
    posed = [[engine.codec.encode(problem.text), problem.model_dump()] for problem in problems]
    return digest([TRACES_VERSION, engine.fingerprint, asked, posed, asdict(sampling), seed, max_tokens])


def _check_prompts(engine: Any, problems: Sequence[Problem]) -> None:
    """One problem that cannot be posed would end the sampling when its turn comes, maybe hours later."""
    most = engine.capabilities.context
    for number, problem in enumerate(problems, 1):
        named = f"problem {number} of {len(problems)} ({problem.task or 'no task'}: {problem.text[:40]!r})"
        try:
            length = len(engine.codec.render([{"role": "user", "content": problem.text}]))
        except ProblemError as error:
            raise ProblemError(f"{named}: {error.message}", hint=error.hint) from error
        if length >= most:
            raise ContextLengthError(
                f"{named}: its prompt has {length} tokens, {engine.name} takes {most} in all",
                hint="leave it out, shorten it, or choose a model with a longer context",
            )


class _Progress:
    """Tells of every hundred traces, over all blocks."""

    def __init__(self, done: int, total: int, log: Callable[[str], None]) -> None:
        self.start = done
        self.total = total
        self.log = log
        self.shown = done // 100

    def __call__(self, done: int) -> None:
        done += self.start
        if done // 100 > self.shown:
            self.shown = done // 100
            self.log(f"  {done}/{self.total} traces")
