"""A person decides about a doubtful step, and by then the process that asked is gone.

The first process ends with the question in hand; a second one, with another engine, goes on from the files. It needs
`pip install langgraph-checkpoint-sqlite`.

    python examples/human_approval.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from nr_agent import EpisodeStore, create_reasoner, load_engine
from nr_agent.policies import AskHumanPolicy
from nr_agent.testing import ScriptedDetector

THREAD = {"configurable": {"thread_id": "order-7"}}


def run(folder: Path, given: object) -> object:
    """One process: open the files, go on with what is given."""
    engine = load_engine("nano")
    # The example has to ask: so its detector doubts the first division that it sees.
    doubt = lambda text: {"intra_step": 0.9 if "/" in text else 0.1}  # noqa: E731
    detector = ScriptedDetector(doubt, fingerprint=engine.fingerprint)
    with EpisodeStore(folder / "episodes.db") as store, SqliteSaver.from_conn_string(str(folder / "saver.db")) as saver:
        reasoner = create_reasoner(
            engine,
            detector=detector,
            policies={"intra_step": AskHumanPolicy(question="Is this step right?")},
            store=store,
            checkpointer=saver,
        )
        output = reasoner.invoke(given, THREAD, version="v2")
        if output.interrupts:
            asked = output.interrupts[0].value
            status = store.get(asked["episode_id"]).status
            print(f"{asked['question']} {asked['actions']}; the episode is {status}", flush=True)
    engine.shutdown()
    return output


def main() -> None:
    """Ask in one process, answer in another."""
    if len(sys.argv) > 1:
        run(Path(sys.argv[1]), {"messages": [{"role": "user", "content": "Solve for x: 12*x + 7 = 91"}]})
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, folder], check=True)  # noqa: S603 - this file
        output = run(Path(folder), Command(resume={"action": "continue"}))
    report = output.value["reasoning"]
    print(f"answer {report['answer']}, after {[item['kind'] for item in report['interventions']]}")


if __name__ == "__main__":
    main()
