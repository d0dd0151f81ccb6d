"""Lines of thought for baselines: `nr_agent.policies.baselines.Line` over the parts of a reasoner."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from nr_agent.engine.protocol import ExtendRequest, Margin, Monitor, Sampling, Segment, SequenceRef, StopSpec, TextCodec
from nr_agent.episode import Intervention, Step, StopReason, runs
from nr_agent.errors import Cancelled
from nr_agent.graphs.budget import Budget
from nr_agent.graphs.control import Control
from nr_agent.graphs.conversation import to_template
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.thinking import Thinker, read_sampling
from nr_agent.policies.baselines import Line, Thought
from nr_agent.tokens import END_THINK, STEP_END


class Book:
    """What all lines of an episode share: its parts and state, and the numbers of its steps.

    Args:
        parts: of the reasoner.
        state: of the graph, when the thinking begins.
        name: of the baseline, for the record.
    """

    def __init__(self, parts: Parts, state: Mapping[str, Any], name: str) -> None:
        self.parts = parts
        self.state = state
        self.name = name
        self.episode_id = str(state["episode_id"])
        self.budget = Budget.model_validate(state["budget"])
        self.sampling = read_sampling(state, ())
        self.next_index = int(state["next_index"])
        self.messages = to_template(state["messages"])
        self.thinker = Thinker(parts)
        self.control = Control(parts)
        self.lines: list[EpisodeLine] = []
        self.kept: EpisodeLine | None = None
        self.answer: str | None = None
        self.probes = 0
        self.interventions = 0
        self.started = time.monotonic()
        self._lock = threading.Lock()
        self._running: Future[Segment] | None = None
        self._halted = False

    def record(self, step: Step) -> int:
        """Write a step down, under the next number."""
        placed = step.model_copy(update={"index": self.next_index})
        self.parts.record(self.episode_id, placed)
        self.next_index += 1
        return placed.index

    def intervene(self, kind: str, ref: SequenceRef, inserted: Sequence[int]) -> None:
        """Write down what the baseline did."""
        self.interventions += 1
        key = f"{self.episode_id}/{self.name}/{self.interventions}"
        self.parts.intervene(
            self.episode_id,
            Intervention.model_validate(
                {
                    "id": str(uuid.uuid5(uuid.NAMESPACE_OID, key)),
                    "kind": kind,
                    "policy": self.name,
                    "step": max(0, self.next_index - 1),
                    "position": ref.length,
                    "mode": "prompted",
                    "inserted": list(inserted),
                    "outcome": "closed" if kind == "stop" else "unclear",
                }
            ),
        )

    def extend(self, request: ExtendRequest) -> Segment:
        """Let the engine work; leaving it by an exception stops it.

        Raises:
            Cancelled: the episode was halted.
        """
        with self._lock:
            if self._halted:
                raise Cancelled(f"episode {self.episode_id} was halted")
            future = self._running = self.parts.engine.submit(request)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def halt(self) -> None:
        """Stop the engine, from another thread: nothing more is thought in this episode."""
        with self._lock:
            self._halted = True
            if self._running is not None:
                self._running.cancel()


class EpisodeLine:
    """One line of thought of an episode.

    Args:
        book: of the episode.
        ref: its sequence, a rendered conversation.
        branch: its name in the record.
        seed: of its draws.
        indices: numbers of its steps so far.
    """

    def __init__(self, book: Book, ref: SequenceRef, *, branch: str, seed: int, indices: Sequence[int] = ()) -> None:
        self.book = book
        self.ref = ref
        self.branch = branch
        self._seed = seed
        self.indices = list(indices)
        self.start = ref.length
        self.used = 0
        self.written = ""
        self.closed = False
        self.ended = False
        self.pending: list[int] = []
        self.answer: str | None = None
        self.answer_tokens: int | None = None
        self.reason: StopReason | None = None
        book.lines.append(self)

    @property
    def codec(self) -> TextCodec:
        """Of the engine."""
        return self.book.parts.engine.codec

    @property
    def sampling(self) -> Sampling:
        """Of the run."""
        return self.book.sampling

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The conversation."""
        return self.book.messages

    @property
    def seed(self) -> int:
        """Of its draws."""
        return self._seed

    @property
    def room(self) -> int:
        """Tokens of thinking that the budget and the context still allow."""
        budget = self.book.budget
        state = {"sequence": {"length": self.ref.length}, "budget": self.book.state["budget"]}
        return min(budget.max_tokens - self.used, self.book.control.room(state))

    @property
    def position(self) -> int:
        """Its length, in tokens."""
        return self.ref.length

    @property
    def over(self) -> bool:
        """Whether its thinking is closed."""
        return self.closed

    def think(
        self,
        *,
        force: str = "",
        strings: Sequence[str] = (STEP_END,),
        margins: Sequence[Margin] = (),
        monitor: Monitor | None = None,
        max_new: int | None = None,
        sampling: Sampling | None = None,
        flush: bool = False,
    ) -> Thought | None:
        """Go on; None at the end."""
        forced = self.codec.encode(force) if force else []
        if self.closed or self._spent(len(forced)):
            return None
        thinker, ends = self.book.thinker, self.codec.end_ids
        own = thinker.end_think
        longest = min(max_new or self.book.budget.max_step_tokens, self.room - len(forced))
        segment = self.book.extend(
            ExtendRequest(
                ref=self.ref,
                stop=StopSpec(
                    ids=ends if own is None else ends | {own},
                    strings=(*strings, *(() if own is not None else (END_THINK,))),
                    max_new=longest,
                    margins=tuple(margins),
                    monitor=monitor,
                ),
                sampling=sampling or self.sampling,
                force=forced,
                flush=flush,
                readings=monitor is not None or flush,
            )
        )
        return self._take(segment)

    def undo(self, to: int) -> None:
        """Take back what was thought from a position on."""
        book = self.book
        own = {step.index: step for step in book.parts.store.get(book.episode_id).steps if step.index in self.indices}
        for index in list(self.indices):
            step = own[index]
            if step.start >= to:
                book.parts.store.discard(book.episode_id, [index])
                self.indices.remove(index)
            elif step.start + len(step.ids) > to:
                book.parts.store.add(book.episode_id, self._part(step, 0, to - step.start))
                book.record(self._part(step, to - step.start, len(step.ids)).model_copy(update={"discarded": True}))
        self.ref = book.parts.engine.rollback(self.ref, to=to)
        book.parts.hold(book.episode_id, self.ref)
        self.closed = self.ended = False

    def probe(
        self, text: str, *, at: int | None = None, strings: Sequence[str] = (), max_new: int, sampling: Sampling
    ) -> Segment | None:
        """What the model would write behind a text."""
        book, engine = self.book, self.book.parts.engine
        forced = self.codec.encode(text)
        length = self.ref.length if at is None else at
        if book.parts.room(length + len(forced) + max_new) < 0:
            return None
        fork = engine.fork(self.ref, at=length)
        book.parts.hold(book.episode_id, fork)
        own = book.thinker.end_think
        ends = self.codec.end_ids if own is None else self.codec.end_ids | {own}
        stop = StopSpec(ids=ends, strings=tuple(strings), max_new=max_new)
        segment = book.extend(ExtendRequest(fork, stop, sampling, forced, readings=False))
        book.probes += 1
        step = self._step(segment, kind="think", branch=f"probe-{book.probes}")
        book.record(step.model_copy(update={"discarded": True}))
        book.parts.close(book.episode_id, segment.ref)
        return segment

    def close(self, text: str, *, answer: str | None = None, answer_tokens: int | None = None) -> None:
        """Close the thinking."""
        self.pending = self.codec.encode(text)
        self.closed, self.answer, self.answer_tokens = True, answer, answer_tokens
        self.reason = self.reason or "early_stop"
        self.book.intervene("stop", self.ref, self.pending)

    def note(self, text: str) -> None:
        """Put an intervention on record."""
        self.book.intervene("recheck", self.ref, self.codec.encode(text))

    def sample(self, seed: int) -> Line:
        """Another line from the problem on."""
        book = self.book
        ref = book.parts.engine.fork(self.ref, at=self.start, seed=seed)
        book.parts.hold(book.episode_id, ref)
        return EpisodeLine(book, ref, branch=f"sample-{len(book.lines)}", seed=seed)

    def turn(self, messages: Sequence[Mapping[str, Any]]) -> Line:
        """Another line for a conversation that goes on."""
        book, branch = self.book, f"turn-{len(self.book.lines) + 1}"
        prompt = self.codec.render(messages)
        ref = book.parts.engine.open(prompt, seed=self.seed)
        book.parts.hold(book.episode_id, ref)
        step = Step(
            index=0,
            kind="prompt",
            branch=branch,
            start=0,
            ids=prompt,
            provenance=[("prompt", len(prompt))],
            text=self.codec.decode(prompt),
        )
        return EpisodeLine(book, ref, branch=branch, seed=self.seed, indices=[book.record(step)])

    def write_answer(self) -> str:
        """Have the answer written."""
        if self.ended:
            return self._text()
        parts = self.book.parts
        force = self.pending
        if not force and not self.closed:
            force = parts.remedies.closing(boundary=parts.at_boundary(self.ref))
        room = parts.room(self.ref.length + len(force))
        if room < 1:
            return self._text()
        longest = min(self.answer_tokens or self.book.budget.max_answer_tokens, room)
        stop = StopSpec(ids=self.codec.end_ids, max_new=longest)
        segment = self.book.extend(ExtendRequest(self.ref, stop, self.sampling, force, readings=False))
        self._hold(segment, self._step(segment, kind="answer", branch=self.branch))
        self.closed, self.pending = True, []
        written = [token for token, p in zip(segment.ids, segment.logprobs, strict=True) if p is not None]
        return self.codec.decode([token for token in written if token not in self.codec.end_ids])

    def keep(self, line: Line, answer: str | None) -> None:
        """Make another line the episode's."""
        book = self.book
        book.kept = next(one for one in book.lines if one is line)
        book.answer = answer
        others = [index for one in book.lines if one is not book.kept for index in one.indices]
        # Samples share the prompt of the episode; a turn has its own.
        first = [] if book.kept.start == self.start and not book.kept.branch.startswith("turn") else [0]
        book.parts.store.discard(book.episode_id, [*first, *others])

    def give(self) -> None:
        """Take in a closing that holds the answer already."""
        request = ExtendRequest(self.ref, StopSpec(max_new=0), self.sampling, self.pending, readings=False)
        segment = self.book.extend(request)
        self._hold(segment, self._step(segment, kind="answer", branch=self.branch))
        self.pending = []

    def _take(self, segment: Segment) -> Thought:
        book, thinker = self.book, self.book.thinker
        state = {"episode_id": book.episode_id, "next_index": book.next_index, "branch": self.branch}
        taken = thinker.take(state, segment)
        self.indices += range(book.next_index, taken.next_index)
        book.next_index = taken.next_index
        self.ref = segment.ref
        self.used += len(segment.ids)
        self.written += taken.text
        self.closed, self.ended = taken.closed, taken.ended
        if segment.end == "context" and not taken.closed:
            self.reason = "context"
        closing = segment.ref.length - max(1, thinker.closing(segment, taken.text)) if taken.closed else None
        return Thought(segment, taken.text, closing)

    def _spent(self, forced: int) -> bool:
        """Whether nothing more may be thought; notes why."""
        budget = self.book.budget
        if self.reason == "context" or self.room <= forced:
            self.reason = "token_budget" if budget.max_tokens - self.used <= forced else "context"
        elif self.written.count(STEP_END) >= budget.max_steps:
            self.reason = "step_budget"
        elif budget.max_seconds is not None and time.monotonic() - self.book.started >= budget.max_seconds:
            self.reason = "time_budget"
        return self.reason is not None

    def _hold(self, segment: Segment, step: Step) -> None:
        self.indices.append(self.book.record(step))
        self.ref = segment.ref
        self.book.parts.hold(self.book.episode_id, self.ref)

    def _step(self, segment: Segment, *, kind: str, branch: str) -> Step:
        return Step.model_validate(
            {
                "index": 0,
                "kind": kind,
                "branch": branch,
                "start": segment.start,
                "ids": segment.ids,
                "provenance": segment.provenance,
                "logprobs": segment.logprobs,
                "text": self.codec.decode(segment.ids),
                "stop": segment.end,
            }
        )

    def _part(self, step: Step, start: int, end: int) -> Step:
        flat = [kind for kind, length in step.provenance for _ in range(length)]
        return step.model_copy(
            update={
                "start": step.start + start,
                "ids": step.ids[start:end],
                "provenance": runs(flat[start:end]),
                "logprobs": step.logprobs[start:end],
                "text": self.codec.decode(step.ids[start:end]),
            }
        )

    def _text(self) -> str:
        return self.codec.decode(self.book.parts.engine.tokens(self.ref)[self.start :])
