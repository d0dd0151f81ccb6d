"""Asking the person at the terminal what a policy wants to know."""

from __future__ import annotations

from typing import Any

import typer

from nr_agent.cli._output import sanitise


def ask(waiting: Any) -> Any:
    """What the person says, as the command that resumes the graph.

    Args:
        waiting: the state of a graph that was interrupted by a question.
    """
    from langgraph.types import Command  # noqa: PLC0415 - imports LangGraph

    question = waiting.interrupts[0].value
    typer.echo(f"\n? {sanitise(question['question'])}")
    action = ""
    while action not in question["actions"]:
        action = typer.prompt(f"  one of {', '.join(question['actions'])}", default="continue")
    said = {"action": action}
    while action == "answer" and not said.get("answer"):
        said["answer"] = typer.prompt("  the answer").strip()
    return Command(resume=said)
