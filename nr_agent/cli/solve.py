"""`nr-agent solve`: watch a model think."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nr_agent.cli._asking import ask
from nr_agent.cli._models import MODEL_HELP, prepare
from nr_agent.cli._output import failure_line, intervention_line, sanitise
from nr_agent.errors import ConfigurationError, DetectorError, ProblemError

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {
    "inserted": "\u25b8",
    "failure": "\u26a0",
    "intervention": "\u21b3",
    "discarded": "\u2717",
    "answer": "\u2713",
}


def solve(
    problem: Annotated[str | None, typer.Argument(help="The problem; - reads it from standard input.")] = None,
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    policies: Annotated[str, typer.Option(help="A pack's name, or a file; see nr-agent policies.")] = "default",
    detector: Annotated[Path | None, typer.Option(help="Folder of a detector; the model's own by default.")] = None,
    control: Annotated[bool, typer.Option(help="Act on what is seen; without, nothing is watched.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sampling; 0 is greedy.")] = 0.6,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of thinking.")] = 1024,
    store: Annotated[str | None, typer.Option(help="Path or URL of the episode store.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a problem on standard output, and nothing else.")
    ] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Solve the demo problems.")] = False,
) -> None:
    """Solve a problem and show the thinking as it happens, with what was seen and done."""
    from nr_agent.cli.demo import DEMOS, Demo  # noqa: PLC0415 - beside its use
    from nr_agent.settings import load_settings  # noqa: PLC0415 - keeps --help quick

    if demo == (problem is not None):
        both = ", not both" if demo else ""
        raise ConfigurationError(f"give a problem, or --demo{both}", hint='nr-agent solve "What is 12 + 35?"')
    asked = list(DEMOS) if demo else [Demo(_read(problem or ""), seed)]
    settings = load_settings()
    # Where nobody sits, or nobody would see the question, a policy that would ask is passed over.
    attended = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    reasoner, close = _make(
        model or settings.model,
        policies,
        detector,
        control,
        temperature,
        max_tokens,
        store or settings.store_url,
        attended,
    )
    try:
        reports = [_solve(reasoner, one, as_json) for one in asked]
    finally:
        close()
    if demo and not as_json:
        events = sum(len(report["events"]) for report in reports)
        done = sum(len(report["interventions"]) for report in reports)
        typer.echo(f"\n{len(reports)} problems answered, {events} failure events, {done} interventions.")


def _read(problem: str) -> str:
    try:
        text = sys.stdin.read() if problem == "-" else problem
        # Bytes that are no text come in as lone surrogates, and no tokenizer or database takes those.
        text.encode()
    except UnicodeError as error:
        raise ProblemError(
            "the problem is not text in UTF-8", hint="convert it first, with iconv for example"
        ) from error
    if not text.strip():
        raise ProblemError("the problem is empty", hint='write it in quotes: nr-agent solve "What is 12 + 35?"')
    return text


def _make(
    model: str,
    policies: str,
    detector: Path | None,
    control: bool,
    temperature: float,
    max_tokens: int,
    store: str,
    attended: bool,
) -> tuple[Any, Any]:
    """The reasoner, and what closes its parts. Cheap checks come first: nothing is loaded in vain."""
    from nr_agent.models.registry import has_detector  # noqa: PLC0415 - keeps --help quick
    from nr_agent.policies import load_policies  # noqa: PLC0415 - keeps --help quick
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    if not has_detector(model) and control and detector is None:
        raise DetectorError(
            f"the model {model} has no detector",
            hint=f"run it without: --no-control; or fit one: nr-agent fit --model {model} --out DIR",
        )
    if detector is not None and not control:
        raise ConfigurationError(
            "--detector was given, and nothing watches without control", hint="leave out --detector, or --no-control"
        )
    pack = replace(load_policies(policies), attended=attended)
    episodes = EpisodeStore(store)

    from langgraph.checkpoint.memory import InMemorySaver  # noqa: PLC0415 - imports LangGraph

    from nr_agent.engine.protocol import Sampling  # noqa: PLC0415 - imported when all is well
    from nr_agent.graphs import Budget, create_reasoner  # noqa: PLC0415 - imports LangGraph
    from nr_agent.models.registry import load_detector, load_engine  # noqa: PLC0415 - imports torch

    prepare(model)
    engine = load_engine(model)
    reasoner = create_reasoner(
        engine,
        detector=load_detector(model, engine, folder=detector) if control else None,
        policies=pack,
        store=episodes,
        budget=Budget(max_tokens=max_tokens),
        sampling=Sampling(temperature=temperature),
        control=control,
        checkpointer=InMemorySaver() if attended else None,
    )

    def close() -> None:
        engine.shutdown()
        episodes.close()

    return reasoner, close


def _solve(reasoner: Any, asked: Any, as_json: bool) -> dict[str, Any]:
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick

    screen = Screen(Console(highlight=False, soft_wrap=True, emoji=False), quiet=as_json)
    config = {"configurable": {"thread_id": str(uuid.uuid4()), "nr_agent": {"seed": asked.seed}}}
    given: Any = {"messages": [{"role": "user", "content": asked.problem}]}
    while not screen.report:
        for part in reasoner.stream(given, config, stream_mode="custom", version="v2"):
            screen.show(part["data"])
        if not screen.report:
            given = _asked(reasoner, config, screen)
    if as_json:
        # ASCII: model text holds no control character that a terminal would obey.
        typer.echo(json.dumps(screen.as_json(asked)))
    return screen.report


def _asked(reasoner: Any, config: Any, screen: Screen) -> Any:
    """What the person says; whoever does not want to say anything leaves an episode that is over.

    Raises:
        KeyboardInterrupt: at the question.
    """
    from nr_agent.graphs.reasoner import parts_of  # noqa: PLC0415 - imports LangGraph

    try:
        return ask(reasoner.get_state(config))
    except BaseException as error:
        parts_of(reasoner).leave(screen.opened["episode_id"])
        if isinstance(error, typer.Abort):
            raise KeyboardInterrupt from error
        raise


class Screen:
    """Shows the events of one episode as they come, and keeps them.

    Args:
        console: where to.
        quiet: show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self.console = console
        self.quiet = quiet
        self.steps: list[dict[str, Any]] = []
        self.opened: dict[str, Any] = {}
        self.report: dict[str, Any] = {}

    def show(self, event: dict[str, Any]) -> None:
        """Show one event of the stream."""
        kind = event["type"]
        if kind == "nr.open":
            self.opened = event
            self._write(f"\nproblem  {sanitise(event['problem'])}", "bold")
            self._write(f"episode  {event['episode_id']}  ({event['model']}, {event['prompt_tokens']} tokens)\n", "dim")
        elif kind == "nr.step":
            self.steps.append(event)
            self._step(event)
        elif kind == "nr.failure":
            self._write(f"     {_MARKS['failure']} {failure_line(event['event'])}", "yellow")
        elif kind == "nr.intervention":
            line = intervention_line(event["intervention"], event["text"])
            self._write(f"     {_MARKS['intervention']} {line}", "cyan")
        elif kind == "nr.stop":
            self.report = event["report"]
            self._end(event)

    def as_json(self, asked: Any) -> dict[str, Any]:
        """The whole episode for a machine."""
        return {
            "schema_version": 1,
            "problem": asked.problem,
            "model": self.opened["model"],
            "seed": asked.seed,
            **self.report,
            "steps": [{key: value for key, value in step.items() if key != "type"} for step in self.steps],
        }

    def _step(self, event: dict[str, Any]) -> None:
        from rich.text import Text  # noqa: PLC0415 - keeps --help quick

        if self.quiet:
            return
        branch = "" if event["branch"] == "main" else f"[{event['branch']}] "
        line = Text().append(f"{event['index']:3}  {branch}", style="dim")
        for number, part in enumerate(event["parts"]):
            text = sanitise(part["text"])
            # Blank lines end steps: the end of a line shows them as well.
            text = text.rstrip("\n") if number == len(event["parts"]) - 1 else text
            inserted = part["provenance"] != "model"
            shown = f"{_MARKS['inserted']}{text}" if inserted and text.strip() else text
            line.append(shown.replace("\n\n", "\n").replace("\n", "\n     "), style="cyan" if inserted else "")
        self.console.print(line)

    def _end(self, event: dict[str, Any]) -> None:
        report, usage = event["report"], event["report"]["usage"]
        answer = "no answer" if report["answer"] is None else sanitise(report["answer"])
        for done in report["interventions"]:
            lost = [branch for branch in done["branches"] if done["kept"] is not None and branch != done["kept"]]
            if lost:
                self._write(f"{_MARKS['discarded']} discarded  {', '.join(lost)}, in favour of {done['kept']}", "dim")
        self._write(f"\n{_MARKS['answer']} answer   {answer}", "bold green")
        self._write(
            f"  ended by {event['reason'].replace('_', ' ')}; {usage['output']} tokens: {usage['thinking']} thought, "
            f"{usage['answer']} answered, {usage['inserted']} inserted, {usage['discarded']} discarded"
        )
        self._write(f"  nr-agent episodes show {event['episode_id']}", "dim")

    def _write(self, text: str, style: str = "") -> None:
        if not self.quiet:
            self.console.print(text, style=style, markup=False)
