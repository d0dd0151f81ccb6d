"""A model that was never taught to think aloud: without `<think>`, without correction tokens, it is solved with."""

import json
import subprocess
import sys

import pytest

from nr_agent.graphs import Budget, create_reasoner
from nr_agent.models.registry import load_engine
from nr_agent.policies import EarlyStopPolicy, RecheckPolicy
from nr_agent.policies.remedies import RECHECK_WORDS
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector
from nr_agent.tokens import CLOSING_SENTENCE, END_THINK, RECHECK, THINK

PROBLEM = "What is 2+3?"


@pytest.fixture(scope="module")
def engine(written):
    loaded = load_engine(str(written[0]))
    yield loaded
    loaded.shutdown()


def test_remedies_are_spoken_in_words_and_read_by_the_model(engine):
    store = EpisodeStore.in_memory()
    detector = ScriptedDetector([{"intra_step": 0.9}, {}, {"instance": 0.9}], fingerprint=engine.fingerprint)
    policies = {"intra_step": RecheckPolicy(), "instance": EarlyStopPolicy()}
    budget = Budget(max_step_tokens=12, max_answer_tokens=16)
    reasoner = create_reasoner(engine, detector=detector, policies=policies, store=store, budget=budget)
    report = reasoner.invoke({"messages": [{"role": "user", "content": PROBLEM}]})["reasoning"]
    recheck, stop = report["interventions"]
    assert [(done["kind"], done["mode"]) for done in (recheck, stop)] == [("recheck", "prompted"), ("stop", "prompted")]
    assert engine.codec.decode(recheck["inserted"]).strip() == RECHECK_WORDS.strip()
    closing = engine.codec.decode(stop["inserted"])
    assert closing.strip() == f"{CLOSING_SENTENCE}\n\n{END_THINK}"
    episode = store.get(report["episode_id"])
    text = engine.codec.decode(episode.ids)
    assert text.index(RECHECK_WORDS.strip()) < text.index(CLOSING_SENTENCE)
    assert text.startswith(f"<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n")
    assert all(engine.codec.control(token) is None for token in (THINK, END_THINK, RECHECK))


def test_the_command_line_solves_with_a_gguf_file(file):
    call = [sys.executable, "-m", "nr_agent.cli", "solve", PROBLEM, "--model", str(file), "--json"]
    done = subprocess.run([*call, "--no-control", "--max-tokens", "40"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["model"] == "tiny-llama.F32"
    assert told["steps"] and not told["interventions"]
    refused = subprocess.run(call, capture_output=True, text=True, check=False)
    assert refused.returncode == 3
    assert "--no-control" in refused.stderr
    assert "--out DIR" in refused.stderr
