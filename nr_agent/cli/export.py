"""`nr-agent export`: episodes as training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nr_agent.cli._filters import read_filter
from nr_agent.cli._output import to_json
from nr_agent.cli._preview import show

if TYPE_CHECKING:
    from nr_agent.engine.protocol import TextCodec
    from nr_agent.export import Manifest
    from nr_agent.store import EpisodeFilter, EpisodeStore

_EMPTY = "see nr-agent episodes ls; --outcome any lets every answer in, and --overwrite replaces an export"


def export(
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    format: Annotated[
        str, typer.Option(help="messages, pretokenized, axolotl, preference, stepwise, atif or inspect.")
    ] = "messages",
    mask: Annotated[str, typer.Option(help="What is trained on: respond, internalize, clean or full.")] = "respond",
    outcome: Annotated[str, typer.Option(help="Which answers: correct, wrong, unknown, recovered or any.")] = "correct",
    task: Annotated[str | None, typer.Option(help="Only problems of this benchmark family.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only problems of this domain.")] = None,
    model: Annotated[str | None, typer.Option(help="Only episodes of this model.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only episodes under these policies.")] = None,
    event: Annotated[str | None, typer.Option(help="Only with a failure event of this level or kind.")] = None,
    since: Annotated[str | None, typer.Option(help="Only begun then or later: 2026-01-31, or 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Only begun before.")] = None,
    files: Annotated[str | None, typer.Option(help="jsonl or parquet; by default what the format is used in.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the problems put aside for validation.")] = 0.0,
    mix_clean: Annotated[
        float | None, typer.Option(help="At most this share of rows from episodes without an intervention.")
    ] = None,
    dedupe: Annotated[bool, typer.Option(help="Of rows with the same content, keep the first.")] = False,
    against: Annotated[
        list[Path] | None, typer.Option(help="Benchmark file whose problems stay out; may be repeated.")
    ] = None,
    ngram: Annotated[int, typer.Option(min=1, help="Neighbouring words in common that make an overlap.")] = 13,
    store: Annotated[str | None, typer.Option(help="Path or URL of the episode store.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Model, by name or folder, whose tokenizer cuts and verifies.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an export that is there.")] = False,
    verify: Annotated[bool, typer.Option(help="Encode every row again and see that nothing was lost.")] = False,
    preview: Annotated[
        int, typer.Option(min=0, help="Show so many episodes, coloured by what is trained; writes nothing.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest on standard output.")] = False,
) -> None:
    """Write finished episodes as training data, and say what was trained, masked and left out."""
    from nr_agent.errors import ConfigurationError, ExportError  # noqa: PLC0415 - beside its use
    from nr_agent.export import export as write  # noqa: PLC0415 - keeps --help quick
    from nr_agent.export import verify as check  # noqa: PLC0415
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    if out is None and not preview:
        raise ConfigurationError("nothing says where to write", hint="give --out FOLDER, or --preview 3 to look first")
    wanted = read_filter(task=task, domain=domain, model=model, policy=policy, event=event, since=since, until=until)
    choices: Any = {"format": format, "mask": mask, "outcome": outcome}
    with EpisodeStore(store, create=False) as opened:
        # Only these need one, and loading it takes seconds.
        needed = verify or mask == "clean" or format in ("axolotl", "preference", "stepwise") or tokenizer
        loaded = _load_tokenizer(opened, tokenizer, wanted, outcome) if needed else None
        codec = _codec(loaded) if loaded is not None else None
        if preview:
            if not show(opened, preview, wanted, codec, **choices):
                raise ExportError("no episode is what was asked for", hint=_EMPTY)
            return
        choices |= {"files": files, "validation": validation, "mix_clean": mix_clean, "dedupe": dedupe}
        choices |= {"against": against or (), "ngram": ngram}
        manifest = write(opened, str(out), **choices, filter=wanted, overwrite=overwrite, codec=codec)
    verified = check(str(out), loaded) if verify else None
    if as_json:
        typer.echo(to_json(manifest, indent=2))
    else:
        _report(manifest)
        typer.echo(str(out))
    if verified is not None:
        typer.echo(f"verified: {verified.rows} rows, {verified.correction_tokens} correction tokens", err=True)
    if not manifest.rows:
        raise ExportError(f"the export in {out} has no row", hint=_EMPTY)


def _report(manifest: Manifest) -> None:
    typer.echo(f"{manifest.rows} rows of {manifest.episodes} episodes, format {manifest.format}", err=True)
    typer.echo(f"mask {manifest.mask}: {manifest.mask_effect}", err=True)
    if manifest.trained_tokens:
        typer.echo(f"{manifest.trained_tokens} of {manifest.tokens} tokens are trained", err=True)
        if manifest.lengths is not None:
            typer.echo(f"train with a length of at least {manifest.lengths.maximum} tokens", err=True)
    if manifest.mix_clean is not None and manifest.rows:
        share = manifest.clean_rows / manifest.rows
        typer.echo(f"{share:.1%} of the rows are of episodes without an intervention", err=True)
    if len(manifest.splits) > 1:
        typer.echo(", ".join(f"{split}: {rows} rows" for split, rows in manifest.splits.items()), err=True)
    for reason, count in manifest.refused.items():
        typer.echo(f"{count} left out: {reason}", err=True)


def _load_tokenizer(store: EpisodeStore, name: str | None, wanted: EpisodeFilter, outcome: Any) -> Any:
    """The tokenizer that is named, or that of the model that thought the newest of the episodes."""
    from nr_agent.errors import ModelError  # noqa: PLC0415 - beside its use
    from nr_agent.export.selection import find_newest  # noqa: PLC0415 - keeps --help quick
    from nr_agent.models.registry import find_model  # noqa: PLC0415 - keeps --help quick

    newest = find_newest(store, outcome, wanted) if name is None else None
    source = name or (newest.model if newest is not None and newest.model else "nano")
    try:
        folder = find_model(source)
    except ModelError as error:
        if name is not None:
            raise
        raise ModelError(
            f"the episodes were thought by {source!r}, whose tokenizer is not found",
            hint="say where that model is: --tokenizer FOLDER",
        ) from error
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow to import

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the tokenizer in {folder} cannot be loaded: {reason}", hint="check the folder") from error


def _codec(tokenizer: Any) -> TextCodec:
    from nr_agent.engine.text import TokenizerCodec  # noqa: PLC0415 - keeps --help quick

    end = tokenizer.eos_token_id
    return TokenizerCodec(tokenizer, frozenset() if end is None else frozenset({end}))
