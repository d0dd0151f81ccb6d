"""One step of thinking: the node `think`, and what `explore` shares with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nr_agent.answers import states_answer
from nr_agent.detection.protocol import Look
from nr_agent.engine.protocol import ExtendRequest, Sampling, Segment, StopSpec
from nr_agent.episode import Intervention, Step, runs
from nr_agent.graphs.control import Control
from nr_agent.graphs.memory import KEPT
from nr_agent.graphs.parts import Parts
from nr_agent.policies import recheck_outcome
from nr_agent.tokens import CORRECTION_TOKENS, END_THINK, STEP_END


@dataclass
class Thought:
    """A step of thinking, recorded.

    Attributes:
        segment: what the engine gave.
        text: of the step.
        look: what the detector made of it.
        next_index: index of the step after it.
        boundary: `[index, start]` of the step.
        closed: whether the model closed its thinking.
        ended: whether it ended its turn.
    """

    segment: Segment
    text: str
    look: Look
    next_index: int
    boundary: list[int]
    closed: bool
    ended: bool


class Thinker:
    """Asks for one step, looks at it and records it.

    Args:
        parts: of the reasoner.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        codec = parts.engine.codec
        self.end_think = codec.control(END_THINK)
        corrections = (codec.control(token) for token in CORRECTION_TOKENS)
        # The model answers correction tokens, it never writes them. Without control it is left as it is.
        self.suppress = tuple(token for token in corrections if token is not None) if parts.control else ()

    def request(self, state: Mapping[str, Any], max_new: int) -> ExtendRequest:
        """One step, behind what is pending."""
        ends = self.parts.engine.codec.end_ids
        spelled = () if self.end_think is not None else (END_THINK,)
        return ExtendRequest(
            ref=self.parts.sequence(state),
            stop=StopSpec(
                ids=ends if self.end_think is None else ends | {self.end_think},
                strings=(STEP_END, *spelled),
                max_new=max_new,
            ),
            sampling=read_sampling(state, self.suppress),
            force=tuple(state["pending"]),
            readings=self.parts.detector is not None,
        )

    def take(self, state: Mapping[str, Any], segment: Segment) -> Thought:
        """Look at a step and write it down: as two steps, if it closes the thinking behind a last thought."""
        episode_id, index = state["episode_id"], state["next_index"]
        text = self.parts.engine.codec.decode(segment.ids)
        self.parts.memory.hold(episode_id, segment.ref)
        closing = self.closing(segment, text)
        cut = len(segment.ids) - closing
        # What only closes the thinking is no thought, and no detector was calibrated on it.
        look = self.parts.look(state, segment, step=index, text=text) if cut else Look()
        steps = [self._part(state, segment, 0, cut)] if cut else []
        if closing:
            steps.append(self._part(state, segment, cut, len(segment.ids), kind="answer"))
        for offset, step in enumerate(steps):
            placed = step.model_copy(update={"index": index + offset})
            self.parts.record(episode_id, placed, look if offset == 0 else None)
        ended = segment.end == "stop_id" and segment.ids[-1] in self.parts.engine.codec.end_ids
        return Thought(
            segment, text, look, index + len(steps), [index, segment.start], closed=bool(closing) or ended, ended=ended
        )

    def closing(self, segment: Segment, text: str) -> int:
        """How many ids at the segment's end close the thinking."""
        if self.end_think is not None:
            return int(segment.end == "stop_id" and segment.ids[-1] == self.end_think)
        if segment.end != "stop_string" or not text.endswith(END_THINK):
            return 0
        # Spelled out: as many tokens as it takes to hold the word, however the model cut it.
        count = 1
        while END_THINK not in self.parts.engine.codec.decode(segment.ids[-count:]):
            count += 1
        return count

    def _part(self, state: Mapping[str, Any], segment: Segment, start: int, end: int, *, kind: str = "think") -> Step:
        flat = [provenance for provenance, length in segment.provenance for _ in range(length)]
        return Step.model_validate(
            {
                "index": state["next_index"],
                "kind": kind,
                "branch": state["branch"],
                "start": segment.start + start,
                "ids": segment.ids[start:end],
                "provenance": runs(flat[start:end]),
                "logprobs": segment.logprobs[start:end],
                "text": self.parts.engine.codec.decode(segment.ids[start:end]),
                "stop": segment.end,
            }
        )


class Think:
    """Extend the sequence by one step, look at it, and decide what comes next. One superstep, one step.

    Reads `sequence`, `pending`, `budget`; writes `sequence`, `counters`, `events`, `action`, `next`.
    """

    beside_others = False

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.thinker = Thinker(parts)
        self.control = Control(parts)

    def prepare(self, state: Any) -> ExtendRequest:
        """One step, as long as the budget allows."""
        return self.thinker.request(state, self.control.step_length(state, state["pending"]))

    def finish(self, state: Any, segment: Segment | None, seconds: float) -> dict[str, Any]:
        """Record the step and decide."""
        assert segment is not None  # noqa: S101 - prepare always asks for one
        thought = self.thinker.take(state, segment)
        self._settle_remedy(state, thought.text)
        counters = state["counters"]
        update: dict[str, Any] = {
            "sequence": segment.ref.model_dump(mode="json"),
            "next_index": thought.next_index,
            "boundaries": [*state["boundaries"], thought.boundary][-KEPT:],
            "pending": [],
            "remedy": None,
            "counters": {
                **counters,
                "steps": counters["steps"] + 1,
                "tokens": counters["tokens"] + len(segment.ids),
                "seconds": counters["seconds"] + seconds,
            },
            "events": [event.to_state() for event in thought.look.events],
            "answered": state["answered"] or states_answer(thought.text),
            "closed": thought.closed,
        }
        update |= self.control.after_step({**state, **update})
        if thought.ended:
            update["next"] = "record"  # the turn is over: what was thought is all there is
        elif segment.end == "context" and not thought.closed:
            update |= {"next": "answer", "stop_reason": "context"}
        return update

    def _settle_remedy(self, state: Mapping[str, Any], text: str) -> None:
        """Note what came of a recheck, now that its step is there."""
        if state["remedy"] is None:
            return
        intervention = Intervention.model_validate(state["remedy"])
        steps = self.parts.store.get(state["episode_id"]).steps
        before = next((step.text for step in steps if step.index == intervention.step), "")
        outcome = recheck_outcome(before, text)
        self.parts.store.add(state["episode_id"], intervention.model_copy(update={"outcome": outcome}))


def read_sampling(state: Mapping[str, Any], suppress: tuple[int, ...]) -> Sampling:
    """The sampling of a state, with tokens that are never to be drawn."""
    drawn = dict(state["sampling"])
    return Sampling(**{**drawn, "suppress": tuple(dict.fromkeys((*drawn["suppress"], *suppress)))})
