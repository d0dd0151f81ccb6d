"""`nr-agent db`: where the episode store is, how it stands, and looking after it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from nr_agent.cli._filters import read_age
from nr_agent.cli._output import sanitise, to_json

if TYPE_CHECKING:
    from nr_agent.store.care import StoreStatus

app = typer.Typer(no_args_is_help=True, help="The episode store itself.")

_StoreOption = Annotated[str | None, typer.Option(help="Path or URL of the episode store.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")]


@app.command()
def path(store: _StoreOption = None) -> None:
    """Say where the store is: a path, or a URL without its password."""
    from nr_agent.store.care import find_store  # noqa: PLC0415 - imports SQLAlchemy

    typer.echo(find_store(store).label)


@app.command()
def status(store: _StoreOption = None, as_json: _JsonOption = False) -> None:
    """Say how the store stands: its schema, what it holds, and what waits beside it. Changes nothing."""
    from nr_agent.store.care import read_status  # noqa: PLC0415 - imports SQLAlchemy

    found = read_status(store)
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json") | {"standing": found.standing}))
        return
    for line in _status_lines(found):
        typer.echo(line)


@app.command()
def upgrade(store: _StoreOption = None) -> None:
    """Bring the store's schema up to date. A SQLite file is copied before it is changed."""
    from nr_agent.store.care import upgrade as bring_up  # noqa: PLC0415 - imports SQLAlchemy

    before, after = bring_up(store)
    typer.echo(f"schema {after}, as before" if before == after else f"schema {before or 'none'} is now {after}")


@app.command()
def check(store: _StoreOption = None, as_json: _JsonOption = False) -> None:
    """Read everything that the store holds and name what is wrong. Changes nothing; exit code 4 with a fault."""
    from nr_agent.errors import StoreError  # noqa: PLC0415 - beside its use
    from nr_agent.store.care import check as find_faults  # noqa: PLC0415 - imports SQLAlchemy

    faults = 0
    for fault in find_faults(store):
        faults += 1
        typer.echo(to_json(fault) if as_json else sanitise(f"{fault.place}: {fault.what}"))
    if faults:
        raise StoreError(
            f"{faults} faults in the store", hint="restore a copy, or leave these episodes out of what you do with it"
        )
    typer.echo("no fault", err=True)


@app.command()
def prune(
    older_than: Annotated[str | None, typer.Option(help="Begun so long ago: 12h, 30d, 8w.")] = None,
    keep_last: Annotated[int | None, typer.Option(min=0, help="Spare the so many newest.")] = None,
    abandoned: Annotated[bool, typer.Option(help="Only what crashed processes left behind.")] = False,
    dry_run: Annotated[bool, typer.Option(help="List the ids that would go, and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    store: _StoreOption = None,
) -> None:
    """Delete old episodes with their steps. What is given must hold together; what runs or waits stays."""
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy
    from nr_agent.store.care import Pruning, choose_prunable  # noqa: PLC0415

    age = None if older_than is None else _read_age(older_than)
    rule = Pruning(older_than=age, keep_last=keep_last, abandoned=abandoned)
    with EpisodeStore(store, create=False) as opened:
        ids = choose_prunable(opened, rule)
        if dry_run:
            for episode_id in ids:
                typer.echo(sanitise(episode_id))
            typer.echo(f"{len(ids)} episodes would go", err=True)
            return
        if ids and not yes:
            typer.confirm(f"delete {len(ids)} episodes from {sanitise(opened.location)}?", abort=True, err=True)
        typer.echo(f"{opened.delete(ids)} episodes deleted", err=True)


def _status_lines(found: StoreStatus) -> list[str]:
    counts = ", ".join(f"{count} {name}" for name, count in found.episodes.items())
    schema = {
        "empty": "none yet",
        "current": f"{found.head} (current)",
        "older": f"{found.revision}, older than {found.head}: nr-agent db upgrade",
        "newer": f"{found.revision}, newer than {found.head}: upgrade nr-agent",
    }[found.standing]
    return [
        f"store: {sanitise(found.location)}" + (f" ({found.bytes} bytes)" if found.bytes is not None else ""),
        f"schema: {schema}",
        f"episodes: {sum(found.episodes.values())}" + (f" ({counts})" if counts else ""),
        f"steps: {found.steps}, failure events: {found.events}, interventions: {found.interventions}",
        f"spool: {found.spooled} records wait, {found.refused} were refused",
    ]


def _read_age(text: str) -> timedelta:
    from nr_agent.errors import ConfigurationError  # noqa: PLC0415 - beside its use

    age = read_age(text)
    if age is None:
        raise ConfigurationError(
            f"--older-than {sanitise(text)!r} is no length of time", hint="give hours, days or weeks: 12h, 30d, 8w"
        )
    return age
