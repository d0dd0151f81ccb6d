"""Episodes as an engine with this tokenizer would have made them."""

from __future__ import annotations

from typing import Any

from nr_agent.engine.protocol import TextCodec
from nr_agent.episode import Episode, Intervention, Problem, Step, measure_usage
from nr_agent.events import FailureEvent, InstanceFailure, IntraStepFailure
from nr_agent.tokens import CLOSING_SENTENCE

QUESTION = "What is 12 + 35?"
SLIP, RIGHT, RECHECKED = "12 + 35 = 46\n\n", "12 + 35 = 47\n\n", "<|recheck|>"
CLOSING = f"{CLOSING_SENTENCE}\n\n</think>\n\n"
ANSWER = "The final answer is \\boxed{47}.<|im_end|>"

Pieces = list[tuple[str, str]]
"""A step's text in pieces of one provenance: `m` by the model, `i` inserted."""


def make_episode(
    codec: TextCodec,
    thoughts: list[Pieces],
    answer: Pieces,
    *,
    episode_id: str = "e1",
    question: str = QUESTION,
    discarded: tuple[int, ...] = (),
    **fields: Any,
) -> Episode:
    """A completed, right episode; `thoughts[0]` is step 1."""
    prompt = codec.render([{"role": "user", "content": question}])
    parts = [("prompt", prompt, [("prompt", len(prompt))])]
    for kind, pieces in [*(("think", one) for one in thoughts), ("answer", answer)]:
        encoded = [(who, codec.encode(text)) for who, text in pieces]
        runs = [({"m": "model", "i": "inserted"}[who], len(ids)) for who, ids in encoded]
        parts.append((kind, [token for _, ids in encoded for token in ids], runs))
    steps, position = [], 0
    for index, (kind, ids, runs) in enumerate(parts):
        gone = index in discarded
        values = {"index": index, "kind": kind, "start": position, "ids": ids, "provenance": runs, "discarded": gone}
        steps.append(Step.model_validate({**values, "text": codec.decode(ids)}))
        position += 0 if gone else len(ids)
    values = {
        "problem": Problem(text=question, reference="47", domain="math", task="chain_sum", seed=1),
        "status": "completed",
        "stop_reason": "finished",
        "answer": "47",
        "correct": True,
        "model": "nano",
        "fingerprint": "f" * 64,
        "usage": measure_usage(steps),
    }
    return Episode(id=episode_id, steps=steps, **(values | fields))


def failure(step: int, *, level: str = "intra_step") -> FailureEvent:
    kind = IntraStepFailure if level == "intra_step" else InstanceFailure
    return kind(id=f"v{step}", step=step, position=1, score=0.9, threshold=0.5, detector="d")


def remedy(step: int, kind: str = "recheck", **fields: Any) -> Intervention:
    values = {"id": f"i{step}", "kind": kind, "event_id": f"v{step}", "policy": kind, "step": step, "position": 1}
    return Intervention.model_validate(values | fields)


def rechecked(codec: TextCodec, episode_id: str = "e1", **fields: Any) -> Episode:
    """A good step, a slip, its recheck, and the model's own closing."""
    fields = {"events": [failure(2)], "interventions": [remedy(2, outcome="changed")]} | fields
    thoughts = [[("m", "Let me add. 12, 35.\n\n")], [("m", SLIP)], [("i", RECHECKED), ("m", RIGHT)]]
    return make_episode(codec, thoughts, [("m", f"</think>\n\n{ANSWER}")], episode_id=episode_id, **fields)


def stopped(codec: TextCodec, episode_id: str = "e2", **fields: Any) -> Episode:
    """A step that was one too many; the controller closes the thinking."""
    fields = {"events": [failure(2, level="instance")], "interventions": [remedy(2, "stop", outcome="closed")]} | fields
    thoughts = [[("m", RIGHT)], [("m", "So 47. Or not.\n\n")]]
    return make_episode(codec, thoughts, [("i", CLOSING), ("m", ANSWER)], episode_id=episode_id, **fields)
