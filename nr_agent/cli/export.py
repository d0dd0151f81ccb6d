"""`nr-agent export`: episodes as training data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nr_agent.cli._output import sanitise

if TYPE_CHECKING:
    from nr_agent.engine.protocol import TextCodec
    from nr_agent.export import Manifest
    from nr_agent.store import EpisodeStore

_PREVIEWED = 2000


def export(
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    format: Annotated[str, typer.Option(help="messages, pretokenized or axolotl.")] = "messages",
    mask: Annotated[str, typer.Option(help="What is trained on: respond, internalize, clean or full.")] = "respond",
    outcome: Annotated[str, typer.Option(help="Which answers: correct, wrong or any.")] = "correct",
    task: Annotated[str | None, typer.Option(help="Only problems of this benchmark family.")] = None,
    store: Annotated[str | None, typer.Option(help="Path or URL of the episode store.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Model, by name or folder, whose tokenizer cuts and verifies.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an export that is there.")] = False,
    verify: Annotated[bool, typer.Option(help="Encode every row again and see that nothing was lost.")] = False,
    preview: Annotated[int, typer.Option(min=0, help="Show so many episodes with their masks; writes nothing.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest on standard output.")] = False,
) -> None:
    """Write finished episodes as training data, and say what was trained, masked and left out."""
    from nr_agent.errors import ConfigurationError  # noqa: PLC0415 - beside its use
    from nr_agent.export import export as write  # noqa: PLC0415 - keeps --help quick
    from nr_agent.export import verify as check  # noqa: PLC0415
    from nr_agent.store import EpisodeFilter, EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    if out is None and not preview:
        raise ConfigurationError("nothing says where to write", hint="give --out FOLDER, or --preview 3 to look first")
    wanted = EpisodeFilter(task=task)
    choices: Any = {"format": format, "mask": mask, "outcome": outcome}
    with EpisodeStore(store, create=False) as opened:
        # Only these need one, and loading it takes seconds.
        loaded = (
            _load_tokenizer(opened, tokenizer)
            if verify or mask == "clean" or format == "axolotl" or tokenizer
            else None
        )
        codec = _codec(loaded) if loaded is not None else None
        if preview:
            _preview(opened, preview, wanted, codec, **choices)
            return
        manifest = write(opened, str(out), **choices, filter=wanted, overwrite=overwrite, codec=codec)
    verified = check(str(out), loaded) if verify else None
    if as_json:
        typer.echo(manifest.to_json(), nl=False)
    else:
        _report(manifest)
        typer.echo(str(out))
    if verified is not None:
        typer.echo(f"verified: {verified.rows} rows, {verified.correction_tokens} correction tokens", err=True)


def _report(manifest: Manifest) -> None:
    typer.echo(f"{manifest.rows} rows of {manifest.episodes} episodes, format {manifest.format}", err=True)
    typer.echo(f"mask {manifest.mask}: {manifest.mask_effect}", err=True)
    typer.echo(f"{manifest.trained_tokens} of {manifest.tokens} tokens are trained", err=True)
    if manifest.lengths is not None:
        typer.echo(f"train with a length of at least {manifest.lengths.maximum} tokens", err=True)
    for reason, count in manifest.refused.items():
        typer.echo(f"{count} left out: {reason}", err=True)


def _preview(
    store: EpisodeStore, count: int, wanted: Any, codec: TextCodec | None, *, format: str, mask: Any, outcome: Any
) -> None:
    from nr_agent.export.masks import spans  # noqa: PLC0415 - keeps --help quick
    from nr_agent.export.rows import span_text  # noqa: PLC0415
    from nr_agent.export.writing import check_choices, select_episodes  # noqa: PLC0415
    from nr_agent.tokens import END_THINK  # noqa: PLC0415

    check_choices(format, mask, outcome)
    end_think = codec.control(END_THINK) if codec is not None else None
    for episode in itertools.islice(select_episodes(store, outcome, wanted), count):
        typer.echo(f"== {sanitise(episode.id)}")
        for span in spans(episode, mask, end_think=end_think):
            text = span_text(span, codec)
            if text is None:
                text = f"{len(span.ids)} tokens of: {span.step.text}"
            note = " failed" if span.failed else ""
            shown = sanitise(text[:_PREVIEWED]).replace("\n", "\\n")
            typer.echo(f"{span.treatment:6} {span.step.index:>3} {span.provenance}{note} ({len(span.ids)}): {shown}")


def _load_tokenizer(store: EpisodeStore, name: str | None) -> Any:
    from nr_agent.errors import ModelError  # noqa: PLC0415 - beside its use
    from nr_agent.models.registry import find_model  # noqa: PLC0415 - keeps --help quick
    from nr_agent.store import EpisodeFilter  # noqa: PLC0415 - imports SQLAlchemy

    if name is None:
        newest = next(store.find(EpisodeFilter(status="completed", limit=1)), None)
        name = newest.model if newest is not None and newest.model else "nano"
    folder = find_model(name)
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
