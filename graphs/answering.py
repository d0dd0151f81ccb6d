"""The node `answer`: from the closed thinking to the end of the turn."""

from __future__ import annotations

from typing import Any

from nr_agent.answers import extract_answer, states_answer
from nr_agent.engine.protocol import ExtendRequest, Segment, StopSpec
from nr_agent.episode import Step
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.replies import before_stop
from nr_agent.graphs.thinking import read_sampling
from nr_agent.tokens import CORRECTION_TOKENS, END_THINK, STEP_END, THINK, TOOL_CALL


class Answer:
    """Have the answer written, and read it.

    Reads `sequence`, `pending`, `closed`; writes `sequence`, `answer`, and `stop_reason` where the answer is cut: then
    the episode ran into its budget. Thinking that a budget ended is closed first. Where the context has no room left,
    the answer is what the thinking has stated so far.
    """

    beside_others = False

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        control = parts.engine.codec.control
        tokens = (control(token) for token in (THINK, END_THINK, *CORRECTION_TOKENS))
        # A closed thinking stays closed. Without control the model is left as it is.
        self.suppress = tuple(token for token in tokens if token is not None) if parts.control else ()

    def prepare(self, state: Any) -> ExtendRequest | None:
        """The rest of the turn, as far as there is room for it."""
        ref = self.parts.sequence(state)
        force = list(state["pending"])
        if not force and not state["closed"]:
            force = self.parts.remedies.closing(boundary=self.parts.at_boundary(ref))
        if state["lead"] or (state["stop"] and not force):
            # The closing words end with a blank line; a thinking that the model closed itself does not. The one that it
            # writes next is no end of the answer, be it one of the strings that are.
            gap = "" if force or state["next_index"] == 1 else STEP_END
            force += self.parts.engine.codec.encode(gap + state["lead"])
        room = self.parts.room(ref.length + len(force))
        if room < 1:
            return None
        self.parts.store.flush(wait=False)  # what was thought goes to the database while the answer is written
        return ExtendRequest(
            ref=ref,
            stop=StopSpec(
                ids=self.parts.engine.codec.end_ids,
                strings=tuple(state["stop"]),
                max_new=min(int(state["budget"]["max_answer_tokens"]), room),
            ),
            sampling=read_sampling(state, self.suppress),
            force=force,
            readings=False,
        )

    def finish(self, state: Any, segment: Segment | None, seconds: float) -> dict[str, Any]:
        """Record the answer's tokens and read the answer in them."""
        if segment is None:
            return {"answer": self._stated(state), "stop_reason": "context"}
        episode_id, codec = state["episode_id"], self.parts.engine.codec
        self.parts.memory.hold(episode_id, segment.ref)
        step = Step(
            index=state["next_index"],
            kind="answer",
            branch=state["branch"],
            start=segment.start,
            ids=segment.ids,
            provenance=segment.provenance,
            logprobs=segment.logprobs,
            text=codec.decode(segment.ids),
            stop=segment.end,
        )
        self.parts.record(episode_id, step)
        written = [
            token
            for token, logprob in zip(segment.ids, segment.logprobs, strict=True)
            if logprob is not None and token not in codec.end_ids
        ]
        text = before_stop(state["lead"] + codec.decode(written), state["stop"]).split(TOOL_CALL)[0]  # a call is none
        cut: dict[str, Any] = {}
        if segment.end in ("length", "context"):
            allowed = int(state["budget"]["max_answer_tokens"])
            cut = {"stop_reason": "token_budget" if len(written) >= allowed else "context"}
        return {
            **cut,
            "sequence": segment.ref.model_dump(mode="json"),
            "next_index": state["next_index"] + 1,
            "pending": [],
            "answer": extract_answer(text) or self._stated(state),
        }

    def _stated(self, state: Any) -> str | None:
        """What the thinking last said that the answer is."""
        kept = self.parts.store.get(state["episode_id"]).kept
        texts = [step.text for step in kept if step.kind == "think" and states_answer(step.text)]
        return extract_answer(texts[-1]) if texts else None
