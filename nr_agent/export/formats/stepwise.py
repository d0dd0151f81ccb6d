"""Steps and the first wrong one, in the shape of ProcessBench: for process reward models and for judges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from nr_agent.episode import Episode, Step
from nr_agent.export.forks import changed_steps, find_forks
from nr_agent.export.masks import Mask
from nr_agent.export.rows import Codec, Refused, Row, check_whole, lineage_of, question_of, step_text

_UNCLEAR = "whether a step is wrong is not known"


class StepwiseRow(TypedDict):
    """A problem, its steps, and the index of the first wrong one; -1 where none is."""

    id: str
    generator: str
    problem: str
    steps: list[str]
    final_answer_correct: bool | None
    label: int


def build(episode: Episode, mask: Mask, codec: Codec | None) -> list[Row]:
    """The line that was kept, and a line for each wrong step that was taken back.

    A step is wrong when a recheck of it came out differently. A line is without a fault when its answer is right
    and no recheck of it stayed unclear; where neither is known there is no row. What the controller inserted is no
    step and is left out.
    """
    check_whole(episode)
    question = question_of(episode)
    wrong = changed_steps(episode)
    thoughts = [step for step in episode.kept if step.kind == "think"]
    rows = []
    for fork in find_forks(episode):
        if fork.wrong and fork.discarded:
            # Up to the wrong step, and no further: what came after it is unknown.
            before = [step for step in thoughts if step.start < fork.start and step.index not in wrong]
            rows.append(_row(episode, question, [*before, fork.rejected[0]], wrong, codec, correct=None))
    if any(step.index in wrong for step in thoughts) or (episode.correct and not _unclear(episode)):
        rows.append(_row(episode, question, thoughts, wrong, codec, correct=episode.correct))
    if not rows:
        raise Refused(_UNCLEAR)
    return rows


def _row(
    episode: Episode, question: str, steps: list[Step], wrong: set[int], codec: Codec | None, *, correct: bool | None
) -> Row:
    texts = [(step.index, step_text(step, codec, inserted=False).strip()) for step in steps]
    texts = [(index, text) for index, text in texts if text]
    if not texts:
        raise Refused("no step of thinking")
    fields: StepwiseRow = {
        "id": f"{episode.id}:{texts[-1][0]}",
        "generator": episode.model,
        "problem": question,
        "steps": [text for _, text in texts],
        "final_answer_correct": correct,
        "label": next((place for place, (index, _) in enumerate(texts) if index in wrong), -1),
    }
    # Two episodes that thought the same make the same row: its content is what it says, not what it is called.
    content = {name: value for name, value in fields.items() if name not in ("id", "generator")}
    tokens = _count(steps)
    return Row(dict(fields), lineage_of(episode, content), tokens=tokens, trained=tokens)


def _unclear(episode: Episode) -> bool:
    rechecked = {one.outcome for one in episode.interventions if one.kind == "recheck"}
    return bool(rechecked - {"changed", "confirmed"})


def _count(steps: Iterable[Step]) -> int:
    return sum(step.count("model") for step in steps)
