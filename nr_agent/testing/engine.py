"""An engine that writes a script instead of computing: tokens, forks and rollbacks are real, thoughts are given."""

from __future__ import annotations

import inspect
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from nr_agent.engine.protocol import (
    Capabilities,
    EndReason,
    ExtendRequest,
    Sampling,
    Segment,
    SequenceRef,
    StopSpec,
    TapLayout,
    TapPlan,
    TextCodec,
)
from nr_agent.episode import Run
from nr_agent.errors import ChannelError, ContextLengthError, EngineError, ToolsUnsupportedError, UnknownSequenceError
from nr_agent.ids import new_id
from nr_agent.tokens import BRANCH, END_OF_TEXT, END_THINK, RECHECK, STEP_END, THINK, TURN_END, TURN_START

Script = Sequence[str] | Callable[[str], str | None] | Callable[[str, int], str | None]
"""What is thought: step texts in order, or a function of the text so far (and the sequence's seed)."""

_CONTROL = (END_OF_TEXT, TURN_START, TURN_END, THINK, END_THINK, RECHECK, BRANCH)
_FIRST_CHARACTER = 16


class CharacterCodec:
    """A token a character, and ids of their own for the control tokens.

    Args:
        missing: control tokens that this "model" does not have; they are spelled out in characters.
        tools: whether its template presents tools, as Qwen's and Hermes' do.
    """

    def __init__(self, missing: Sequence[str] = (), *, tools: bool = False) -> None:
        self.takes_tools = tools
        self._ids = {token: number for number, token in enumerate(_CONTROL) if token not in missing}
        self._texts = {number: token for token, number in self._ids.items()}
        self._split = re.compile("(" + "|".join(map(re.escape, self._ids)) + ")")

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Messages as ChatML, the thinking opened. Control tokens in their text stay text.

        Raises:
            ToolsUnsupportedError: there are tools, and this codec presents none.
        """
        if tools and not self.takes_tools:
            raise ToolsUnsupportedError("this codec knows no tools", hint="make the engine with tools=True")
        offered = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        turns = [("system", f"<tools>\n{offered}\n</tools>")] if tools else []
        ids: list[int] = []
        for role, text in [*turns, *map(_turn, messages)]:
            ids += [*self.encode(TURN_START), *_characters(f"{role}\n{text}"), *self.encode(f"{TURN_END}\n")]
        return ids + self.encode(f"{TURN_START}assistant\n{THINK}\n")

    def encode(self, text: str) -> list[int]:
        """Ids of text that the controller writes; control tokens in it are meant."""
        ids: list[int] = []
        for piece in self._split.split(text):
            ids += [self._ids[piece]] if piece in self._ids else _characters(piece)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, control tokens visible."""
        return "".join(self._texts[i] if i in self._texts else chr(i - _FIRST_CHARACTER) for i in ids)

    def control(self, token: str) -> int | None:
        """Id of a control token, or None where this codec has none by that name."""
        return self._ids.get(token)

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        return frozenset({self._ids[TURN_END]})


@dataclass
class _Sequence:
    """A sequence and where it stands in the script."""

    ids: list[int]
    prompt: int
    seed: int
    told: int = 0
    rest: list[int] = field(default_factory=list)


class ScriptedEngine:
    r"""Follows a script, step by step, and keeps sequences as a real engine does.

    A list is told in order, one text a step, whatever is inserted in between; a blank line is added to a text
    that lacks one. A rollback does not turn it back: the next text is what is thought *instead*. A fork goes on
    from where its parent stood. A function gets the text of the whole sequence (and, if it takes a second
    argument, the sequence's seed) and returns the next step, or None to close the thinking.

    When the script is at its end, `</think>` is written; after that, `answer` and the end of the turn. After
    an end of the turn nothing but ends of the turn are written.

    Args:
        script: what is thought.
        answer: what is written once the thinking is closed; a function gets the text so far.
        confidence: log-probability of each token of a piece of text: a number, or a function of the step's text.
        context: longest sequence, in characters.
        missing: control tokens that this model does not have (see `CharacterCodec`).
        tools: whether the model may be offered tools (see `CharacterCodec`).
        seconds_a_token: how long a token takes; for tests that cancel.
        name: how the model is called in reports.

    Example:
        >>> from nr_agent.engine.protocol import StopSpec
        >>> engine = ScriptedEngine(["2+2=4"], answer="4")
        >>> ref = engine.open(engine.codec.render([{"role": "user", "content": "2+2?"}]))
        >>> segment = engine.extend(ref, stop=StopSpec(strings=("\n\n",)))
        >>> engine.codec.decode(segment.ids), segment.end
        ('2+2=4\n\n', 'stop_string')
    """

    def __init__(
        self,
        script: Script,
        *,
        answer: str | Callable[[str], str] = "The final answer is \\boxed{42}.",
        confidence: float | Callable[[str], float] = -0.1,
        context: int = 16_384,
        missing: Sequence[str] = (),
        tools: bool = False,
        seconds_a_token: float = 0.0,
        name: str = "scripted",
    ) -> None:
        self.name = name
        self.fingerprint = f"scripted:{name}"
        self.codec: TextCodec = CharacterCodec(missing, tools=tools)
        self.capabilities = Capabilities(taps="none", fork="copy", rollback="exact", batching=False, context=context)
        self._script = script
        self._answer = answer
        self._confidence = confidence
        self._pause = seconds_a_token
        self._sequences: dict[str, _Sequence] = {}
        self._lock = threading.RLock()

    @property
    def open_sequences(self) -> int:
        """How many sequences are open: 0 after an episode that cleaned up behind itself."""
        return len(self._sequences)

    def attach(self, plan: TapPlan | None, *, replace: bool = True) -> TapLayout:
        """There are no channels: only a plan that asks for none can be attached.

        Raises:
            ChannelError: the plan reads channels.
        """
        layout = TapLayout() if plan is None else plan.install(None).layout
        if layout.channels:
            raise ChannelError("a scripted engine has no channels", hint="watch it with a ScriptedDetector")
        return layout

    def open(self, prompt: Sequence[int], *, seed: int = 0) -> SequenceRef:
        """Begin a sequence with a prompt."""
        if len(prompt) >= self.capabilities.context:
            raise ContextLengthError(
                f"the prompt has {len(prompt)} tokens, {self.name} takes {self.capabilities.context} in all",
                hint="shorten the problem, or give the engine a larger context",
            )
        return self._add(_Sequence(list(prompt), len(prompt), seed))

    def restore(self, ids: Sequence[int], *, seed: int = 0) -> SequenceRef:
        """Open a sequence that is known by its tokens; a list goes on behind the steps that it holds."""
        opened = self.codec.control(THINK)
        prompt = ids.index(opened) + 1 if opened in ids else 0
        told = self.codec.decode(ids[prompt:]).count(STEP_END)
        return self._add(_Sequence(list(ids), prompt, seed, told))

    def submit(self, request: ExtendRequest) -> Future[Segment]:
        """Extend a sequence in a thread; cancelling the future stops it at the next token."""
        self._get(request.ref)
        if request.stop.margins or request.stop.monitor is not None:
            raise EngineError("a scripted engine has no margins and no readings", hint="use an engine with a model")
        future: Future[Segment] = Future()
        threading.Thread(target=self._run, args=(request, future), name="scripted-engine", daemon=True).start()
        return future

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
        """Take the forced ids in, then write until a stop."""
        future = self.submit(ExtendRequest(ref, stop, sampling, force, flush, readings))
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def fork(self, ref: SequenceRef, *, at: int | None = None, seed: int | None = None) -> SequenceRef:
        """A new sequence with the first `at` tokens of this one."""
        with self._lock:
            parent = self._get(ref)
            at = len(parent.ids) if at is None else self._check(parent, at)
            rest = list(parent.rest) if at == len(parent.ids) else []
            seed = parent.seed if seed is None else seed
            return self._add(_Sequence(parent.ids[:at], parent.prompt, seed, parent.told, rest))

    def rollback(self, ref: SequenceRef, *, to: int) -> SequenceRef:
        """Forget all tokens from position `to` on."""
        with self._lock:
            sequence = self._get(ref)
            if self._check(sequence, to) < len(sequence.ids):
                sequence.rest.clear()
            del sequence.ids[to:]
            return ref.model_copy(update={"length": to})

    def close(self, ref: SequenceRef) -> None:
        """Forget a sequence."""
        with self._lock:
            self._sequences.pop(ref.id, None)

    def tokens(self, ref: SequenceRef) -> list[int]:
        """The tokens of a sequence."""
        with self._lock:
            return list(self._get(ref).ids)

    def shutdown(self) -> None:
        """Forget all sequences."""
        with self._lock:
            self._sequences.clear()

    def _run(self, request: ExtendRequest, future: Future[Segment]) -> None:
        try:
            segment = self._write(request, future)
            if segment is not None:
                future.set_result(segment)
        except InvalidStateError:
            return  # cancelled on its last token
        except BaseException as error:  # whatever the script raises belongs to the caller
            if not future.cancelled():
                future.set_exception(error)

    def _write(self, request: ExtendRequest, future: Future[Segment]) -> Segment | None:
        with self._lock:
            sequence = self._get(request.ref)
            start = len(sequence.ids)
            if start != request.ref.length:
                raise EngineError(
                    f"the handle says {request.ref.length} tokens, the sequence has {start}",
                    hint="use the handle that the last call returned, or roll back first",
                )
            if start + len(request.force) > self.capabilities.context:
                raise ContextLengthError(f"{len(request.force)} forced tokens do not fit into the context")
            ids, rest, told = [*sequence.ids, *request.force], list(sequence.rest), sequence.told
        if request.force:
            rest = []
        text, logprob = "", -0.1
        end: EndReason | None = "forced"
        sampled = 0
        while request.stop.max_new > 0:
            if len(ids) >= self.capabilities.context:
                end = "context"
                break
            if not rest:
                step, told = self._next(ids, sequence, told)
                rest = self.codec.encode(step)
            if not text or text.endswith(STEP_END):
                logprob = self._logprob(self.codec.decode(rest))
            if future.cancelled():
                return None
            time.sleep(self._pause) if self._pause else None
            token = rest.pop(0)
            ids.append(token)
            sampled += 1
            text += self.codec.decode([token])
            end = self._stop(request.stop, token, text, sampled)
            if end:
                break
        count = len(request.force)
        coded: list[Run] = [("inserted", count), ("model", sampled)]
        with self._lock:
            sequence.ids, sequence.rest, sequence.told = ids, rest, told
        return Segment(
            ref=request.ref.model_copy(update={"length": len(ids)}),
            start=start,
            ids=ids[start:],
            provenance=[run for run in coded if run[1]],
            logprobs=[*[None] * count, *[logprob] * sampled],
            entropies=[*[None] * count, *[-logprob] * sampled],
            end=end or "length",
        )

    def _next(self, ids: list[int], sequence: _Sequence, told: int) -> tuple[str, int]:
        """What is written next, and how far the script has been told then."""
        text = self.codec.decode(ids)
        thoughts = self.codec.decode(ids[sequence.prompt :])
        if END_THINK in thoughts:
            if thoughts.endswith(TURN_END):
                return TURN_END, told
            answer = self._answer if isinstance(self._answer, str) else self._answer(text)
            gap = "" if thoughts.endswith(STEP_END) else STEP_END
            return gap + answer + TURN_END, told
        step = self._tell(text, sequence.seed, told)
        if step is None:
            return END_THINK, told
        complete = step.endswith((STEP_END, END_THINK, TURN_END))
        return step if complete else step + STEP_END, told + 1

    def _tell(self, text: str, seed: int, told: int) -> str | None:
        if not callable(self._script):
            return self._script[told] if told < len(self._script) else None
        arguments: tuple[Any, ...] = (text, seed)
        script: Callable[..., str | None] = self._script
        return script(*arguments[: len(inspect.signature(script).parameters)])

    def _logprob(self, text: str) -> float:
        return self._confidence if isinstance(self._confidence, (int, float)) else self._confidence(text)

    @staticmethod
    def _stop(stop: StopSpec, token: int, text: str, sampled: int) -> EndReason | None:
        if token in stop.ids:
            return "stop_id"
        if any(text.endswith(string) for string in stop.strings):
            return "stop_string"
        return "length" if sampled >= stop.max_new else None

    def _add(self, sequence: _Sequence) -> SequenceRef:
        ref = SequenceRef(engine=self.fingerprint, id=new_id(), length=len(sequence.ids))
        with self._lock:
            self._sequences[ref.id] = sequence
        return ref

    def _get(self, ref: SequenceRef) -> _Sequence:
        with self._lock:
            if ref.engine != self.fingerprint or ref.id not in self._sequences:
                raise UnknownSequenceError(
                    f"sequence {ref.id} is not open in this engine", hint="reopen it from its tokens with restore()"
                )
            return self._sequences[ref.id]

    @staticmethod
    def _check(sequence: _Sequence, length: int) -> int:
        if not 1 <= length <= len(sequence.ids):
            raise EngineError(f"position {length} is outside of a sequence of {len(sequence.ids)} tokens")
        return length


def _turn(message: Mapping[str, Any]) -> tuple[str, str]:
    """A message's role and text; calls and results of tools in Hermes' form."""
    if message["role"] == "tool":
        return "user", f"<tool_response>\n{message['content']}\n</tool_response>"
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    text = "\n".join([message["content"], *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)])
    return message["role"], text


def _characters(text: str) -> list[int]:
    return [ord(character) + _FIRST_CHARACTER for character in text]
