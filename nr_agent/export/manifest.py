"""What an export is: its manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from nr_agent.episode import Record
from nr_agent.export.contamination import NGRAM, Benchmark
from nr_agent.export.files import Files
from nr_agent.export.formats import UNTRAINED, Format
from nr_agent.export.masks import MASKS, Mask

MANIFEST = "manifest.json"
CARD = "README.md"
LINEAGE = "lineage.jsonl"
TEMPLATE = "chat_template.jinja"


class ExportedFile(Record):
    """A file of an export."""

    name: str
    sha256: str
    bytes: int


class ExportedModel(Record):
    """A model whose episodes are in an export."""

    name: str
    fingerprint: str
    rows: int


class Lengths(Record):
    """Row lengths in tokens: quantiles."""

    minimum: int
    median: int
    p90: int
    p99: int
    maximum: int


class Manifest(Record):
    """What an export is and how it was made. Nothing in it depends on when or where it was made.

    Attributes:
        schema_version: version of this record's form.
        export_id: a hash of everything else: the same rows, made in the same way, have the same id.
        format: of the rows.
        mask: the preset.
        mask_effect: what it did in this format.
        outcome: which outcomes were let in.
        filter: which episodes were asked for.
        episodes: how many there were.
        rows: how many of them became rows.
        refused: how many did not, by reason.
        duplicates: rows whose content another row has too.
        tokens: in all rows.
        trained_tokens: that are trained on.
        interventions: in the episodes of the rows, by kind.
        lengths: of the rows; training must allow for the longest, or it loses the recoveries.
        models: whose episodes these are.
        files_as: what the rows are kept in.
        splits: rows of each split; problems are split, so that no problem is in two of them.
        clean_rows: rows of episodes without any intervention.
        mix_clean: the share of those that was asked for, at most.
        against: benchmark files that problems were compared to.
        ngram: how many neighbouring words make an overlap.
        files: of the export, without the manifest itself.
    """

    schema_version: int = 2
    export_id: str = ""
    format: Format
    mask: Mask
    mask_effect: str
    outcome: str
    filter: dict[str, Any]
    episodes: int
    rows: int
    refused: dict[str, int] = Field(default_factory=dict)
    duplicates: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    interventions: dict[str, int] = Field(default_factory=dict)
    lengths: Lengths | None = None
    models: list[ExportedModel] = Field(default_factory=list)
    files_as: Files = "jsonl"
    splits: dict[str, int] = Field(default_factory=dict)
    clean_rows: int = 0
    mix_clean: float | None = None
    against: list[Benchmark] = Field(default_factory=list)
    ngram: int = NGRAM
    files: list[ExportedFile] = Field(default_factory=list)

    def to_json(self) -> str:
        """As it is written: indented, with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def describe_mask(format: Format, mask: Mask) -> str:
    """What a mask does in a format."""
    if format in UNTRAINED:
        return "this format tells what happened, and masks nothing"
    if format == "preference":
        triggers = "are in the chosen text" if mask in ("internalize", "full") else "are left out"
        return f"preference trainers count every token of a pair; inserted tokens {triggers}"
    if format == "messages" and mask != "clean":
        return "a message has no mask inside: failed steps and inserted tokens are in it, and are trained like the rest"
    return MASKS[mask]


def measure_lengths(lengths: Sequence[int]) -> Lengths | None:
    """Quantiles of row lengths (nearest rank), None for no rows."""
    if not lengths:
        return None
    ordered = sorted(lengths)
    at = [ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (0, 50, 90, 99, 100)]
    return Lengths(minimum=at[0], median=at[1], p90=at[2], p99=at[3], maximum=at[4])
