"""A process that dies takes nothing with it but time: what was kept is enough to go on with the same result."""

import json
import signal
import subprocess
import sys

PROGRAM = """
import json, os, signal, sys
from langgraph.checkpoint.sqlite import SqliteSaver
from nr_agent.engine.protocol import Sampling, StopSpec
from nr_agent.graphs import create_reasoner
from nr_agent.models.registry import load_engine
from nr_agent.store import EpisodeStore

folder, part = sys.argv[1:]
engine = load_engine("nano")
warm = Sampling(temperature=1.0)
asked = {"messages": [{"role": "user", "content": "Find the value of x in the equation: 3*x + 4 = 19"}]}
thread = {"configurable": {"thread_id": "1"}}
kept = f"{folder}/kept.json"

if part == "whole":
    ref = engine.open([30, 31, 32, 33], seed=5)
    ids = engine.extend(ref, stop=StopSpec(max_new=20), sampling=warm).ids
elif part == "first":
    ref = engine.open([30, 31, 32, 33], seed=5)
    ref = engine.extend(ref, stop=StopSpec(max_new=9), sampling=warm).ref
    with open(kept, "w") as file:
        json.dump(engine.tokens(ref), file)
else:
    with open(kept) as file:
        ids = json.load(file)
    ids = ids[4:] + engine.extend(engine.restore(ids, seed=5), stop=StopSpec(max_new=11), sampling=warm).ids

checkpoints = f"{folder}/{'whole' if part == 'whole' else 'parts'}.db"
with SqliteSaver.from_conn_string(checkpoints) as saver:
    store = EpisodeStore(checkpoints.replace(".db", "-episodes.db"))
    reasoner = create_reasoner(engine, detector=None, store=store, sampling=warm, seed=3, checkpointer=saver)
    if part == "first":
        steps, passes = [], []

        def kill(*_):
            passes.append(len(steps))
            if len(steps) > 1 and passes.count(len(steps)) > 5:  # in the middle of a step
                os.kill(os.getpid(), signal.SIGKILL)

        engine.model.register_forward_hook(kill)
        for event in reasoner.stream(asked, thread, stream_mode="custom"):
            steps += [event] if event["type"] == "nr.step" else []
        raise SystemExit("it was never killed")
    report = reasoner.invoke(asked if part == "whole" else None, thread)["reasoning"]
    episode = store.get(report["episode_id"])
    print(json.dumps({"ids": ids, "episode": episode.ids, "answer": report["answer"], "steps": len(episode.steps)}))
"""


def test_a_killed_process_is_gone_on_from_with_the_same_result(tmp_path):
    """An engine's sequence by its ids, and a graph's run by its checkpoints and the episode store."""

    def run(part):
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path), part], capture_output=True, text=True, check=False
        )

    whole, killed = run("whole"), run("first")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run("second")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout) == json.loads(whole.stdout)
    assert json.loads(resumed.stdout)["steps"] > 2
