"""Write an export: into a folder beside the target first, so that there is all of it or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from nr_agent.episode import Episode
from nr_agent.errors import ExportError
from nr_agent.export.card import write_card
from nr_agent.export.configs import write_configs
from nr_agent.export.contamination import NGRAM, Decontamination
from nr_agent.export.files import Files, JsonLines, RowFile, file_name, open_rows
from nr_agent.export.formats import APART, Format, build_rows
from nr_agent.export.manifest import (
    CARD,
    LINEAGE,
    MANIFEST,
    TEMPLATE,
    ExportedFile,
    ExportedModel,
    Manifest,
    describe_mask,
    measure_lengths,
)
from nr_agent.export.masks import Mask
from nr_agent.export.rows import Codec, Refused, Row
from nr_agent.export.selection import Choices, Outcome, Split, choose_clean, select_episodes, split_of
from nr_agent.tokens import TURN_START

if TYPE_CHECKING:
    from nr_agent.store import EpisodeFilter, EpisodeStore

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
    files: Files | None = None,
    validation: float = 0.0,
    mix_clean: float | None = None,
    dedupe: bool = False,
    against: Sequence[str | Path] = (),
    ngram: int = NGRAM,
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
        files: `jsonl` or `parquet`; by default what the format is usually kept in.
        validation: share of the problems whose rows are put aside for validation.
        mix_clean: at most this share of the rows is from episodes without any intervention.
        dedupe: of rows with the same content, only the first stays.
        against: benchmark files; problems that overlap one of theirs are left out (`nr_agent.export.contamination`).
        ngram: how many neighbouring words make an overlap.
        overwrite: replace an export that is there.
        codec: of the model that thought the episodes; `clean` needs it.

    Raises:
        ExportError: the folder cannot be written, or is there already, or a benchmark file cannot be read.
        ConfigurationError: there is no such format, mask or outcome, or they do not go together.
    """
    choices = Choices(
        format=format,
        mask=mask,
        outcome=outcome,
        filter=filter,
        files=files,
        validation=validation,
        mix_clean=mix_clean,
        dedupe=dedupe,
        against=tuple(against),
        ngram=ngram,
    )
    choices.check()
    target = _check_target(Path(out), overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error}", hint="choose another folder with --out") from error
    try:
        manifest = _Writing(store, choices, codec).write(folder)
        _check_target(target, overwrite=overwrite)  # that took a while, and others write too
        _put_in_place(folder, target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error}", hint="choose another folder with --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


class _Counts:
    """What the manifest says about the rows."""

    def __init__(self, splits: Iterable[Split]) -> None:
        self.episodes = 0
        self.refused: Counter[str] = Counter()
        self.hashes: Counter[str] = Counter()
        self.lengths: list[int] = []
        self.trained = 0
        self.clean = 0
        self.splits: dict[str, int] = dict.fromkeys(splits, 0)
        self.interventions: Counter[str] = Counter()
        self.models: Counter[tuple[str, str]] = Counter()
        self.chatml = True

    def add(self, episode: Episode, row: Row, split: Split) -> None:
        self.hashes[row.lineage["nr_content_hash"]] += 1
        self.lengths.append(row.tokens)
        self.trained += row.trained
        self.clean += not episode.interventions
        self.splits[split] += 1
        self.interventions.update(one.kind for one in episode.interventions)
        self.models[episode.model, episode.fingerprint] += 1
        self.chatml = self.chatml and episode.kept[0].text.startswith(TURN_START)


class _Writing:
    """One export: what was chosen, and what came of it."""

    def __init__(self, store: EpisodeStore, choices: Choices, codec: Codec | None) -> None:
        self.store = store
        self.choices = choices
        self.codec = codec
        self.benchmarks = Decontamination(choices.against, ngram=choices.ngram)
        self.counts = _Counts(choices.splits)

    def write(self, folder: Path) -> Manifest:
        """Rows first, and then what describes them."""
        clean = self._choose_clean() if self.choices.mix_clean is not None else None
        self._write_rows(folder, clean)
        counts, format = self.counts, self.choices.format
        template = format in ("messages", "axolotl") and counts.chatml and bool(counts.lengths)
        if template:
            (folder / TEMPLATE).write_text(TRAINING_TEMPLATE, encoding="utf-8")
        manifest = self._describe(folder)
        digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()[:16]
        manifest = manifest.model_copy(update={"export_id": digest})
        texts = {CARD: write_card(manifest, template=template)} | write_configs(manifest, template=template)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        manifest = manifest.model_copy(update={"files": _files(folder)})
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        return manifest

    def _describe(self, folder: Path) -> Manifest:
        counts, choices = self.counts, self.choices
        filter = choices.filter
        return Manifest(
            format=choices.format,
            mask=choices.mask,
            mask_effect=describe_mask(choices.format, choices.mask),
            outcome=choices.outcome,
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
            files_as=choices.kept_in,
            splits=counts.splits,
            clean_rows=counts.clean,
            mix_clean=choices.mix_clean,
            against=self.benchmarks.files,
            ngram=choices.ngram,
            files=_files(folder),
        )

    def _choose_clean(self) -> Counter[str]:
        """Which rows of episodes without an intervention stay: that depends on how many others there are."""
        looking = _Writing(self.store, self.choices, self.codec)
        clean, intervened = list[str](), 0
        for episode, rows in looking.rows():
            intervened += len(rows) if episode.interventions else 0
            clean += [] if episode.interventions else [row.lineage["nr_content_hash"] for row in rows]
        return choose_clean(clean, intervened, self.choices.mix_clean or 0.0)

    def _write_rows(self, folder: Path, clean: Counter[str] | None) -> None:
        choices = self.choices
        apart = choices.format in APART
        with ExitStack() as opened:
            files: dict[Split, RowFile] = {}
            for split in choices.splits:
                path = folder / file_name(choices.format, choices.kept_in, split)
                files[split] = opened.enter_context(closing(open_rows(path, choices.format, choices.kept_in)))
            lineage = opened.enter_context(closing(JsonLines(folder / LINEAGE))) if apart else None
            for episode, rows in self.rows():
                split = split_of(episode.problem.text, choices.validation)
                for row in rows:
                    if clean is not None and not episode.interventions:
                        content = row.lineage["nr_content_hash"]
                        if not clean[content]:
                            self.counts.refused["an episode without an intervention, beyond the share of those"] += 1
                            continue
                        clean[content] -= 1
                    told = row.lineage | {"nr_split": split}
                    files[split].add(row.fields if apart else row.fields | told)
                    if lineage is not None:
                        lineage.add(told)
                    self.counts.add(episode, row, split)

    def rows(self) -> Iterator[tuple[Episode, list[Row]]]:
        """The rows of every episode; what makes none is counted."""
        choices, counts, seen = self.choices, self.counts, set[str]()
        for episode in select_episodes(self.store, choices.outcome, choices.filter):
            counts.episodes += 1
            if self.benchmarks.overlaps(episode.problem.text):
                counts.refused["the problem overlaps one of a benchmark"] += 1
                continue
            try:
                rows = build_rows(episode, choices.format, choices.mask, self.codec)
            except Refused as reason:
                counts.refused[str(reason)] += 1
                continue
            if choices.dedupe:
                new = [row for row in rows if row.lineage["nr_content_hash"] not in seen]
                seen.update(row.lineage["nr_content_hash"] for row in new)
                if len(new) < len(rows):
                    counts.refused["the content of another row"] += len(rows) - len(new)
                rows = new
            if rows:
                yield episode, rows


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
    _check_replaceable(target)
    return target


def _check_replaceable(target: Path) -> None:
    """What no export wrote is never deleted: neither another tool's folder nor what was made in an export's."""
    if target.is_dir() and not any(target.iterdir()):
        return
    try:
        manifest = Manifest.model_validate_json((target / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise ExportError(f"{target} holds something else than an export", hint="choose another folder") from error
    own = {MANIFEST, *(file.name for file in manifest.files)}
    others = sorted(path.name for path in target.iterdir() if path.name not in own)
    if others:
        raise ExportError(
            f"{target} holds more than its export: {', '.join(others[:5])}",
            hint="move that away first, or choose another folder",
        )


def _put_in_place(folder: Path, target: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        _sync(path)
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        aside = old / target.name
        try:
            target.replace(aside)
            folder.replace(target)
        finally:
            # Whatever broke in between, an interrupt too: one of the two is there.
            if aside.exists() and not target.exists():
                aside.replace(target)
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
