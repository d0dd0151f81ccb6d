"""Write an export: into a folder beside the target first, so that there is all of it or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nr_agent.episode import Episode
from nr_agent.errors import ConfigurationError, ExportError
from nr_agent.export.formats import FORMATS, Format, build_rows
from nr_agent.export.manifest import (
    CARD,
    DATA,
    LINEAGE,
    MANIFEST,
    TEMPLATE,
    ExportedFile,
    ExportedModel,
    Manifest,
    describe_mask,
    measure_lengths,
    write_card,
)
from nr_agent.export.masks import MASKS, Mask
from nr_agent.export.rows import Codec, Refused, Row
from nr_agent.tokens import TURN_START

if TYPE_CHECKING:
    from nr_agent.store import EpisodeFilter, EpisodeStore

Outcome = Literal["correct", "wrong", "any"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "any")

TRAINING_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>\\n' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}"
)
"""The embedded LRM's chat template for training: thoughts stay, and what the assistant says is marked."""


def export(
    store: EpisodeStore,
    out: str | Path,
    *,
    format: Format = "messages",
    mask: Mask = "respond",
    outcome: Outcome = "correct",
    filter: EpisodeFilter | None = None,
    overwrite: bool = False,
    codec: Codec | None = None,
) -> Manifest:
    """Write the finished episodes of a store as training data.

    The same episodes and options give the same bytes.

    Args:
        store: where the episodes are.
        out: folder to write.
        format: of the rows.
        mask: what is trained on.
        outcome: which outcomes are let in.
        filter: which episodes; completed ones unless it names a status.
        overwrite: replace an export that is there.
        codec: of the model that thought the episodes; `clean` needs it.

    Raises:
        ExportError: the folder cannot be written, or is there already.
        ConfigurationError: there is no such format, mask or outcome, or they do not go together.
    """
    check_choices(format, mask, outcome)
    target = _check_target(Path(out), overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error}", hint="choose another folder with --out") from error
    try:
        manifest = _write(folder, store, format, mask, outcome, filter, codec)
        _put_in_place(folder, target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error}", hint="choose another folder with --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def select_episodes(
    store: EpisodeStore,
    outcome: Outcome = "correct",
    filter: EpisodeFilter | None = None,
) -> Iterator[Episode]:
    """The episodes that an export would look at, by id."""
    from nr_agent.store import EpisodeFilter  # noqa: PLC0415 - imports SQLAlchemy

    wanted = filter or EpisodeFilter()
    wanted = wanted if wanted.status is not None else wanted.model_copy(update={"status": "completed"})
    if outcome != "any":
        wanted = wanted.model_copy(update={"correct": outcome == "correct"})
    # Ids first: an episode that is added meanwhile does not change what is exported.
    ids = sorted(summary.id for summary in store.find(wanted))
    return (store.get(episode_id) for episode_id in ids)


def check_choices(format: str, mask: str, outcome: str) -> None:
    """See that there is such a format, mask and outcome.

    Raises:
        ConfigurationError: there is not.
    """
    choices: tuple[tuple[str, str, list[str]], ...] = (
        ("format", format, list(FORMATS)),
        ("mask", mask, list(MASKS)),
        ("outcome", outcome, list(OUTCOMES)),
    )
    for name, value, known in choices:
        if value not in known:
            raise ConfigurationError(f"there is no {name} {value!r}", hint=f"choose from: {', '.join(known)}")


class _Counts:
    """What the manifest says about the rows."""

    def __init__(self) -> None:
        self.episodes = 0
        self.refused: Counter[str] = Counter()
        self.hashes: Counter[str] = Counter()
        self.lengths: list[int] = []
        self.trained = 0
        self.interventions: Counter[str] = Counter()
        self.models: Counter[tuple[str, str]] = Counter()
        self.chatml = True

    def add(self, episode: Episode, row: Row) -> None:
        self.hashes[row.lineage["nr_content_hash"]] += 1
        self.lengths.append(row.tokens)
        self.trained += row.trained
        self.interventions.update(one.kind for one in episode.interventions)
        self.models[episode.model, episode.fingerprint] += 1
        self.chatml = self.chatml and episode.kept[0].text.startswith(TURN_START)


def _write(
    folder: Path,
    store: EpisodeStore,
    format: Format,
    mask: Mask,
    outcome: Outcome,
    filter: EpisodeFilter | None,
    codec: Codec | None,
) -> Manifest:
    counts = _write_rows(folder, select_episodes(store, outcome, filter), format, mask, codec)
    template = format in ("messages", "axolotl") and counts.chatml and bool(counts.lengths)
    if template:
        (folder / TEMPLATE).write_text(TRAINING_TEMPLATE, encoding="utf-8")
    manifest = Manifest(
        format=format,
        mask=mask,
        mask_effect=describe_mask(format, mask),
        outcome=outcome,
        filter=filter.model_dump(mode="json", exclude_none=True) if filter else {},
        episodes=counts.episodes,
        rows=len(counts.lengths),
        refused=dict(sorted(counts.refused.items())),
        duplicates=len(counts.lengths) - len(counts.hashes),
        tokens=sum(counts.lengths),
        trained_tokens=counts.trained,
        interventions=dict(sorted(counts.interventions.items())),
        lengths=measure_lengths(counts.lengths),
        models=[
            ExportedModel(name=name, fingerprint=fingerprint, rows=rows)
            for (name, fingerprint), rows in sorted(counts.models.items())
        ],
        files=_files(folder),
    )
    manifest = manifest.model_copy(update={"export_id": hashlib.sha256(manifest.to_json().encode()).hexdigest()[:16]})
    (folder / CARD).write_text(write_card(manifest, template=template), encoding="utf-8")
    manifest = manifest.model_copy(update={"files": _files(folder)})
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _write_rows(
    folder: Path,
    episodes: Iterator[Episode],
    format: Format,
    mask: Mask,
    codec: Codec | None,
) -> _Counts:
    counts = _Counts()
    # Trainers that read `input_ids` want these columns and no others: where a row comes from is told beside it.
    apart = format == "pretokenized"
    lineage = (folder / LINEAGE).open("w", encoding="utf-8", newline="\n") if apart else None
    try:
        with (folder / DATA).open("w", encoding="utf-8", newline="\n") as data:
            for episode in episodes:
                counts.episodes += 1
                try:
                    rows = build_rows(episode, format, mask, codec)
                except Refused as reason:
                    counts.refused[str(reason)] += 1
                    continue
                for row in rows:
                    data.write(_line(row.fields if apart else row.fields | row.lineage))
                    if lineage is not None:
                        lineage.write(_line(row.lineage))
                    counts.add(episode, row)
    finally:
        if lineage is not None:
            lineage.close()
    return counts


def _line(values: dict[str, object]) -> str:
    # JSON leaves these two line separators alone, and some readers split lines at them.
    line = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return line.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085") + "\n"


def _files(folder: Path) -> list[ExportedFile]:
    files = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append(ExportedFile(name=path.name, sha256=digest, bytes=path.stat().st_size))
    return files


def _check_target(out: Path, *, overwrite: bool) -> Path:
    target = out.expanduser().absolute()
    if target.is_symlink():
        raise ExportError(f"{target} is a link", hint="give the folder itself")
    if not target.exists():
        return target
    if not overwrite:
        raise ExportError(f"{target} is there already", hint="choose another folder, or replace it with --overwrite")
    # What is no export is never deleted.
    if not (target / MANIFEST).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise ExportError(f"{target} holds something else than an export", hint="choose another folder")
    return target


def _put_in_place(folder: Path, target: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        _sync(path)
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.replace(old / target.name)
        try:
            folder.replace(target)
        except OSError:
            (old / target.name).replace(target)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    else:
        folder.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
