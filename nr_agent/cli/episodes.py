"""`nr-agent episodes`: what was thought, and what was seen and done meanwhile."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nr_agent.cli._filters import read_filter
from nr_agent.cli._output import failure_line, intervention_line, one_line, sanitise, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from nr_agent.episode import Episode, Step
    from nr_agent.store import EpisodeStore, EpisodeSummary

app = typer.Typer(no_args_is_help=True, help="The episodes in the store.")

_StoreOption = Annotated[str | None, typer.Option(help="Path or URL of the episode store.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")]
_SHORT_ID = 18  # of a UUIDv7: its time and counter; `show` takes the beginning of an id
_PIPED = 200
_RIGHT = {True: "right", False: "wrong", None: "?"}
_MARKS = {"prompt": " ", "model": " ", "inserted": "\u25b8", "template": "\u00b7"}


@app.command("ls")
def ls(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
    status: Annotated[str | None, typer.Option(help="running, waiting, completed, failed, ...")] = None,
    outcome: Annotated[str | None, typer.Option(help="correct or wrong.")] = None,
    task: Annotated[str | None, typer.Option(help="Only problems of this benchmark family.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only problems of this domain.")] = None,
    event: Annotated[str | None, typer.Option(help="Only with a failure event of this level or kind.")] = None,
    intervention: Annotated[str | None, typer.Option(help="Only with an intervention of this kind.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only under these policies.")] = None,
    run: Annotated[str | None, typer.Option(help="Only of this run, by the beginning of its id.")] = None,
    label: Annotated[str | None, typer.Option(help="Only with an annotation of this label.")] = None,
    since: Annotated[str | None, typer.Option(help="Only begun then or later: 2026-01-31, or 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Only begun before.")] = None,
    store: _StoreOption = None,
    as_json: _JsonOption = False,
) -> None:
    """List episodes, newest first. With --json, one object a line."""
    wanted = read_filter(
        limit=limit,
        status=status,
        correct=_read_outcome(outcome),
        task=task,
        domain=domain,
        event=event,
        intervention=intervention,
        model=model,
        policy=policy,
        run=run,
        annotation=label,
        since=since,
        until=until,
    )
    with _open(store) as opened:
        found = list(opened.find(wanted))
        if as_json:
            for summary in found:
                typer.echo(to_json(summary))
            return
        if not found:
            typer.echo(f"no episodes in {opened.location}", err=True)
            return
    _console().print(_table(found))


@app.command("tail")
def tail(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many of those that are there.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until interrupted.")] = False,
    task: Annotated[str | None, typer.Option(help="Only problems of this benchmark family.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only problems of this domain.")] = None,
    event: Annotated[str | None, typer.Option(help="Only with a failure event of this level or kind.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 1.0,
    store: _StoreOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Show the last episodes, oldest first, a line each; with --follow, a line whenever one begins or ends."""
    wanted = read_filter(limit=limit, task=task, domain=domain, event=event, model=model)
    with _open(store) as opened:
        found = opened.watch(wanted, every=every) if follow else iter(list(opened.find(wanted))[::-1])
        for summary in found:
            typer.echo(to_json(summary) if as_json else _tail_line(summary))
            sys.stdout.flush()


@app.command("annotate")
def annotate(
    episode_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, the beginning of it, or last.")],
    note: Annotated[str, typer.Argument(help="What is to be said.")] = "",
    label: Annotated[str | None, typer.Option(help="A short word to find it by.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="The step that is meant.")] = None,
    author: Annotated[str | None, typer.Option(help="Who says it; you, by default.")] = None,
    store: _StoreOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Say something about an episode. What was said stays, and show shows it."""
    from nr_agent.errors import ConfigurationError  # noqa: PLC0415 - beside its use

    if not note.strip() and label is None:
        raise ConfigurationError("nothing is said", hint="give a note, or --label")
    with _open(store) as opened:
        made = opened.annotate(episode_id, note, label=label, step=step, author=author or _user())
    typer.echo(to_json(made) if as_json else sanitise(made.episode_id))


@app.command("runs")
def runs(store: _StoreOption = None, as_json: _JsonOption = False) -> None:
    """List the runs in which episodes were begun, newest first."""
    with _open(store) as opened:
        for one in opened.runs():
            named = f"  {sanitise(one.name)}" if one.name else ""
            line = f"{one.id}  {one.started_at.astimezone():%Y-%m-%d %H:%M}  {one.episodes} episodes{named}"
            typer.echo(to_json(one) if as_json else line)


@app.command("show")
def show(
    episode_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, the beginning of it, or last.")],
    store: _StoreOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Show an episode: its steps in order, and what was seen and done where it happened.

    \u25b8 marks text that the controller inserted, \u2717 a step that was given up.
    """
    with _open(store) as opened:
        episode = opened.get(episode_id)
        said = opened.annotations(episode.id)
    if as_json:
        typer.echo(to_json(episode, indent=2))
        return
    console = _console()
    _print_head(console, episode)
    for step in episode.steps:
        _print_step(console, step)
        for event in (one for one in episode.events if one.step == step.index):
            console.print(_line("\u26a0 ", failure_line(event.to_state()), "yellow"))
        for one in (one for one in episode.interventions if one.step == step.index):
            values = one.model_dump(mode="json")
            console.print(_line("\u21b3 ", f"{intervention_line(values, '')} ({one.policy}): {one.outcome}", "cyan"))
    answer = sanitise(episode.answer or "none")
    console.print(_line("\u2713 ", f"answer: {answer} ({_RIGHT[episode.correct]})", "bold"))
    for annotation in said:
        place = "" if annotation.step is None else f" (step {annotation.step})"
        words = ": ".join(part for part in (annotation.label or "", annotation.note) if part)
        console.print(_line("\u270e ", sanitise(f"{annotation.author or '?'}{place}: {words}"), "magenta"))


def _open(store: str | None) -> EpisodeStore:
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    return EpisodeStore(store, create=False)


def _read_outcome(outcome: str | None) -> bool | None:
    from nr_agent.errors import ConfigurationError  # noqa: PLC0415 - beside its use

    if outcome not in (None, "correct", "wrong"):
        raise ConfigurationError(f"--outcome {outcome!r}: there is none", hint="choose from: correct, wrong")
    return None if outcome is None else outcome == "correct"


def _tail_line(one: EpisodeSummary) -> str:
    answer = f" -> {one_line(one.answer, 16)} ({_RIGHT[one.correct]})" if one.answer is not None else ""
    seen = f", {one.events} events, {one.interventions} interventions" if one.events or one.interventions else ""
    head = f"{sanitise(one.id)[:_SHORT_ID]}  {one.created_at.astimezone():%H:%M:%S}  {one.status:11}"
    return f"{head}  {one_line(one.problem, 40)}{answer}{seen}"


def _user() -> str:
    import getpass  # noqa: PLC0415 - rarely needed

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick

    # A file or a pipe has no width of its own, and nothing that cuts is wanted there.
    width = None if sys.stdout.isatty() else _PIPED
    return Console(highlight=False, markup=False, emoji=False, width=width)


def _table(found: list[EpisodeSummary]) -> Table:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - keeps --help quick
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("id", no_wrap=True, min_width=_SHORT_ID)
    for name in ("time", "status", "problem", "answer", "right?"):
        table.add_column(name, no_wrap=True)
    for name in ("events", "interventions", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        cells = (
            sanitise(one.id)[:_SHORT_ID],
            f"{one.created_at.astimezone():%Y-%m-%d %H:%M}",
            one.status,
            one_line(one.problem, 40),
            one_line(one.answer or "", 16),
            _RIGHT[one.correct],
            str(one.events),
            str(one.interventions),
            str(one.usage.output),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _print_head(console: Console, episode: Episode) -> None:
    usage = episode.usage
    lines = [
        f"{episode.id}  {episode.status}" + (f" ({episode.stop_reason})" if episode.stop_reason else ""),
        f"{episode.model or '?'}, detector {episode.detector or 'none'}, policies {episode.policy or 'none'}",
        f"{usage.output} tokens: {usage.thinking} thought, {usage.answer} answered, {usage.inserted} inserted, "
        f"{usage.discarded} discarded",
        *([f"error: {episode.error}"] if episode.error else []),
    ]
    for line in lines:
        console.print(_line("", sanitise(line), "dim"))
    console.print(_line("? ", sanitise(episode.problem.text), "bold"))


def _print_step(console: Console, step: Step) -> None:
    if step.kind == "prompt":
        return
    given_up = "\u2717 given up, " if step.discarded else ""
    parts = ", ".join(f"{_MARKS[kind].strip()}{length} {kind}" for kind, length in step.provenance)
    branch = "" if step.branch == "main" else f", {sanitise(step.branch)}"
    console.print(_line("", f"-- {step.index} {step.kind}{branch} ({given_up}{parts})", "dim"))
    inserted = step.count("inserted")
    mark = f"{_MARKS['inserted']} " if inserted else "  "
    style = "strike dim" if step.discarded else ""
    console.print(_line(mark, sanitise(step.text.strip("\n")), style))


def _line(mark: str, text: str, style: str) -> Text:
    from rich.text import Text  # noqa: PLC0415 - keeps --help quick

    return Text(f"{mark}{text}", style=style)
