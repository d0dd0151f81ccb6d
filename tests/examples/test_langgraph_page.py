"""The page on LangGraph: its code runs from top to bottom, and what it lists is what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from nr_agent import Budget, ReasonerContext, errors
from nr_agent.engine.protocol import Sampling
from nr_agent.graphs.asking import HumanAnswer
from nr_agent.graphs.stream import StreamEvent

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "langgraph.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_page_can_be_followed_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    try:
        for block in BLOCKS:
            exec(compile(block, "docs/langgraph.md", "exec", dont_inherit=True), names)  # noqa: S102 - it is our own page
    finally:
        for engine in {"engine", "reasoner"} & set(names):
            from nr_agent.graphs.reasoner import parts_of

            (names[engine] if engine == "engine" else parts_of(names[engine]).engine).shutdown()
    shown = capsys.readouterr().out
    assert "ended by" in shown and "Is this step right? ['continue'" in shown and "step_budget" in shown
    assert len(names["answers"]) == 4 and all(names["answers"])
    assert names["result"]["reasoning"]["usage"]["thinking"] <= 300


def rows(heading: str) -> list[list[str]]:
    """What is set as code in the first table behind a heading, row by row."""
    lines = [line for line in PAGE.split(heading)[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    return [re.findall(r"`([^`]+)`", line) for line in lines[2:]]


def test_the_events_are_those_of_the_contract():
    forms = {get_args(get_type_hints(form)["type"])[0]: set(get_type_hints(form)) for form in get_args(StreamEvent)}
    listed = {row[0]: set(row[1:]) for row in rows("## What it tells while it thinks")}
    assert set(listed) == set(forms)
    for kind, names in listed.items():
        own = names - {"think", "answer", "provenance", "text"} if kind == "nr.step" else names
        assert own == forms[kind] - {"type", "episode_id"}, kind


def test_the_settings_are_those_of_a_run():
    listed = rows("## Settings of one run")
    names = [name for row in listed for name in row]
    assert {item.name for item in fields(ReasonerContext)} <= set(names)
    assert set(Budget.model_fields) <= set(names)
    sampling = next(row for row in listed if row[0] == "sampling")
    ids = {"suppress", "avoid"}  # of those that speak to an engine
    assert {item.name for item in fields(Sampling)} - ids == set(sampling[1:])


def test_replies_and_errors_are_those_that_there_are():
    reply = PAGE.split("The reply is one of ")[1].split("\n")[0]
    actions = get_args(HumanAnswer.model_fields["action"].annotation)
    assert re.findall(r"`(\w+)`", reply) == [action for action in actions if action != "answer"]
    for name in {name for row in rows("## Ends and errors") for name in row}:
        assert issubclass(getattr(errors, name), errors.NRAgentError)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_of_the_page_lead_somewhere(link):
    assert (ROOT / "docs" / link).exists()
