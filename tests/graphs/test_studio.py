"""What LangGraph's server and Studio find in `langgraph.json`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from graphs_helpers import ask
from langgraph.checkpoint.memory import InMemorySaver

from nr_agent.graphs import create_reasoner, studio
from nr_agent.testing import ScriptedEngine

ROOT = Path(__file__).parents[2]

SCHEMA = """
import importlib.util, json, sys
path, name = json.load(open("langgraph.json"))["graphs"]["reasoner"]["path"].split(":")
spec = importlib.util.spec_from_file_location("entry", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
graph = getattr(module, name)()
print(json.dumps({
    "input": sorted(graph.get_input_jsonschema()["properties"]),
    "output": sorted(graph.get_output_jsonschema()["properties"]),
    "context": sorted(graph.get_context_jsonschema()["properties"]),
    "drawing": graph.get_graph().draw_mermaid(),
    "loaded": [name for name in ("torch", "transformers", "sqlalchemy") if name in sys.modules],
}))
"""


def test_the_schema_is_there_before_any_weights():
    done = subprocess.run(
        [sys.executable, "-c", SCHEMA], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["loaded"] == []
    assert shown["input"] == ["messages"] and shown["output"] == ["messages", "reasoning"]
    assert {"seed", "budget", "domain"} <= set(shown["context"])
    assert shown["drawing"] == create_reasoner(ScriptedEngine([])).get_graph().draw_mermaid()


@pytest.mark.parametrize("way", ["threads", "coroutines"])
def test_the_first_run_loads_the_model_and_the_next_has_it(way, monkeypatch, tmp_path):
    monkeypatch.setenv("NR_AGENT_STORE", str(tmp_path / "episodes.db"))
    studio._nodes.cache_clear()
    try:
        for number in range(2):
            graph = studio.make_graph()
            graph.checkpointer = InMemorySaver()
            config = {"configurable": {"thread_id": str(number)}}
            problem = ask("Solve for x: 12*x + 7 = 91")
            output = graph.invoke(problem, config) if way == "threads" else asyncio.run(graph.ainvoke(problem, config))
            assert output["reasoning"]["answer"] and output["messages"][-1].content
        assert studio._nodes.cache_info().misses == 1
    finally:
        parts = studio._nodes()["open"].parts
        parts.engine.shutdown()
        parts.store.close()
        studio._nodes.cache_clear()
