"""Look at an export as a trainer will: with the target's tokenizer and template."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nr_agent.episode import Record
from nr_agent.errors import ExportError
from nr_agent.export.files import file_name, read_rows
from nr_agent.export.manifest import LINEAGE, MANIFEST, TEMPLATE, Manifest
from nr_agent.export.masks import IGNORED
from nr_agent.tokens import CORRECTION_TOKENS

_HINT = "export with the tokenizer of the model that is to be trained, or add the correction tokens to it"


class Verification(Record):
    """What was looked at.

    Attributes:
        rows: how many rows hold.
        correction_tokens: that came back as one id each.
        longest: the longest row, in tokens of this tokenizer.
    """

    rows: int
    correction_tokens: int
    longest: int


def verify(folder: str | Path, tokenizer: Any, *, chat_template: str | None = None) -> Verification:
    """Encode every row of an export again.

    Args:
        folder: with the export.
        tokenizer: a `PreTrainedTokenizer` of the model that is to be trained.
        chat_template: that the trainer will use; by default the export's own, else the tokenizer's.

    Raises:
        ExportError: a file was changed, or in some row a correction token is lost, nothing is trained, the
            thinking is dropped, or ids and text differ. It names the row.
    """
    place = Path(folder).expanduser()
    manifest = read_manifest(place)
    correction = longest = rows = 0
    for number, ids, text in _rows(place, manifest, tokenizer, chat_template):
        if manifest.format == "pretokenized":
            # The ids are what is trained on: a problem may speak of a token without holding it.
            correction += _count_correction(ids, tokenizer)
        else:
            correction += _check_correction(number, ids, text, tokenizer)
        decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if decoded != text:
            raise ExportError(
                f"row {number}: its ids do not decode to its text ({_difference(decoded, text)})", hint=_HINT
            )
        rows, longest = number, max(longest, len(ids))
    if rows != manifest.rows:
        raise ExportError(f"{place} has {rows} rows, its manifest says {manifest.rows}", hint="export again")
    return Verification(rows=rows, correction_tokens=correction, longest=longest)


def _rows(
    place: Path, manifest: Manifest, tokenizer: Any, chat_template: str | None
) -> Iterator[tuple[int, list[int], str]]:
    """Each row's number, ids and text, after the checks of its format. A row may have more than one text."""
    if manifest.format in ("atif", "inspect"):
        yield from _told(place, manifest)
        return
    own = place / TEMPLATE
    template = chat_template or (own.read_text(encoding="utf-8") if own.is_file() else None)
    for number, (row, lineage) in enumerate(_numbered(place, manifest), 1):
        if manifest.format == "pretokenized":
            _check_labels(number, row, len(tokenizer))
            yield number, row["input_ids"], lineage["nr_text"]
            continue
        for text in _texts(number, row, manifest, tokenizer, template):
            yield number, list(tokenizer(text, add_special_tokens=False)["input_ids"]), text


def _numbered(place: Path, manifest: Manifest) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The rows of all splits, with their lineage where that is told apart."""
    path = place / LINEAGE
    for split in manifest.splits or {"train": manifest.rows}:
        rows = read_rows(place / file_name(manifest.format, manifest.files_as, split))
        if not path.is_file():
            yield from ((row, row) for row in rows)
            continue
        own = (one for one in read_rows(path) if one.get("nr_split", "train") == split)
        yield from zip(rows, own, strict=True)


def _texts(number: int, row: dict[str, Any], manifest: Manifest, tokenizer: Any, template: str | None) -> list[str]:
    """The texts that a trainer will encode."""
    if manifest.format == "preference":
        if row["chosen"] == row["rejected"]:
            raise ExportError(f"row {number}: the two are the same", hint="export again")
        return [row["prompt"] + row[name] for name in ("chosen", "rejected")]
    if manifest.format == "stepwise":
        if not -1 <= row["label"] < len(row["steps"]):
            raise ExportError(f"row {number}: its label is no step", hint="export again")
        return ["\n\n".join(row["steps"])]
    turns = [turn | {"content": _join(number, turn)} for turn in row["messages"]]
    text = str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))
    said = turns[-1]["content"]
    if not said.strip():
        raise ExportError(f"row {number}: the assistant says nothing, so nothing is trained", hint="export again")
    if said not in text:
        raise ExportError(
            f"row {number}: the chat template drops the thinking, and the correction tokens with it",
            hint=f"train with a template that keeps it (an export of a ChatML model brings {TEMPLATE})",
        )
    return [text]


def _told(place: Path, manifest: Manifest) -> Iterator[tuple[int, list[int], str]]:
    """What tells and does not train is counted, and must not be cut short; there are no texts to encode."""
    for number, (row, lineage) in enumerate(_numbered(place, manifest), 1):
        name = row["trajectory_id"] if manifest.format == "atif" else row["id"]
        if name != lineage["nr_episode_id"]:
            raise ExportError(f"row {number} is {name}, its lineage tells of another episode", hint="export again")
        yield number, [], ""


def _join(number: int, turn: dict[str, Any]) -> str:
    """What a turn says; of one in parts, some of it must be trained where the assistant speaks."""
    content = turn["content"]
    if isinstance(content, str):
        return content
    if turn["role"] == "assistant" and not any(part["train"] and part["text"].strip() for part in content):
        raise ExportError(f"row {number}: nothing is trained", hint="export again with another mask")
    return "".join(part["text"] for part in content)


def _check_labels(number: int, row: dict[str, Any], vocabulary: int) -> None:
    ids, labels = row["input_ids"], row["labels"]
    if not len(ids) == len(labels) == len(row["attention_mask"]):
        raise ExportError(f"row {number}: ids, labels and attention mask differ in length", hint="export again")
    if any(label not in (IGNORED, token) for token, label in zip(ids, labels, strict=True)):
        raise ExportError(f"row {number}: a label is not its token", hint="export again")
    # A model predicts the next token: the first label is never used.
    if all(label == IGNORED for label in labels[1:]):
        raise ExportError(f"row {number}: nothing is trained", hint="export again with another mask")
    if not all(0 <= token < vocabulary for token in ids):
        raise ExportError(f"row {number}: an id is not in the tokenizer's vocabulary", hint=_HINT)


def _check_correction(number: int, ids: list[int], text: str, tokenizer: Any) -> int:
    added = tokenizer.get_added_vocab()
    found = 0
    for token in CORRECTION_TOKENS:
        written = text.count(token)
        if not written:
            continue
        got = ids.count(added[token]) if token in added else 0
        if got != written:
            raise ExportError(
                f"row {number}: {token} is in the text {written} times, and comes back as its one id {got} times",
                hint=_HINT,
            )
        found += got
    return found


def _count_correction(ids: list[int], tokenizer: Any) -> int:
    added = tokenizer.get_added_vocab()
    return sum(ids.count(added[token]) for token in CORRECTION_TOKENS if token in added)


def read_manifest(place: Path) -> Manifest:
    """The manifest of an export whose files are as they were written.

    Raises:
        ExportError: it is none, or a file was changed.
    """
    try:
        manifest = Manifest.model_validate_json((place / MANIFEST).read_bytes())
        for file in manifest.files:
            if hashlib.sha256((place / file.name).read_bytes()).hexdigest() != file.sha256:
                raise ExportError(f"{place / file.name} was changed after the export", hint="export again")
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{place} is no export: {reason}", hint="give a folder that nr-agent export wrote") from error
    return manifest


def _difference(one: str, other: str) -> str:
    at = next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return f"at character {at}: {one[at : at + 20]!r} and {other[at : at + 20]!r}"
