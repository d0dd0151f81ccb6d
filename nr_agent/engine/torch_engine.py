"""The engine over PyTorch and transformers: our own decode loop, one thread, many sequences."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from nr_agent.engine.forward import Runner
from nr_agent.engine.linears import unblock
from nr_agent.engine.protocol import (
    Capabilities,
    ExtendRequest,
    Sampling,
    Segment,
    SequenceRef,
    StopSpec,
    Tap,
    TapLayout,
    TapPlan,
    TextCodec,
)
from nr_agent.engine.scheduler import Scheduler
from nr_agent.engine.sequences import Sequences, SequenceState
from nr_agent.engine.text import TokenizerCodec
from nr_agent.engine.weights import ranks_of
from nr_agent.errors import Cancelled, ConfigurationError, ContextLengthError, EngineError, UnknownSequenceError
from nr_agent.ids import new_id


@dataclass
class Limits:
    """How much the engine may hold.

    Attributes:
        slots: sequences whose cache is kept; the one unused longest loses its own when another needs the room.
        batch: most rows of one forward pass.
        chunk: most tokens a row takes in at once.
        memory: most bytes of the cache, on top of `slots`; None for no bound. Where rows need more, those that
            came last wait, and are computed again from their tokens. A sequence that alone would need more is
            refused as too long.
    """

    slots: int = 64
    batch: int = 64
    chunk: int = 512
    memory: int | None = None

    def __post_init__(self) -> None:
        for name in ("slots", "batch", "chunk"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"Limits({name}={getattr(self, name)}) leaves room for no step", hint=f"take {name}=1 or more"
                )


class TorchEngine:
    """Extends sequences step by step on a local model. All methods may be called from any thread.

    Pending steps of all callers are computed together, token by token: a row leaves at its stop, a new one
    joins at the next token. The KV cache is kept from step to step; a sequence that lost its slot is computed
    again from its tokens, with the same result.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        name: how the model is called in reports.
        fingerprint: identifies the weights (see `nr_agent.models.fingerprint`).
        context: longest sequence; the model's own limit by default.
        limits: how much the engine may hold.
        folder: where the model came from, and where its own detector is looked for.

    Raises:
        ModelError: the architecture cannot be run.
        ConfigurationError: limits that it cannot be run within.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str,
        context: int | None = None,
        limits: Limits | None = None,
        folder: Path | None = None,
    ) -> None:
        limits = limits or Limits()
        if limits.batch > 1 and (ranks := ranks_of(model)) > 1:
            raise ConfigurationError(
                f"{name} is spread over {ranks} processes, and each of them would make its own batches",
                hint="take Limits(batch=1), and ask for the same steps in the same order in all processes",
            )
        self.name = name
        self.fingerprint = fingerprint
        self.folder = folder
        self.model = model.eval()
        self.runner = Runner(self.model, memory=limits.memory)
        bounds = [self.runner.positions, *(bound for bound in (context, self.runner.cache.room) if bound is not None)]
        self.capabilities = Capabilities(
            taps="channels", fork="copy", rollback="exact", batching=True, context=min(bounds)
        )
        self.codec: TextCodec = TokenizerCodec(tokenizer, _end_ids(model, tokenizer))
        self._sequences = Sequences(limits.slots, self.runner.cache)
        self._tap: Tap | None = None
        self._scheduler = Scheduler(
            self.runner,
            self._sequences,
            self.codec.decode,
            batch=limits.batch,
            chunk=limits.chunk,
            context=self.capabilities.context,
        )

    def attach(self, plan: TapPlan | None, *, replace: bool = True) -> TapLayout:
        """Choose the channels to read from now on; None reads nothing."""
        with self._scheduler.paused():
            # A plan that fails leaves the old tap in place.
            tap = plan.install(self.model) if plan is not None else None
            wanted, read = (one.layout if one else TapLayout() for one in (tap, self._tap))
            if read.channels and not replace:
                if tap is not None:
                    tap.remove()
                if wanted not in (read, TapLayout()):
                    raise ConfigurationError(
                        f"{len(read.channels)} channels of {self.name} are read already, and they are others",
                        hint="share one detector, or load a second engine; engine.attach(None) ends the reading",
                    )
                return read
            if self._tap is not None:
                self._tap.remove()
            self._tap = tap
            self._scheduler.read_with(tap)
        return wanted

    def open(self, prompt: Sequence[int], *, seed: int = 0) -> SequenceRef:
        """Begin a sequence with a prompt; it is computed with the first step."""
        if not prompt:
            raise EngineError("a sequence needs at least one token")
        if len(prompt) >= self.capabilities.context:
            raise ContextLengthError(
                f"the prompt has {len(prompt)} tokens, {self.name} takes {self.capabilities.context} in all",
                hint="shorten the problem, or choose a model with a longer context",
            )
        self._check_ids(prompt)
        ref = SequenceRef(engine=self.fingerprint, id=new_id(), length=len(prompt))
        with self._sequences.lock:
            self._sequences.states[ref.id] = SequenceState(list(prompt), seed)
        return ref

    def restore(self, ids: Sequence[int], *, seed: int = 0) -> SequenceRef:
        """Open a sequence that is known by its tokens; readings start behind what it already holds."""
        ref = self.open(ids, seed=seed)
        self._state(ref).read = len(ids) - 1
        return ref

    def submit(self, request: ExtendRequest) -> Future[Segment]:
        """Extend a sequence in the background; cancelling the future stops it within a few tokens."""
        stop = request.stop
        drawn = request.sampling
        self._check_ids([*request.force, *drawn.suppress, *chain(*drawn.avoid), *(one.token for one in stop.margins)])
        if stop.monitor is not None and (self._tap is None or not request.readings):
            raise EngineError("a monitor watches readings, and none are taken", hint="attach channels first")
        with self._sequences.lock:
            state = self._state(request.ref)
            if state.busy:
                raise EngineError("this sequence is already being extended", hint="fork it to think two ways at once")
            if len(state.ids) != request.ref.length:
                raise EngineError(
                    f"the handle says {request.ref.length} tokens, the sequence has {len(state.ids)}",
                    hint="use the handle that the last call returned, or roll back first",
                )
            if len(state.ids) + len(request.force) > self.capabilities.context:
                raise ContextLengthError(
                    f"{len(state.ids)} tokens and {len(request.force)} forced ones exceed the context of "
                    f"{self.capabilities.context}",
                    hint="close the thinking earlier: lower the token budget",
                )
            state.busy = True
        return self._scheduler.add(request, state)

    def extend(
        self,
        ref: SequenceRef,
        *,
        stop: StopSpec,
        sampling: Sampling = Sampling(),  # noqa: B008 - immutable
        force: Sequence[int] = (),
        flush: bool = False,
        readings: bool = True,
    ) -> Segment:
        """Take the forced ids in, then sample until a stop: one step."""
        future = self.submit(ExtendRequest(ref, stop, sampling, force, flush, readings))
        try:
            return future.result()
        except CancelledError as error:
            raise Cancelled("the step was cancelled: its engine was shut down, or its sequence closed") from error
        except BaseException:
            future.cancel()
            raise

    async def aextend(self, request: ExtendRequest) -> Segment:
        """`extend` for coroutines; cancelling the task stops the step."""
        return await asyncio.wrap_future(self.submit(request))

    def fork(self, ref: SequenceRef, *, at: int | None = None, seed: int | None = None) -> SequenceRef:
        """A new sequence with the first `at` tokens of this one, its cache copied."""
        with self._scheduler.paused(), self._sequences.lock:
            parent = self._state(ref)
            length = self._check_cut(parent, len(parent.ids) if at is None else at)
            child = SequenceState(parent.ids[:length], parent.seed if seed is None else seed)
            child.read = min(parent.read, length - 1)
            forked = SequenceRef(engine=self.fingerprint, id=new_id(), length=length)
            self._sequences.states[forked.id] = child
            cached = min(parent.cached, length - 1)
            if parent.slot is not None and cached:
                running, parent.running = parent.running, True  # its slot must not be taken for the child
                child.ended = self._sequences.passes
                try:
                    slot = self._sequences.place(child, urgent=self._scheduler.idle)
                    if slot is not None:
                        self.runner.cache.copy(parent.slot, slot, cached)
                        child.cached = cached
                except BaseException:  # nobody will know of the child
                    self._sequences.states.pop(forked.id)
                    raise
                finally:
                    parent.running = running
        return forked

    def rollback(self, ref: SequenceRef, *, to: int) -> SequenceRef:
        """Forget all tokens from position `to` on."""
        with self._sequences.lock:
            state = self._state(ref)
            length = self._check_cut(state, to)
            del state.ids[length:]
            # The last token that stays is computed again: its state chooses the next one.
            state.cached = min(state.cached, length - 1)
            state.read = min(state.read, length - 1)
        return ref.model_copy(update={"length": length})

    def close(self, ref: SequenceRef) -> None:
        """Forget a sequence. Closing one twice is no error."""
        with self._sequences.lock:
            state = self._sequences.states.get(ref.id)
            if state is not None and state.busy:
                state.closed = True  # its slot is still written to: the scheduler drops the step, then the sequence
            else:
                self._sequences.states.pop(ref.id, None)

    def tokens(self, ref: SequenceRef) -> list[int]:
        """The tokens of a sequence."""
        with self._sequences.lock:
            return list(self._state(ref).ids)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[PreTrainedModel]:
        """The model, while nothing is computed: for those who want to look at it, or to run it themselves."""
        with self._scheduler.paused():
            yield self.model

    def shutdown(self) -> None:
        """Stop the thread and leave the model as it was: without hooks, its modules plain."""
        self._scheduler.stop()
        unblock(self.model)
        if self._tap is not None:
            self._tap.remove()
            self._tap = None

    def _state(self, ref: SequenceRef) -> SequenceState:
        state = self._sequences.states.get(ref.id)
        if state is None or state.closed or ref.engine != self.fingerprint:
            raise UnknownSequenceError(
                f"sequence {ref.id} is not open in this engine", hint="reopen it from its tokens with restore()"
            )
        return state

    def _check_ids(self, ids: Sequence[int]) -> None:
        # The model would fail on them, and with it the steps of everybody in the batch.
        wrong = next((token for token in ids if not 0 <= token < self.runner.vocabulary), None)
        if wrong is not None:
            raise EngineError(f"token {wrong} is not one of the {self.runner.vocabulary} that {self.name} knows")

    def _check_cut(self, state: SequenceState, length: int) -> int:
        if state.busy:
            raise EngineError("this sequence is being extended", hint="wait for its step, or cancel it")
        if not 1 <= length <= len(state.ids):
            raise EngineError(f"position {length} is outside of a sequence of {len(state.ids)} tokens")
        return length


def _end_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)
