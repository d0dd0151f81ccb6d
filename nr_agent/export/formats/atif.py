"""Trajectories in Harbor's Agent Trajectory Interchange Format (ATIF 1.8): what happened, in order, for other tools."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nr_agent.episode import Episode, Step
from nr_agent.export.forks import Fork, find_forks
from nr_agent.export.masks import Mask
from nr_agent.export.rows import Codec, Row, check_whole, lineage_of, made_by

SCHEMA = "ATIF-v1.8"


def build(episode: Episode, mask: Mask, codec: Codec | None) -> list[Row]:
    """One trajectory: the kept line, failure events as system steps, inserted tokens as steps without a model call.

    A line that was given up is a sub-trajectory, referred to where it parted. A step that holds both inserted and
    sampled tokens becomes two where a tokenizer can cut its text; else it stays one, and `extra` holds its provenance.
    """
    check_whole(episode)
    forks = [fork for fork in find_forks(episode) if fork.discarded]
    steps: list[dict[str, Any]] = [
        {
            "source": "user",
            "message": episode.problem.text,
            **({"timestamp": episode.created_at.isoformat()} if episode.created_at else {}),
        }
    ]
    for step in episode.kept[1:]:
        # The line that lost was thought before the one that was kept.
        steps += [_lost(episode, fork) for fork in forks if fork.start == step.start]
        steps += _agent(step, codec)
        steps += _seen(episode, [step])
    fields: dict[str, Any] = {
        "schema_version": SCHEMA,
        "trajectory_id": episode.id,
        "agent": _agent_of(episode),
        "steps": _numbered(steps),
        "final_metrics": {
            "total_prompt_tokens": episode.usage.prompt,
            "total_completion_tokens": episode.usage.output,
            "total_steps": len(steps),
            "extra": {"usage": episode.usage.model_dump(mode="json")},
        },
        "extra": {
            "status": episode.status,
            "stop_reason": episode.stop_reason,
            "answer": episode.answer,
            "correct": episode.correct,
            "reference": episode.problem.reference,
            "domain": episode.problem.domain,
            "task": episode.problem.task,
            "seed": episode.seed,
        },
    }
    if episode.thread_id is not None:
        fields["session_id"] = episode.thread_id
    if forks:
        fields["subagent_trajectories"] = [_branch(episode, fork, codec) for fork in forks]
    tokens = sum(len(step.ids) for step in episode.steps)
    return [Row(fields, lineage_of(episode, fields), tokens=tokens, trained=0)]


def _agent(step: Step, codec: Codec | None) -> list[dict[str, Any]]:
    """The steps of an agent that a step is: what was inserted, and what the model said."""
    place = {"step": step.index, "branch": step.branch, "kind": step.kind}
    parts: list[dict[str, Any]] = []
    for inserted, ids, text, logprobs in _parts(step, codec):
        if inserted:
            parts.append(
                {
                    "source": "agent",
                    "message": text,
                    "llm_call_count": 0,
                    "extra": {**place, "provenance": "inserted", "token_ids": ids},
                }
            )
            continue
        metrics: dict[str, Any] = {"completion_tokens": len(ids), "completion_token_ids": ids}
        if logprobs and None not in logprobs:
            metrics["logprobs"] = logprobs
        said = {"message": text} if step.kind == "answer" else {"message": "", "reasoning_content": text}
        extra = {**place, "provenance": step.provenance if step.count("inserted") and len(ids) == len(step.ids) else []}
        parts.append({"source": "agent", **said, "metrics": metrics, "llm_call_count": 1, "extra": extra})
    return parts


def _parts(step: Step, codec: Codec | None) -> Iterator[tuple[bool, list[int], str, list[float | None]]]:
    forced = step.count("inserted")
    if codec is None or forced in (0, len(step.ids)) or not made_by(codec, step):
        yield forced == len(step.ids) and forced > 0, step.ids, step.text, step.logprobs
        return
    start = 0
    for inserted, runs in itertools.groupby(step.provenance, key=lambda run: run[0] == "inserted"):
        end = start + sum(length for _, length in runs)
        yield inserted, step.ids[start:end], codec.decode(step.ids[start:end]), step.logprobs[start:end]
        start = end


def _seen(episode: Episode, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """What the detectors saw in steps, and what was done about it."""
    places = {step.index for step in steps}
    found: list[dict[str, Any]] = []
    for event in episode.events:
        if event.step in places:
            said = f"{event.level} / {event.kind}: score {event.score:.3f} over {event.threshold:.3f}"
            found.append(
                {
                    "source": "system",
                    "message": "failure event",
                    "observation": {"results": [{"content": said, "extra": event.to_state()}]},
                }
            )
    for action in episode.interventions:
        if action.step in places:
            said = f"{action.kind} by {action.policy}: {action.outcome}"
            result = {"content": said, "extra": action.model_dump(mode="json")}
            found.append({"source": "system", "message": "intervention", "observation": {"results": [result]}})
    return found


def _lost(episode: Episode, fork: Fork) -> dict[str, Any]:
    reference = {"subagent_trajectory_ref": [{"trajectory_id": _name(episode, fork)}]}
    return {"source": "system", "message": "a line of thought was given up", "observation": {"results": [reference]}}


def _branch(episode: Episode, fork: Fork, codec: Codec | None) -> dict[str, Any]:
    steps = [part for step in fork.rejected for part in [*_agent(step, codec), *_seen(episode, [step])]]
    return {
        "schema_version": SCHEMA,
        "trajectory_id": _name(episode, fork),
        "agent": _agent_of(episode),
        "steps": _numbered(steps),
        "extra": {"parted_at": fork.start, "wrong": fork.wrong},
    }


def _name(episode: Episode, fork: Fork) -> str:
    return f"{episode.id}:{fork.rejected[0].index}"


def _agent_of(episode: Episode) -> dict[str, Any]:
    settings = {"fingerprint": episode.fingerprint, "detector": episode.detector, "policy": episode.policy}
    try:
        own = version("nr-agent")
    except PackageNotFoundError:
        own = "unknown"
    return {"name": "nr_agent", "version": own, "model_name": episode.model, "extra": settings}


def _numbered(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"step_id": number, **step} for number, step in enumerate(steps, 1)]
