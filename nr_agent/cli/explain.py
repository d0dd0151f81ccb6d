"""`nr-agent explain`: why the detector scored a step as it did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nr_agent.cli._models import prepare
from nr_agent.cli._output import failure_line, one_line, sanitise, to_json
from nr_agent.errors import DetectorError, ModelError

if TYPE_CHECKING:
    from rich.table import Table

    from nr_agent.detection.explain import ChannelExplanation, Explanation, LevelExplanation

_PIPED = 160


def explain(
    episode_id: Annotated[str, typer.Argument(metavar="EPISODE", help="Its id, the beginning of it, or last.")],
    step: Annotated[int, typer.Option(min=0, help="Index of the step, as nr-agent episodes show numbers them.")],
    model: Annotated[str | None, typer.Option(help="The model that thought it, where it is not where it was.")] = None,
    detector: Annotated[Path | None, typer.Option(help="Folder of a detector; the model's own by default.")] = None,
    store: Annotated[str | None, typer.Option(help="Path or URL of the episode store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")] = False,
) -> None:
    """Explain a step's scores: which channels moved, at which tokens, and what they write toward.

    The stored tokens are read again with the model; nothing is sampled.
    """
    from nr_agent.models.registry import DETECTOR_FOLDER  # noqa: PLC0415 - keeps --help quick
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    with EpisodeStore(store, create=False) as opened:
        episode = opened.get(episode_id)
    name = model or episode.model
    try:
        folder = prepare(name)
    except ModelError as error:
        if model is not None:
            raise
        raise ModelError(
            f"the episode was thought by {name!r}, which is not found", hint="say where it is: --model FOLDER"
        ) from error
    if not ((detector or folder / DETECTOR_FOLDER) / "detector.json").is_file():
        raise DetectorError(
            f"there is no detector in {detector or folder / DETECTOR_FOLDER}",
            hint=f"name its folder with --detector, or fit one: nr-agent fit --model {name} --out DIR",
        )

    from nr_agent.detection.explain import explain_step, find_step  # noqa: PLC0415 - imports torch
    from nr_agent.models.registry import load_detector, load_engine  # noqa: PLC0415 - imports torch

    find_step(episode, step)  # before anything is loaded in vain
    engine = load_engine(name)
    try:
        told = explain_step(engine, load_detector(name, engine, folder=detector), episode, step)
    finally:
        engine.shutdown()
    if as_json:
        typer.echo(to_json(told, indent=2))
        return
    _show(told)


def _show(told: Explanation) -> None:
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick

    width = None if sys.stdout.isatty() else _PIPED
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    console.print(f"{sanitise(told.episode)}  step {told.step}  ({sanitise(told.model)}, detector {told.detector})")
    if told.watched_by != told.detector:
        console.print(
            f"it was watched by {sanitise(told.watched_by or 'no detector')} when it was thought", style="dim"
        )
    console.print(sanitise(told.text.strip()), style="bold")
    for event in told.events:
        console.print(f"\u26a0 {failure_line(event.to_state())}", style="yellow")
    for level in told.levels:
        console.print(f"\n{_head(level)}", style="yellow" if _fires(level) else "")
        console.print(_table(level.channels))
        features = ", ".join(f"{one.name} {one.value:.3g} (z {one.z:+.1f})" for one in level.features)
        console.print(f"features: {features}", style="dim")


def _head(level: LevelExplanation) -> str:
    limit = "it never speaks" if level.threshold is None else f"threshold {level.threshold:.2f}"
    said = ", an event" if _fires(level) else ""
    return f"{level.level}: score {level.score:.2f}, {limit}{said}; {level.pattern}; sees {' + '.join(level.families)}"


def _fires(level: LevelExplanation) -> bool:
    return level.threshold is not None and level.score > level.threshold


def _table(channels: list[ChannelExplanation]) -> Table:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - keeps --help quick
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("channel", no_wrap=True)
    table.add_column("z", justify="right", no_wrap=True)
    for name in ("reading", "then wrote", "writes toward", "moved most by"):
        table.add_column(name)
    for one in channels:
        cells = (
            one.channel,
            f"{one.peak.z:+.1f}",
            f"{_token(one.peak.token)} at {one.peak.position}",
            _token(one.peak.wrote),
            " ".join(_token(token) for token in one.writes),
            ", ".join(f"{_token(m.token)} at {m.position} ({m.z:+.1f})" for m in one.moved_by),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _token(text: Any) -> str:
    """A token so that its blanks are seen."""
    return one_line(repr(str(text)), 16)
