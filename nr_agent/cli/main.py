"""The entry: commands, and how an error looks to a person."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from nr_agent.cli import db, doctor, episodes, evaluate, explain, export, fit, models, policies, solve, train
from nr_agent.cli._output import one_line, sanitise
from nr_agent.errors import NRAgentError

_INTERRUPTED = 130
_SHOWN = 300

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Watch a reasoning model's neurons while it thinks, and correct it in time.",
)
app.command()(solve.solve)
app.command()(fit.fit)
app.command("eval")(evaluate.evaluate)
app.command()(explain.explain)
app.command()(export.export)
app.command()(train.train)
app.command()(doctor.doctor)
app.add_typer(episodes.app, name="episodes")
app.add_typer(policies.app, name="policies")
app.add_typer(models.app, name="models")
app.add_typer(db.app, name="db")


def _version(asked: bool) -> None:
    if asked:
        from nr_agent import __version__  # noqa: PLC0415 - reads the installed metadata

        typer.echo(f"nr-agent {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Watch a reasoning model's neurons while it thinks, and correct it in time."""


def main() -> None:
    """Run the command line; an error is a line and a remedy, and an exit code of its own.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 store, 130 interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a sign shows "?": no reason to lose an episode.
        sys.stdout.reconfigure(errors="replace")
    try:
        app()
    except SystemExit as end:
        # Typer turns an interrupt into this code and says nothing.
        if end.code == _INTERRUPTED:
            typer.echo("interrupted", err=True)
        raise
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        if os.environ.get("NR_AGENT_DEBUG"):
            raise
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    """Say what went wrong, in words that fit a terminal; the exit code."""
    if isinstance(error, NRAgentError):
        typer.echo(f"error: {sanitise(str(error))}", err=True)
        return error.exit_code
    if _by_interrupt(error):
        typer.echo("interrupted", err=True)
        return _INTERRUPTED
    said = one_line(f"{type(error).__name__}: {error}", _SHOWN)
    typer.echo(f"error: {said}\n  set NR_AGENT_DEBUG=1 to see where", err=True)
    return 1


def _by_interrupt(error: BaseException | None) -> bool:
    """Whether an error is an interrupt in disguise: lazy imports of transformers wrap it into an ImportError."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
