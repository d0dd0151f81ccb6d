"""The nodes `branch`, `explore` and `choose`: leave a line of thought for the best of several others."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Send

from nr_agent.answers import states_answer
from nr_agent.engine.fresh import pieces
from nr_agent.engine.protocol import ExtendRequest, Segment, SequenceRef
from nr_agent.episode import Intervention
from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.control import Control, count_intervention
from nr_agent.graphs.memory import KEPT
from nr_agent.graphs.parts import Parts, make_intervention
from nr_agent.graphs.state import Candidate, Channels, Fork, ReasonerState
from nr_agent.graphs.thinking import Thinker

STRIDE = 2
"""Indices that a fork's step may take: one for the thought, one for the closing behind it."""


class Branch:
    """Fork the sequence at the last good step, once for each new line of thought.

    Reads `sequence`, `boundaries`, `action`; writes `forks`, `boundaries`, `remedy`, `counters`. The steps that are
    given up are marked as discarded.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.control = Control(parts)

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """Open the forks."""
        with self.parts.guard(state["episode_id"]):
            return self._fork(state)

    def _fork(self, state: ReasonerState) -> dict[str, Any]:
        episode_id, counters = state["episode_id"], state["counters"]
        width, back = int(state["action"]["width"]), int(state["action"]["back"])
        ref = self.parts.sequence(state)
        kept, given_up = _cut(state["boundaries"], back)
        at = given_up[0][1] if given_up else ref.length
        before = given_up[0][0] if given_up else None
        # Before they are given up: they are not to be written again either.
        sampling = self._fresh(state) if state["action"]["fresh"] else state["sampling"]
        self.parts.store.discard(episode_id, [index for index, _ in given_up])
        forks: list[Fork] = []
        number, pending = counters["forks"], self.parts.remedies.branch()
        for k in range(width):
            seed = state["seed"] + number + k + 1
            fork = self.parts.engine.fork(ref, at=at, seed=seed)
            branch = f"branch-{number + k + 1}"
            self.parts.memory.fork(episode_id, state["branch"], branch, before=before)
            if not forks:
                pending = self.parts.remedies.branch(boundary=self.parts.at_boundary(fork))
            forks.append(
                {
                    "episode_id": episode_id,
                    "branch": branch,
                    "sequence": self.parts.hold(episode_id, fork),
                    "seed": seed,
                    "sampling": sampling,
                    "next_index": state["next_index"] + STRIDE * k,
                    "before": state["next_index"],
                    "pending": pending,
                    "max_new": self.control.step_length(state, pending, forks=width),
                }
            )
        intervention = make_intervention(
            state,
            "branch",
            mode=self.parts.remedies.mode,
            position=at,
            inserted=pending,
            rolled_back=ref.length - at,
            branches=[fork["branch"] for fork in forks],
        )
        self.parts.store.add(episode_id, intervention)  # the stream is told when the choice is made
        return {
            "sequence": self.parts.hold(episode_id, ref),
            "boundaries": kept,
            "forks": forks,
            "candidates": None,
            "remedy": intervention.model_dump(mode="json"),
            "answered": self.parts.answered(episode_id) if given_up else state["answered"],
            "counters": {**count_intervention(counters, "branch"), "forks": number + width},
        }

    def _fresh(self, state: ReasonerState) -> dict[str, Any]:
        """The sampling of a step that is another one than those that stand there."""
        kept = self.parts.episode(state["episode_id"]).kept
        thought = [(step.ids, step.logprobs) for step in kept if step.kind == "think"]
        sampling: dict[str, Any] = state["sampling"]
        return {**sampling, "avoid": [*sampling["avoid"], *pieces(thought)]}


def send_forks(channels: Channels) -> list[Send]:
    """One `explore` for each fork."""
    return [Send("explore", fork) for fork in channels["course"]["forks"]]


class Explore:
    """Think one step in a fork.

    Reads what `Send` brought; writes `candidates`.
    """

    beside_others = True

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.thinker = Thinker(parts)

    def prepare(self, state: Any) -> ExtendRequest:
        """One step behind the branch token."""
        return self.thinker.request(state, state["max_new"])

    def finish(self, state: Any, segment: Segment | None, seconds: float) -> dict[str, Any]:
        """Record the step, and hand it in as a candidate."""
        assert segment is not None  # noqa: S101 - prepare always asks for one
        thought = self.thinker.take(state, segment)
        sampled = [logprob for logprob in segment.logprobs if logprob is not None]
        candidate: Candidate = {
            "branch": state["branch"],
            "sequence": segment.ref.model_dump(mode="json"),
            "seed": state["seed"],
            "boundary": thought.boundary,
            "indices": list(range(state["next_index"], thought.next_index)),
            "tokens": len(segment.ids),
            "seconds": seconds,
            "logprob": sum(sampled) / len(sampled) if sampled else float("-inf"),
            "scores": {str(level): float(score) for level, score in thought.look.scores.items()},
            "events": [event.to_state() for event in thought.look.events],
            "answered": states_answer(thought.text),
            "closed": thought.closed,
            "ended": thought.ended,
        }
        return {"candidates": [candidate]}


class Choose:
    """Keep the fork that the detector likes best, and of equals the one that the model was surest of.

    Reads `forks`, `candidates`; writes what `think` writes. The other forks are closed, their steps discarded.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.control = Control(parts)

    def __call__(self, state: ReasonerState, runtime: Runtime[ReasonerContext]) -> dict[str, Any]:
        """Choose, and decide what comes next."""
        with self.parts.guard(state["episode_id"]):
            return self._choose(state)

    def _choose(self, state: ReasonerState) -> dict[str, Any]:
        episode_id, counters, candidates = state["episode_id"], state["counters"], state["candidates"]
        best = min(candidates, key=rank)
        self._give_up(state, [candidate for candidate in candidates if candidate is not best])
        steps = counters["steps"] + len(candidates)
        update: dict[str, Any] = {
            "sequence": best["sequence"],
            "seed": best["seed"],
            "branch": best["branch"],
            "next_index": state["next_index"] + STRIDE * len(state["forks"]),
            "boundaries": [*state["boundaries"], best["boundary"]][-KEPT:],
            "pending": [],
            "remedy": None,
            "counters": {
                **counters,
                "steps": steps,
                "tokens": counters["tokens"] + sum(candidate["tokens"] for candidate in candidates),
                # They were thought side by side.
                "seconds": counters["seconds"] + max(candidate["seconds"] for candidate in candidates),
                # The step that was kept is the first after the intervention.
                "last_intervention": steps - 1,
            },
            "events": best["events"],
            "answered": state["answered"] or best["answered"],
            "closed": best["closed"],
            "forks": [],
            "candidates": None,
        }
        update |= self.control.after_step({**state, **update})
        if best["ended"]:
            update["next"] = "record"
        if state["remedy"] is not None:
            intervention = Intervention.model_validate(state["remedy"])
            self.parts.intervene(episode_id, intervention.model_copy(update={"kept": best["branch"]}))
        return update

    def _give_up(self, state: ReasonerState, others: list[Candidate]) -> None:
        episode_id = state["episode_id"]
        lost = {index for other in others for index in other["indices"]}
        # Whoever went back to the forks left steps behind them: no others than the forks' are known here.
        forks = {index for candidate in state["candidates"] for index in candidate["indices"]}
        there = {step.index for step in self.parts.episode(episode_id).kept if step.index >= state["next_index"]}
        self.parts.store.discard(episode_id, lost | (there - forks))
        for sequence in (state["sequence"], *(other["sequence"] for other in others)):
            self.parts.close(episode_id, SequenceRef.model_validate(sequence))
        kept = next(c["branch"] for c in state["candidates"] if all(c is not other for other in others))
        self.parts.memory.keep(episode_id, kept)


def rank(candidate: Candidate) -> tuple[int, float, float, str]:
    """The lowest is the best: fewest events, then lowest highest score, then likeliest, then first."""
    scores = candidate["scores"].values()
    return len(candidate["events"]), max(scores, default=0.0), -candidate["logprob"], candidate["branch"]


def _cut(boundaries: list[list[int]], back: int) -> tuple[list[list[int]], list[list[int]]]:
    """The boundaries that stay, and those that are given up: the last `back`, as far as there are any."""
    stay = max(0, len(boundaries) - back)
    return boundaries[:stay], boundaries[stay:]
