"""One thread that computes the pending steps of all sequences together, token by token."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError

import torch
from torch import Tensor

from nr_agent.engine import sampler
from nr_agent.engine.forward import Runner
from nr_agent.engine.groups import grouped
from nr_agent.engine.jobs import Job, Part
from nr_agent.engine.protocol import EndReason, ExtendRequest, Segment, Tap
from nr_agent.engine.sequences import Sequences, SequenceState
from nr_agent.errors import EngineError, NRAgentError

PATIENCE = 512
"""Passes that a step without a slot waits while others go on in theirs: a slot taken from them costs as much."""

IDLE = 1.0
"""Seconds without a step after which the engine's thread ends."""

GAP = 0.02
"""Seconds without another step after which those that came together are taken to be all there."""
LONGEST_HOLD = 0.25
"""Seconds that a step waits for others, at most."""

_NO_NUMBERS = "load it with dtype='bfloat16' or 'float32': its weights overflow in float16, or are damaged"


class Scheduler:
    """Admits jobs, runs forward passes over all of them, samples, and hands finished segments back.

    Args:
        runner: computes forward passes.
        sequences: the engine's sequences and their slots.
        decode: ids to text, for stop strings.
        batch: most rows of one pass.
        chunk: most tokens that a row takes in at once.
        context: longest sequence.
    """

    def __init__(
        self,
        runner: Runner,
        sequences: Sequences,
        decode: Callable[[Sequence[int]], str],
        *,
        batch: int,
        chunk: int,
        context: int,
    ) -> None:
        self.runner = runner
        self.sequences = sequences
        self.decode = decode
        self.batch = batch
        self.chunk = chunk
        self.context = context
        self.tap: Tap | None = None
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
        self._wake = threading.Condition()
        self._pass = threading.RLock()  # held during a tick; others take it between two
        self._guests = 0
        self._pace = GAP  # seconds of the last pass
        self._stopped = False
        self._thread: threading.Thread | None = None

    def add(self, request: ExtendRequest, state: SequenceState) -> Future[Segment]:
        """Queue a step; its sequence is marked busy by the caller."""
        with self._wake:
            if self._stopped:
                state.busy = False
                raise EngineError("the engine was shut down", hint="load it again")
            job = Job(request, state, self.sequences.passes)
            if self._thread is None:
                thread = threading.Thread(target=self._loop, name="nr-agent-engine", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is at its end
                    del state.ids[job.start :]
                    state.busy = False
                    raise
                self._thread = thread
            self._waiting.append(job)
            self._wake.notify()
        return job.future

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the thread between two passes. It gives way: a lock alone would be taken again by its next pass."""
        with self._wake:
            self._guests += 1
        try:
            with self._pass:
                yield
        finally:
            with self._wake:
                self._guests -= 1
                self._wake.notify()

    @property
    def idle(self) -> bool:
        """Whether no step is being thought."""
        return not self._active

    def read_with(self, tap: Tap | None) -> None:
        """Read with another tap from now on; to be called while paused."""
        self.tap = tap
        with self._wake, self.sequences.lock:
            # Readings of the new channels must not have gaps: what is read from now on starts at the end.
            for state in self.sequences.states.values():
                state.read = max(state.read, len(state.ids) - 1)
            for job in (*self._active, *self._waiting):
                job.parts.clear()
                job.read = max(job.read, job.start - 1)

    def stop(self) -> None:
        """End the thread; steps that are not finished are cancelled."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        for job in (*self._active, *self._waiting):
            job.future.cancel()
            self._release(job, keep=False)
        self._active.clear()
        self._waiting.clear()

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._stopped and (self._guests or not (self._waiting or self._active)):
                    idle = not (self._waiting or self._active)
                    if not self._wake.wait(IDLE if idle else None) and not (self._waiting or self._active):
                        # A thread keeps all that it works with, the model too; the next step starts another one.
                        self._thread = None
                        return
                if not self._active:
                    self._gather()
                if self._stopped:
                    return
            with self._pass:
                started = time.monotonic()
                try:
                    self._admit()
                    self._tick()
                except BaseException as error:
                    self._fail(error)
                self._pace = time.monotonic() - started

    def _gather(self) -> None:
        """Let steps that come one after the other begin together, while nothing else is computed.

        Graphs whose steps ended in one pass ask for the next ones within milliseconds. Those that begin a pass earlier
        also end one earlier, step after step, and a pass of a few rows costs most of one of all. It is not worth more
        than a pass, and nobody waits where no other sequence is open.
        """
        gap, until = min(GAP, self._pace / 10), time.monotonic() + min(LONGEST_HOLD, self._pace)
        there = 0
        while there < len(self._waiting) < self.batch and time.monotonic() < until and self._others_may_come():
            if self._stopped:
                return
            there = len(self._waiting)
            self._wake.wait(gap)

    def _others_may_come(self) -> bool:
        with self.sequences.lock:
            return any(not state.busy for state in self.sequences.states.values())

    def _admit(self) -> None:
        with self._wake, self.sequences.lock:
            for job in [job for job in self._waiting if job.dropped]:
                self._waiting.remove(job)
                self._release(job, keep=False)
            # Those that have a slot go first: were it taken from them between two steps, they would take another's, and
            # all would be computed again from their tokens at every step.
            for job in sorted(self._waiting, key=lambda job: (not self._overdue(job), job.state.slot is None)):
                if len(self._active) >= self.batch:
                    return
                if self.sequences.place(job.state, urgent=self.idle or self._overdue(job)) is None:
                    return  # every slot is in use: wait until a step ends
                self._waiting.remove(job)
                job.state.running = True
                # The token that chooses the next one is always computed, even if it was before; so is what was
                # computed for a step that was cancelled, and whose readings nobody got.
                unread = len(job.state.ids) if self.tap is None else job.state.read
                job.state.cached = min(job.state.cached, len(job.state.ids) - 1, unread)
                self._active.append(job)

    def _overdue(self, job: Job) -> bool:
        return self.sequences.passes - job.since >= PATIENCE

    def _tick(self) -> None:
        """Drop cancelled rows, take pending tokens in, sample where a row is complete."""
        for job in [job for job in self._active if job.dropped]:
            self._active.remove(job)
            self._release(job, keep=False)
        self._give_way()
        self.sequences.passes += 1
        # Rows that take many tokens in go together, those that decode go together: little is padded.
        intake = [job for job in self._active if len(job.state.ids) - job.state.cached > 1]
        steady = [job for job in self._active if job not in intake]
        for jobs in (intake, steady):
            for group in grouped(jobs, self.runner, self.chunk):
                self._advance(group)

    def _give_way(self) -> None:
        """Let the steps that came last wait again, while the rows need more room than the cache may take."""
        with self._wake, self.sequences.lock:
            while len(self._active) > 1 and not self.sequences.fits(
                len(self._active), max(len(job.state.ids) for job in self._active)
            ):
                job = self._active.pop()
                job.state.running = False
                self._waiting.appendleft(job)

    def _advance(self, jobs: list[Job]) -> None:
        pending = [job.state.ids[job.state.cached :][: self.chunk] for job in jobs]
        starts = [job.state.cached for job in jobs]
        longest = max(map(len, pending))
        self.sequences.stretch(max(starts) + longest)
        beside = self.sequences.adjoin([job.state for job in jobs], max(starts) + 1) if longest == 1 else []
        taken = zip((job.state.slot or 0 for job in jobs), starts, pending, strict=True)
        rows = sorted([*taken, *((slot, length, [0]) for slot, length in beside)])
        place = {slot: number for number, (slot, _, _) in enumerate(rows)}
        wanted = [place[job.state.slot or 0] for job in jobs]
        slots, begins, given = zip(*rows, strict=True)
        logits = self.runner.run(slots, begins, given, wanted)
        self._weigh(logits, jobs, pending)
        self._collect(jobs, starts, pending, wanted, len(rows))
        ready = []
        for row, (job, tokens) in enumerate(zip(jobs, pending, strict=True)):
            job.state.cached += len(tokens)
            if job.failure is not None:
                self._fail(job.failure, [job])
                continue
            if job.state.cached < len(job.state.ids):
                continue
            if job.end is not None:  # it was flushed, or another token is within its margin
                self._finish(job)
            elif not self._writes(job):
                job.end = "forced" if job.request.stop.max_new <= 0 else "context"
                self._finish(job)
            else:
                ready.append((row, job))
        if ready:
            self._sample(logits, ready)

    def _weigh(self, logits: Tensor, jobs: list[Job], pending: list[list[int]]) -> None:
        """End the rows in which a token is within its margin of the likeliest one."""
        tested = [
            (row, job, margin)
            for row, job in enumerate(jobs)
            if job.request.stop.margins and job.state.cached + len(pending[row]) == len(job.state.ids)
            for margin in job.request.stop.margins
            if self._writes(job) and (margin.anywhere or job.sampled == 0)
        ]
        if tested:
            gaps = torch.stack([logits[row].max() - logits[row, margin.token] for row, _, margin in tested])
            for (_, job, margin), gap in zip(tested, gaps.tolist(), strict=True):
                if gap <= margin.nats:
                    job.end = "margin"

    def _sample(self, logits: Tensor, ready: list[tuple[int, Job]]) -> None:
        chosen = logits if len(ready) == logits.shape[0] else logits[[row for row, _ in ready]]
        if chosen.device.type == "mps":
            chosen = chosen.cpu()  # there are no float64 there, and the point that is drawn needs them
        jobs = [job for _, job in ready]
        drawn = sampler.draw(
            chosen,
            [job.request.sampling for job in jobs],
            [(job.state.seed, len(job.state.ids)) for job in jobs],
            [job.state.ids for job in jobs],
        )
        logprobs, entropies = sampler.confidence(chosen, drawn)
        # The one place where the host waits for the device.
        table = torch.stack([drawn.double(), logprobs.double(), entropies.double()]).tolist()
        for job, token, logprob, entropy in zip(jobs, *table, strict=True):
            if math.isnan(logprob):
                place = len(job.state.ids)
                self._fail(EngineError(f"the model computed no numbers at position {place}", hint=_NO_NUMBERS), [job])
                # A mask does not keep them out of what others see behind their own tokens.
                if job.state.slot is not None:
                    self.runner.cache.clear(job.state.slot)
                job.state.cached = 0
                continue
            job.state.ids.append(int(token))
            job.logprobs.append(logprob)
            job.entropies.append(entropy)
            job.end = self._ended(job)
            if job.end is not None and not job.request.flush:
                self._finish(job)

    def _writes(self, job: Job) -> bool:
        """Whether a token will be sampled behind those that a sequence has."""
        return job.end is None and job.request.stop.max_new > 0 and len(job.state.ids) < self.context

    def _ended(self, job: Job) -> EndReason | None:
        stop = job.request.stop
        if job.state.ids[-1] in stop.ids:
            return "stop_id"
        if stop.strings:
            text = self.decode(job.state.ids[-min(job.sampled, job.tail) :])
            if any(string in text for string in stop.strings):
                return "stop_string"
        if job.halted:
            return "monitor"
        if len(job.state.ids) >= self.context:
            return "context"
        return "length" if job.sampled >= stop.max_new else None

    def _collect(
        self, jobs: list[Job], starts: list[int], pending: list[list[int]], wanted: list[int], rows: int
    ) -> None:
        """Copy the readings of this pass out of the tap: rows beyond a sequence's own tokens are padding."""
        if self.tap is None:
            return
        longest = max(len(tokens) for tokens in pending)
        # One copy for all rows: each would cost as much, and wait for the device.
        values = self.tap.take(rows * longest).to("cpu").view(rows, longest, -1)
        for row, (job, start, tokens) in enumerate(zip(jobs, starts, pending, strict=True)):
            # The last token's reading belongs to the token behind it: it comes with that one, or when flushed.
            end = len(job.state.ids) if job.request.flush or self._writes(job) else len(job.state.ids) - 1
            fresh, stale = max(0, job.state.read - start), min(len(tokens), end - start)
            if job.request.readings and fresh < stale:
                part = Part(start + fresh, values, wanted[row], fresh, stale)
                if longest > 1:  # lets go of the padding
                    part = Part(start + fresh, part.own.clone()[None], 0, 0, stale - fresh)
                job.parts.append(part)
                self._show(job)
            job.state.read = max(job.state.read, start + stale)

    def _show(self, job: Job) -> None:
        """Let the monitor look at the newest readings."""
        monitor = job.request.stop.monitor
        if monitor is None or job.failure is not None:
            return
        newest = job.parts[-1]
        try:
            job.halted = monitor(torch.tensor(newest.positions), newest.own) or job.halted
        except Exception as error:  # it is the caller's code: whatever it raises is this row's failure
            job.failure = error

    def _finish(self, job: Job) -> None:
        request, state = job.request, job.state
        ids = state.ids[job.start :]
        segment = Segment(
            ref=request.ref.model_copy(update={"length": len(state.ids)}),
            start=job.start,
            ids=ids,
            provenance=job.provenance,
            logprobs=job.logprobs,
            entropies=job.entropies,
            end=job.end or "forced",
            readings=job.readings(self.tap.layout) if self.tap is not None and request.readings else None,
        )
        self._active.remove(job)
        wanted = job.future.set_running_or_notify_cancel()  # if not, nobody will see these tokens
        self._release(job, keep=wanted, told=True)
        if wanted:
            job.future.set_result(segment)

    def _release(self, job: Job, *, keep: bool, told: bool = False) -> None:
        """Give a sequence back to its callers; without what this step added, if that is not to be kept.

        Whoever waits for several futures is told of a cancelled one only by its executor: here, unless it was told.
        """
        state = job.state
        with self.sequences.lock:
            state.ended = self.sequences.passes
            if not keep:
                del state.ids[job.start :]
                state.cached = min(state.cached, job.start - 1)
                state.read = job.read
            state.busy = state.running = False
            if state.closed:
                job.future.cancel()
                self.sequences.states.pop(job.request.ref.id, None)
        if not told and job.future.cancelled():
            job.future.set_running_or_notify_cancel()

    def _fail(self, error: BaseException, jobs: list[Job] | None = None) -> None:
        for job in list(self._active) if jobs is None else jobs:
            self._active.remove(job)
            self._release(job, keep=False)
            failure = error if isinstance(error, NRAgentError) else EngineError(f"the step failed: {error!r}")
            failure.__cause__ = error if failure is not error else None
            with contextlib.suppress(InvalidStateError):
                job.future.set_exception(failure)
