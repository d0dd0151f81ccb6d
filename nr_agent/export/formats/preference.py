"""Pairs at a fork: what was kept, and what was given up, after the same beginning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from nr_agent.episode import Episode, Step
from nr_agent.export.forks import changed_steps, find_forks
from nr_agent.export.masks import Mask
from nr_agent.export.rows import Codec, Refused, Row, check_whole, lineage_of, question_of, step_text


class PreferenceRow(TypedDict):
    """A pair. Plain text and no messages: the prompt may end in the middle of an assistant's turn."""

    prompt: str
    chosen: str
    rejected: str


def build(episode: Episode, mask: Mask, codec: Codec | None) -> list[Row]:
    """A row for each line of thought that was given up, and for each step that a recheck changed.

    A step that was taken back and came out the same is no loser: it makes no row.

    The chosen text goes on to the end of the turn: trainers write an end there, and an end in the middle of a
    thought would be learnt. Preference trainers have no masks, and count every token of the two. With `internalize`
    and `full`, tokens that the controller inserted are in the chosen text, so that they are preferred; with
    `respond` and `clean` they are left out. Steps that a recheck changed in place are left out of the prompt and
    of the chosen text, whatever the mask: after them there is nothing to prefer.
    """
    check_whole(episode)
    question_of(episode)  # as text, it must not become a control token
    inserted = mask in ("internalize", "full")
    wrong = changed_steps(episode)
    line = [step for step in episode.kept if step.index not in wrong]
    rows: dict[str, Row] = {}
    for fork in find_forks(episode):
        if fork.confirmed and len(fork.rejected) == 1:
            continue
        # Without the step that it corrects, a trigger in the text would follow nothing.
        with_triggers = inserted and fork.discarded
        before = [step for step in line if step.start < fork.start]
        after = [step for step in line if step.start >= fork.start]
        fields: PreferenceRow = {
            "prompt": _text(before, codec, inserted=inserted),
            "chosen": _text(after, codec, inserted=with_triggers),
            "rejected": _text(fork.rejected, codec, inserted=with_triggers),
        }
        if not fields["chosen"] or not fields["rejected"] or fields["chosen"].startswith(fields["rejected"]):
            continue
        lengths = [sum(len(step.ids) for step in part) for part in (before, after, fork.rejected)]
        row = Row(
            dict(fields),
            lineage_of(episode, dict(fields)),
            tokens=lengths[0] + max(lengths[1:]),
            trained=lengths[1] + lengths[2],
        )
        rows.setdefault(row.lineage["nr_content_hash"], row)
    if not rows:
        raise Refused("no fork: nothing was given up")
    return list(rows.values())


def _text(steps: Iterable[Step], codec: Codec | None, *, inserted: bool) -> str:
    return "".join(step_text(step, codec, inserted=inserted) for step in steps)
