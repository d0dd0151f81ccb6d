"""The entry: commands, and how an error looks to a person."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nr_agent import __version__
from nr_agent.cli import doctor, episodes, evaluate, export, fit, models, solve
from nr_agent.errors import NRAgentError

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
app.command()(export.export)
app.command()(doctor.doctor)
app.add_typer(episodes.app, name="episodes")
app.add_typer(models.app, name="models")


def _version(asked: bool) -> None:
    if asked:
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
    try:
        app()
    except NRAgentError as error:
        if os.environ.get("NR_AGENT_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("NR_AGENT_DEBUG"):
            raise
        typer.echo(f"error: {type(error).__name__}: {error}\n  set NR_AGENT_DEBUG=1 to see where", err=True)
        sys.exit(1)
