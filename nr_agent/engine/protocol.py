"""What an engine is: it opens sequences, extends them by a step, forks them and takes them back.

Tokens are the truth and the KV cache is a cache: a `SequenceRef` names a sequence of tokens, and an engine
that lost its cache computes it again. Every engine passes the suite in `nr_agent.testing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from nr_agent.episode import Run
from nr_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

EndReason = Literal["stop_id", "stop_string", "length", "context", "forced", "margin", "monitor"]
"""Why a segment ended. `forced`: only given ids were to be taken in, none sampled."""


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do.

    Attributes:
        taps: which channels it can read.
        fork: `copy` the cache, or `recompute` it.
        rollback: `exact` in the cache, or `recompute`.
        batching: whether segments of several sequences are computed together.
        context: longest sequence, in tokens.
    """

    taps: Literal["channels", "none"]
    fork: Literal["copy", "recompute"]
    rollback: Literal["exact", "recompute"]
    batching: bool
    context: int


class SequenceRef(BaseModel):
    """A handle on a sequence: plain values, so it can be part of a graph's state.

    Attributes:
        engine: fingerprint of the model that computes it.
        id: the sequence in its engine.
        length: its number of tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    id: str
    length: int


_RANGES = (
    ("temperature", 0.0, 100.0),
    ("top_p", 1e-9, 1.0),
    ("top_k", 0.0, 1e9),
    ("repetition_penalty", 1e-9, 1e9),
)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy.

    A draw is keyed by the sequence's seed and the token's position, so it does not depend on batch mates.

    Attributes:
        temperature: divides the logits.
        top_p: the smallest set of tokens with this much probability is drawn from.
        top_k: most tokens that are drawn from; 0 for all.
        suppress: ids that are never drawn.
        repetition_penalty: above 1, tokens that the sequence holds already, its prompt included, become less
            likely: their logits are divided by it, or multiplied where they are negative (CTRL, arXiv 1909.05858).
        avoid: pieces that are not written: where the sequence ends in all of a piece but its last id, that one is not
            drawn (`bad_words_ids` in transformers).

    Raises:
        ConfigurationError: a setting makes no sense.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    suppress: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    avoid: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise ConfigurationError(
                    f"a sampling's {name} is {value!r}", hint=f"give a number from {least:g} to {most:g}"
                )
        # From JSON they come as lists.
        object.__setattr__(self, "suppress", tuple(self.suppress))
        object.__setattr__(self, "avoid", tuple(map(tuple, self.avoid)))
        if not all(self.avoid):
            raise ConfigurationError("a piece to avoid is empty", hint="give the ids that are not to be written")


@dataclass(frozen=True)
class Margin:
    """Ends a segment before a token is drawn, once another token is almost the likeliest (ThinkBrake's test).

    Attributes:
        token: the other token, such as the one that ends the thinking.
        nats: the segment ends where its log-probability is at most this far below the likeliest token's.
        anywhere: test before every token; otherwise before the segment's first sampled one only, which is at the
            boundary of a step.
    """

    token: int
    nats: float
    anywhere: bool = False


class Monitor(Protocol):
    """Watches a segment's readings while it is thought. Runs between two tokens of *all* rows: it must be quick."""

    def __call__(self, positions: Tensor, values: Tensor) -> bool:
        """Whether to stop: the segment then ends with the token that the last of these readings produced.

        Args:
            positions: `[n]` int64, absolute, those that were read since the last call.
            values: `[n, channels]` float32, as in `Readings`.
        """
        ...


@dataclass(frozen=True)
class StopSpec:
    """When a segment ends: at one of these ids, after one of these strings, or at a length.

    Attributes:
        ids: a segment ends with the first of these, which is part of it.
        strings: a segment ends with the token that completes one of these in the text that it adds.
        max_new: most tokens to sample; 0 only takes the forced ids in.
        margins: a segment ends before a token is drawn where one of these holds; it may then be empty.
        monitor: watches the readings. If it raises, this step fails, and no other.
    """

    ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()
    max_new: int = 512
    margins: tuple[Margin, ...] = ()
    monitor: Monitor | None = None


@dataclass
class Readings:
    """Values of the tapped channels, labelled: row `i` was read at `positions[i]` of sequence `sequence`.

    A reading at position `p` belongs to the forward pass that produced the token at `p + 1`.

    Attributes:
        sequence: id of the sequence.
        positions: `[n]` int64, absolute, increasing.
        token_ids: `[n]` int64, the token that was read in at each position.
        values: `[n, channels]` float32, in the order of the layout; standardisation is the detector's.
    """

    sequence: str
    positions: Tensor
    token_ids: Tensor
    values: Tensor

    def __len__(self) -> int:
        return int(self.positions.shape[0])


@dataclass
class Segment:
    """What `extend` added to a sequence.

    Attributes:
        ref: the sequence as it is now.
        start: position of the first added token.
        ids: added tokens, forced ones first.
        provenance: run-length coded.
        logprobs: of each sampled token, under the model at temperature 1; None for forced tokens.
        entropies: of the distribution each sampled token was drawn from, in nats; None for forced tokens.
        end: why it ended.
        readings: the states that produced the added tokens: positions `start - 1` to `start + len(ids) - 2`
            (and the prompt's, with the first segment). The last token has not been read in yet, so its
            reading comes with the next segment, or with this one when it was asked to `flush`.
    """

    ref: SequenceRef
    start: int
    ids: list[int]
    provenance: list[Run]
    logprobs: list[float | None]
    entropies: list[float | None]
    end: EndReason
    readings: Readings | None = None


@dataclass(frozen=True)
class TapLayout:
    """The order in which channels arrive: column `j` of the readings is `channels[j]`."""

    channels: tuple[str, ...] = ()


class Tap(Protocol):
    """Hooks in a model that gather chosen channels into one buffer (see `nr_agent.neurons.tap`)."""

    layout: TapLayout

    def take(self, rows: int) -> Tensor:
        """The readings of the last forward pass, `[rows, channels]` float32, rows in batch order.

        No later pass may write into what is returned.
        """
        ...

    def remove(self) -> None:
        """Take the hooks out of the model."""
        ...


class TapPlan(Protocol):
    """Which channels to read: makes the tap for a model."""

    def install(self, model: Any) -> Tap:
        """Put the hooks in, prove with numbers that they read what they say, and return the tap.

        Raises:
            ChannelError: a channel does not exist, or the check failed.
        """
        ...


class TextCodec(Protocol):
    """Text to ids and back, as the engine's model does it."""

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Messages through the chat template, the thinking opened. Control tokens in their text stay text.

        Args:
            messages: `role` and `content`; calls of tools as `tool_calls`, in OpenAI's form.
            tools: that the model may call, in OpenAI's form.
        """
        ...

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template presents tools."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text that the controller writes; control tokens in it are meant."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, control tokens visible."""
        ...

    def control(self, token: str) -> int | None:
        """Id of a control token, or None where the tokenizer has none by that name."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        ...


@dataclass
class ExtendRequest:
    """One call of `extend`."""

    ref: SequenceRef
    stop: StopSpec
    sampling: Sampling = Sampling()
    force: Sequence[int] = ()
    flush: bool = False
    readings: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """A model that thinks step by step. All methods may be called from any thread."""

    name: str
    fingerprint: str
    capabilities: Capabilities
    codec: TextCodec

    def attach(self, plan: TapPlan | None, *, replace: bool = True) -> TapLayout:
        """Choose the channels to read from now on; None reads nothing.

        Args:
            plan: chooses them.
            replace: whether channels that are read already give way to it. Otherwise they stay: what reads none is
                content with that, and what reads others is refused.

        Returns:
            The channels that are read now.

        Raises:
            ChannelError: a channel does not exist, or the tap failed its numeric self-check.
            ConfigurationError: other channels are read, and they are not to be replaced.
        """
        ...

    def open(self, prompt: Sequence[int], *, seed: int = 0) -> SequenceRef:
        """Begin a sequence with a prompt.

        Raises:
            ContextLengthError: the prompt leaves no room in the context.
        """
        ...

    def submit(self, request: ExtendRequest) -> Future[Segment]:
        """Extend a sequence in the background; cancelling the future stops it within a few tokens."""
        ...

    def extend(
        self,
        ref: SequenceRef,
        *,
        stop: StopSpec,
        sampling: Sampling = Sampling(),
        force: Sequence[int] = (),
        flush: bool = False,
        readings: bool = True,
    ) -> Segment:
        """Take the forced ids in, then sample until a stop: one step.

        Raises:
            UnknownSequenceError: the handle is not of this engine, or the sequence was closed.
            ContextLengthError: the forced ids leave the context; a sequence that is full ends with `context`.
            EngineError: the sequence is being extended, or it has another length than the handle says.
            Cancelled: the sequence was closed, or the engine shut down, while the step was thought.
        """
        ...

    def fork(self, ref: SequenceRef, *, at: int | None = None, seed: int | None = None) -> SequenceRef:
        """A new sequence with the first `at` tokens of this one (all by default), and perhaps another seed."""
        ...

    def rollback(self, ref: SequenceRef, *, to: int) -> SequenceRef:
        """Forget all tokens from position `to` on; the handle that is returned replaces the old one."""
        ...

    def close(self, ref: SequenceRef) -> None:
        """Forget a sequence. Closing one twice is no error."""
        ...

    def tokens(self, ref: SequenceRef) -> list[int]:
        """The tokens of a sequence."""
        ...

    def restore(self, ids: Sequence[int], *, seed: int = 0) -> SequenceRef:
        """Open a sequence that is known by its tokens, after its engine or its cache was lost."""
        ...

    def shutdown(self) -> None:
        """Stop the engine and free what it holds."""
        ...
