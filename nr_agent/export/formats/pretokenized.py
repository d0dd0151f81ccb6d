"""Ids and labels: what was thought, token by token."""

from __future__ import annotations

from typing import TypedDict

from nr_agent.episode import Episode
from nr_agent.export.masks import IGNORED, Mask
from nr_agent.export.rows import Codec, Row, check_ids, kept_spans, lineage_of, spell


class PretokenizedRow(TypedDict):
    """What trainers read that take ids, and nothing else."""

    input_ids: list[int]
    attention_mask: list[int]
    labels: list[int]


def build(episode: Episode, mask: Mask, codec: Codec | None) -> list[Row]:
    """All tokens, in one row."""
    kept = kept_spans(episode, mask, codec)
    ids = [token for span in kept for token in span.ids]
    check_ids(ids)
    labels = [token if span.treatment == "train" else IGNORED for span in kept for token in span.ids]
    fields: PretokenizedRow = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}
    lineage = lineage_of(episode, dict(fields)) | {"nr_text": "".join(spell(episode, kept, codec))}
    return [Row(dict(fields), lineage, tokens=len(ids), trained=sum(label != IGNORED for label in labels))]
