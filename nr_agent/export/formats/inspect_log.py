"""Samples of an Inspect evaluation log: for `inspect view`, its data frames, and what imports them."""

from __future__ import annotations

from typing import Any

from nr_agent.episode import Episode
from nr_agent.export.masks import Mask
from nr_agent.export.rows import Codec, Row, check_whole, lineage_of
from nr_agent.tokens import END_THINK, THINK

_VALUES = {True: "C", False: "I"}
_REASONS = {"token_budget": "max_tokens", "context": "model_length"}


def build(episode: Episode, mask: Mask, codec: Codec | None) -> list[Row]:
    """One sample: problem, reasoning and answer, its score, and what was seen and done as events."""
    check_whole(episode)
    answer = {
        "role": "assistant",
        "content": [{"type": "reasoning", "reasoning": _thoughts(episode)}, {"type": "text", "text": _said(episode)}],
        "source": "generate",
        "model": episode.model,
    }
    usage = episode.usage
    counts = {
        "input_tokens": usage.prompt,
        "output_tokens": usage.output,
        "total_tokens": usage.total,
        "reasoning_tokens": usage.output - usage.answer,
    }
    fields: dict[str, Any] = {
        "id": episode.id,
        "epoch": 1,
        "uuid": episode.id,
        "input": episode.problem.text,
        "target": episode.problem.reference or "",
        "messages": [{"role": "user", "content": episode.problem.text, "source": "input"}, answer],
        "output": {
            "model": episode.model,
            "choices": [{"message": answer, "stop_reason": _REASONS.get(episode.stop_reason or "", "stop")}],
            "usage": counts,
        },
        "model_usage": {episode.model: counts},
        "metadata": {
            "domain": episode.problem.domain,
            "task": episode.problem.task,
            "fingerprint": episode.fingerprint,
            "detector": episode.detector,
            "policy": episode.policy,
            "seed": episode.seed,
            "stop_reason": episode.stop_reason,
        },
        "events": _events(episode),
    }
    if episode.correct is not None:
        fields["scores"] = {"correct": {"value": _VALUES[episode.correct], "answer": episode.answer}}
    if episode.created_at and episode.ended_at:
        fields["started_at"] = episode.created_at.isoformat()
        fields["completed_at"] = episode.ended_at.isoformat()
        fields["total_time"] = (episode.ended_at - episode.created_at).total_seconds()
    if episode.error is not None:
        fields["error"] = {"message": episode.error, "traceback": "", "traceback_ansi": ""}
    tokens = sum(len(step.ids) for step in episode.steps)
    return [Row(fields, lineage_of(episode, fields), tokens=tokens, trained=0)]


def _thoughts(episode: Episode) -> str:
    text = "".join(step.text for step in episode.kept if step.kind != "prompt")
    return text.partition(END_THINK)[0].removeprefix(f"{THINK}\n").strip()


def _said(episode: Episode) -> str:
    text = "".join(step.text for step in episode.kept if step.kind != "prompt")
    return text.partition(END_THINK)[2].strip()


def _events(episode: Episode) -> list[dict[str, Any]]:
    when = {"timestamp": episode.created_at.isoformat()} if episode.created_at else {}
    events: list[dict[str, Any]] = []
    for step in episode.steps:
        values = step.model_dump(mode="json", exclude={"ids", "logprobs", "readings"})
        seen: list[tuple[str, dict[str, Any]]] = [("step", values)] if step.kind != "prompt" else []
        seen += [("failure", one.to_state()) for one in episode.events if one.step == step.index]
        seen += [
            ("intervention", one.model_dump(mode="json")) for one in episode.interventions if one.step == step.index
        ]
        events += [{"event": "info", **when, "source": f"nr_agent/{what}", "data": data} for what, data in seen]
    return events
