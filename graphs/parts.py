"""What every node is bound to, and what they share in doing: reach a sequence, record, tell the stream, clean up."""

from __future__ import annotations

import asyncio
import concurrent.futures
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.config import get_config, get_stream_writer
from langgraph.errors import GraphBubbleUp

from nr_agent.answers import states_answer
from nr_agent.detection.protocol import Detector, Look
from nr_agent.engine.protocol import Engine, Sampling, Segment, SequenceRef
from nr_agent.episode import Episode, EpisodeStatus, Intervention, Step, StopReason, measure_usage
from nr_agent.errors import (
    Cancelled,
    ConfigurationError,
    EngineError,
    NotFoundError,
    OtherModelError,
    UnknownSequenceError,
)
from nr_agent.graphs.following import tell_followers
from nr_agent.graphs.lineage import find_line
from nr_agent.graphs.memory import Memory
from nr_agent.graphs.stream import FailureStreamEvent, InterventionEvent, Part, StepEvent
from nr_agent.graphs.threads import to_its_end
from nr_agent.policies import Policies, Remedies
from nr_agent.tokens import STEP_END, THINK

if TYPE_CHECKING:
    from nr_agent.store import EpisodeStore

_TAIL = 16
_INTERRUPTIONS = (
    KeyboardInterrupt,
    GeneratorExit,
    Cancelled,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
)


@dataclass
class Parts:
    """The things that a reasoner is made of. None of them can be serialised, so none is in its state.

    Attributes:
        engine: thinks.
        detector: watches, if there is one.
        policies: decide.
        store: keeps the episodes.
        remedies: how remedies are spoken to this engine.
        sampling: how tokens are drawn.
        control: whether events are acted upon; otherwise they are only recorded.
        memory: observers and open sequences.
    """

    engine: Engine
    detector: Detector | None
    policies: Policies
    store: EpisodeStore
    remedies: Remedies
    sampling: Sampling
    control: bool
    memory: Memory

    def sequence(self, state: Mapping[str, Any]) -> SequenceRef:
        """The sequence of a state, as the state knows it.

        A node that runs a second time finds more than that, and so does who goes back in time: what is there may be
        another line by now. After a restart nothing is there. In all these cases it is made again from the store; but
        of a fork, which is thought on once, what is too much is taken back.

        Raises:
            EngineError: the store does not hold it (any more).
        """
        ref = SequenceRef.model_validate(state["sequence"])
        try:
            length = len(self.engine.tokens(ref))
        except UnknownSequenceError:
            return self._restore(state, ref)
        forked = "before" in state  # a fork's steps have numbers of their own
        if length == ref.length and (forked or not self.memory.is_behind(state["episode_id"], state["next_index"])):
            return ref
        if forked and length > ref.length:
            self.memory.rewind(state["episode_id"], state["branch"], before=state["next_index"])
            return self.engine.rollback(ref, to=ref.length)
        self.close(state["episode_id"], ref)
        return self._restore(state, ref)

    def come_back(self, state: Mapping[str, Any]) -> None:
        """A state is gone on from that was laid aside: what others did with the episode since is gone back behind."""
        kept = self.episode(state["episode_id"]).kept
        self.memory.recorded(state["episode_id"], max(step.index for step in kept))
        self.hold(state["episode_id"], self.sequence(state))

    def at_boundary(self, ref: SequenceRef) -> bool:
        """Whether a sequence ends where a step ends: after a blank line, or where the thinking was opened."""
        end = self.engine.codec.decode(self.engine.tokens(ref)[-_TAIL:])
        return end.endswith((STEP_END, f"{THINK}\n"))

    def room(self, length: int) -> int:
        """Tokens between a length and the context's end."""
        return self.engine.capabilities.context - length

    def episode(self, episode_id: str) -> Episode:
        """An episode that is being thought.

        Raises:
            ConfigurationError: it was begun with another store.
        """
        try:
            return self.store.get(episode_id)
        except NotFoundError as error:
            raise ConfigurationError(
                f"the checkpoint speaks of episode {episode_id}, which is not in this reasoner's store",
                hint="resume with the store that it was begun in: create_reasoner(..., store=EpisodeStore('FILE'))",
            ) from error

    def answered(self, episode_id: str) -> bool:
        """Whether a step that is still part of the thinking says what the answer is."""
        kept = self.episode(episode_id).kept
        return any(states_answer(step.text) for step in kept if step.kind == "think")

    def look(self, state: Mapping[str, Any], segment: Segment, *, step: int, text: str) -> Look:
        """Let the detector look at a step, if there is one."""
        return self.memory.look(state["episode_id"], state["branch"], segment, step=step, text=text)

    def record(self, episode_id: str, step: Step, look: Look | None = None) -> None:
        """Write a step with its events down, and tell the stream."""
        look = look or Look()
        self.memory.recorded(episode_id, step.index)
        self.store.add(episode_id, step.model_copy(update={"readings": look.summaries}), *look.events)
        writer = get_stream_writer()
        writer(
            StepEvent(
                type="nr.step",
                episode_id=episode_id,
                index=step.index,
                kind=step.kind,
                branch=step.branch,
                parts=self._parts(step),
                tokens=len(step.ids),
                stop=step.stop,
                scores={str(level): float(score) for level, score in look.scores.items()},
            )
        )
        for event in look.events:
            writer(FailureStreamEvent(type="nr.failure", episode_id=episode_id, event=event.to_state()))

    def intervene(self, episode_id: str, intervention: Intervention) -> None:
        """Write an intervention down, and tell the stream."""
        self.store.add(episode_id, intervention)
        get_stream_writer()(
            InterventionEvent(
                type="nr.intervention",
                episode_id=episode_id,
                intervention=intervention.model_dump(mode="json"),
                text=self.engine.codec.decode(intervention.inserted),
            )
        )

    def hold(self, episode_id: str, ref: SequenceRef) -> dict[str, Any]:
        """Remember an open sequence; as the state carries it."""
        self.memory.hold(episode_id, ref)
        return ref.model_dump(mode="json")

    def close(self, episode_id: str, ref: SequenceRef) -> None:
        """Close a sequence."""
        self.engine.close(ref)
        self.memory.release(episode_id, ref)

    def clean_up(self, episode_id: str) -> bool:
        """Close what an episode holds; False if that was done already."""
        refs = self.memory.forget(episode_id)
        for ref in refs or ():
            self.engine.close(ref)
        return refs is not None

    def settle(self) -> None:
        """See that what was written down is committed before a checkpoint speaks of it.

        The store's writer waits a little for company: a process that is killed in the meantime could not be resumed.
        """
        if _resumable():
            self.store.flush()

    def wait(self, episode_id: str) -> None:
        """An episode is laid aside until a person has answered; whoever writes into it goes on with it."""
        usage = measure_usage(self.episode(episode_id).steps)
        self.store.finish(episode_id, status="waiting", usage=usage)
        self.memory.lay_aside(episode_id)

    def leave(self, episode_id: str) -> None:
        """Close an episode whose run nobody follows any more."""
        self._finish(episode_id, "interrupted", None, "nobody followed it to its end")

    @contextmanager
    def guard(self, episode_id: str, *, beside_others: bool = False) -> Iterator[None]:
        """Finish the episode as failed or interrupted when an error leaves a node, and let the error go on.

        Args:
            episode_id: the episode.
            beside_others: other nodes of the episode run at the same time. What they think counts when the
                episode is resumed, so its sequences stay open when this node fails. Where nobody can resume, they are
                closed when the run is over: a node that lost its sequence would fail with an error of its own.
        """
        self._enter(episode_id)
        try:
            yield
            self.settle()
        except BaseException as error:
            self._end_by(error, episode_id, beside_others)
            raise
        finally:
            self.memory.leave(episode_id)

    @asynccontextmanager
    async def aguard(self, episode_id: str, *, beside_others: bool = False) -> AsyncIterator[None]:
        """`guard` for coroutines: what may wait for the database waits in a thread. It does not `settle`."""
        self._enter(episode_id)
        try:
            yield
        except GeneratorExit as error:
            self._end_by(error, episode_id, beside_others)  # the loop is gone: there is nothing to wait in
            raise
        except BaseException as error:
            await to_its_end(self._end_by, error, episode_id, beside_others)
            raise
        finally:
            self.memory.leave(episode_id)

    def _enter(self, episode_id: str) -> None:
        tell_followers(episode_id, resumable=_resumable())
        for left in self.memory.enter(episode_id):
            self.engine.close(left)

    def _end_by(self, error: BaseException, episode_id: str, beside_others: bool) -> None:
        # An interrupt, say, is no error; nor has a model that is not the episode's changed anything about it.
        if isinstance(error, GraphBubbleUp | OtherModelError):
            return
        if isinstance(error, _INTERRUPTIONS):
            self._finish(episode_id, "interrupted", None, "cancelled")
        else:
            reason = f"{type(error).__name__}: {error}"
            self._finish(episode_id, "failed", "error", reason, close=not beside_others)

    def _finish(
        self, episode_id: str, status: EpisodeStatus, reason: StopReason | None, error: str, *, close: bool = True
    ) -> None:
        if close and not self.clean_up(episode_id):
            return
        try:
            episode = self.store.get(episode_id)
        except NotFoundError:
            return  # it was begun with another store, which is what the error says
        # Where one of several nodes fails, LangGraph cancels those beside it: that is no interruption.
        if (status, episode.status) != ("interrupted", "failed"):
            usage = measure_usage(episode.steps)
            self.store.finish(episode_id, status=status, stop_reason=reason, usage=usage, error=error)

    def _restore(self, state: Mapping[str, Any], ref: SequenceRef) -> SequenceRef:
        episode = self.episode(state["episode_id"])
        if episode.fingerprint != self.engine.fingerprint:
            raise OtherModelError(
                f"episode {episode.id} was begun with {episode.model or 'a model'} of fingerprint "
                f"{episode.fingerprint}, and this reasoner's {self.engine.name} has {self.engine.fingerprint}",
                hint="resume with the model that it was begun with, or ask anew on another thread",
            )
        before = state.get("before", state["next_index"])
        line = find_line(episode, branch=state["branch"], before=before, length=ref.length)
        if line is None:
            raise EngineError(
                f"episode {episode.id} has no {ref.length} tokens in the store, of which its state speaks",
                hint="resume with the store that the episode was begun in (a file or a server, not memory); what was "
                "thought anew since, behind an earlier checkpoint, cannot be gone forward to",
            )
        if any(token < 0 for step in line for token in step.ids):
            raise EngineError(
                f"episode {episode.id} cannot be read again: its store keeps no tokens of it, or changed ones",
                hint="resume with a store that keeps texts as they are",
            )
        if "before" not in state:
            # What was thought behind this point or beside it, and was never saved or is gone back behind, is no part of
            # it; what was taken back since is one again.
            there = {step.index for step in line}
            again = [step.model_copy(update={"discarded": False}) for step in line if step.discarded]
            self.store.discard(episode.id, [step.index for step in episode.kept if step.index not in there])
            self.store.add(episode.id, *again)
            self.memory.go_back(episode.id, state["branch"], before, same_line=not again)
        restored = self.engine.restore([token for step in line for token in step.ids], seed=state["seed"])
        self.memory.hold(episode.id, restored)
        return restored

    def _parts(self, step: Step) -> list[Part]:
        parts, at = [], 0
        for provenance, length in step.provenance:
            parts.append(Part(provenance=provenance, text=self.engine.codec.decode(step.ids[at : at + length])))
            at += length
        return parts


def _resumable() -> bool:
    """Whether the run has checkpoints to go on from."""
    return get_config().get("configurable", {}).get("__pregel_checkpointer") not in (None, False)


def make_intervention(state: Mapping[str, Any], kind: str, *, mode: str, position: int, **facts: Any) -> Intervention:
    """The record of the action in a state. Its id is the same whenever the node runs again."""
    action = state["action"]
    step = state["next_index"] - 1
    return Intervention.model_validate(
        {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{state['episode_id']}/{step}/{kind}")),
            "kind": kind,
            "event_id": action.get("event_id"),
            "policy": action.get("policy", ""),
            "step": action.get("step", step),
            "position": position,
            "mode": mode,
            **facts,
        }
    )
