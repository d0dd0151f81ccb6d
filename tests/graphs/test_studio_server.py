"""`langgraph dev` starts with the repository's `langgraph.json` and answers.

It needs LangGraph's own server, which is no dependency of this package: `pip install 'langgraph-cli[inmem]'` beside it,
or name a `langgraph` of another environment that has this package, too, in `LANGGRAPH_CLI`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from nr_agent.store import EpisodeStore

ROOT = Path(__file__).parents[2]
CLI = os.environ.get("LANGGRAPH_CLI") or shutil.which("langgraph")
PROBLEM = {"messages": [{"role": "user", "content": "Solve for x: 12*x + 7 = 91"}]}

pytestmark = pytest.mark.skipif(not CLI, reason="langgraph-cli is not installed (pip install 'langgraph-cli[inmem]')")


class Server:
    """A running server."""

    def __init__(self, url: str, log: Path, store: str) -> None:
        self.url, self.log, self.store = url, log, store

    def ask(self, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - our own server
            return json.load(answer)

    def run(self, **options: object) -> dict:
        found = self.ask("/runs/wait", {"assistant_id": "reasoner", "input": PROBLEM, **options})
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store, log = str(folder / "episodes.db"), folder / "log"
    environment = {**os.environ, "NR_AGENT_STORE": store, "LANGGRAPH_CLI_NO_ANALYTICS": "1", "NO_COLOR": "1"}
    # The server keeps its threads in the folder that it is started in.
    shutil.copy(ROOT / "langgraph.json", folder)
    (folder / "graphs").symlink_to(ROOT / "graphs")
    command = [CLI, "dev", "--no-browser", "--no-reload", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            made = Server(f"http://127.0.0.1:{port}", log, store)
            wait_for(lambda: is_up(made), process)
            yield made
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def is_up(server):
    try:
        return server.ask("/ok") is not None
    except (urllib.error.URLError, OSError):
        return False


def wait_for(condition, process=None):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.2)


def test_the_server_finds_the_reasoner_and_shows_its_schema(server):
    (assistant,) = server.ask("/assistants/search", {})
    assert assistant["graph_id"] == "reasoner"
    shown = server.ask(f"/assistants/{assistant['assistant_id']}/schemas")
    assert set(shown["input_schema"]["properties"]) == {"messages"}
    assert set(shown["output_schema"]["properties"]) == {"messages", "reasoning"}
    assert {"seed", "budget", "domain"} <= set(shown["context_schema"]["properties"])
    drawn = server.ask(f"/assistants/{assistant['assistant_id']}/graph")
    assert {"think", "recheck", "branch", "ask_human", "record"} <= {node["id"] for node in drawn["nodes"]}
    assert not Path(server.store).exists(), "a look at the schema loaded the reasoner"


def test_a_run_is_an_episode(server):
    output = server.run(context={"seed": 3, "domain": "algebra"})
    report = output["reasoning"]
    assert report["answer"] and output["messages"][-1]["content"] == report["answer"]
    with EpisodeStore(server.store) as store:
        episode = store.get(report["episode_id"])
    assert (episode.status, episode.seed, episode.problem.domain) == ("completed", 3, "algebra")


def test_an_error_says_what_to_do(server):
    said = server.run(context={"budget": {"max_token": 3}})["__error__"]
    assert said["error"] == "ConfigurationError" and "max_tokens" in said["message"]


def test_a_run_can_be_cancelled_and_nothing_blocks_the_server(server):
    thread = server.ask("/threads", {})["thread_id"]
    for pause in (0.05, 0.1, 0.2, 0.4):
        run = server.ask(f"/threads/{thread}/runs", {"assistant_id": "reasoner", "input": PROBLEM})["run_id"]
        time.sleep(pause)
        server.ask(f"/threads/{thread}/runs/{run}/cancel?wait=1", {})
    with EpisodeStore(server.store) as store:
        wait_for(lambda: "running" not in [summary.status for summary in store.find()])
    log = server.log.read_text()
    assert "BlockingError" not in log and "Blocking call" not in log
