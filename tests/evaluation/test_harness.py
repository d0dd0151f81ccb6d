"""Arms as they are run: many problems at once, each to its own end."""

from __future__ import annotations

from nr_agent.episode import Problem
from nr_agent.evaluation.harness import graph_arm
from nr_agent.graphs import create_reasoner
from nr_agent.testing import ScriptedEngine


def test_long_thinking_is_not_cut_at_the_steps_that_langgraph_allows_by_default():
    engine = ScriptedEngine(lambda text: None if text.count("step") == 60 else "step")
    arm = graph_arm(lambda: create_reasoner(engine, detector=None, control=False))
    problems = [(Problem(text="What?", reference="42"), number) for number in range(3)]
    reports = arm(problems, lambda _: None)
    assert [report["stop_reason"] for report in reports] == ["finished"] * 3
    assert all(report["steps"] >= 60 and report["answer"] == "42" for report in reports)
