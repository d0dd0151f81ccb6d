"""`nr-agent policies`, and `--policies` where a person may be asked."""

import json

import pytest
import typer
from langgraph.checkpoint.memory import InMemorySaver
from typer.testing import CliRunner

from nr_agent.cli.demo import Demo
from nr_agent.cli.main import app
from nr_agent.cli.solve import _solve
from nr_agent.graphs import create_reasoner
from nr_agent.policies import AskHumanPolicy, pack_names
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedDetector, ScriptedEngine

BROKEN = "name: x\nrefractory: -1\non:\n  instance: {policy: {name: early}}\n"


def call(*arguments, code=0, given=None):
    done = CliRunner().invoke(app, ["policies", *arguments], input=given, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def test_list_names_packs_and_policies():
    listed = [json.loads(line) for line in call("ls", "--json").stdout.splitlines()]
    packs = [one["name"] for one in listed if one["kind"] == "pack"]
    assert packs == pack_names() and {"code", "medicine", "finance"} <= set(packs)
    assert "run_tests" in [one["name"] for one in listed if one["kind"] == "policy"]
    assert all(one["about"] in call("ls").stdout for one in listed)


def test_show_gives_rules_in_order_with_their_reasons():
    shown = json.loads(call("show", "finance", "--json").stdout)
    assert shown["name"] == "finance" and shown["max_interventions"] == 5
    rules = [(rule["address"], rule["policy"]) for rule in shown["rules"]]
    assert rules[:2] == [("intra_step.calculation", "ask_human"), ("intra_step.calculation", "recheck")]
    text = call("show", "finance").stdout
    assert all(rule["reason"] and rule["reason"] in text for rule in shown["rules"])
    assert shown["alarms"] == {} and "alarms of" not in text


def test_show_says_how_many_false_alarms_a_pack_puts_up_with():
    assert json.loads(call("show", "default", "--json").stdout)["alarms"] == {"intra_step": 0.2}
    assert "alarms of intra_step in up to 20% of the good traces\n" in call("show", "default").stdout


def test_validate_tells_every_fault_and_its_remedy(tmp_path):
    broken, sound = tmp_path / "broken.yaml", tmp_path / "sound.yaml"
    broken.write_text(BROKEN)
    sound.write_text("name: x\non: {instance: {policy: {name: early_stop}}}")
    assert "x is valid, 1 rules" in call("validate", str(sound)).stdout
    done = call("validate", str(broken), code=2)
    assert done.stdout == "" and done.stderr.count("error: ") == 2
    assert f"{broken}:2: refractory: " in done.stderr
    assert f"{broken}:4: on.instance.policy: there is no policy 'early'\n  allowed: 'recheck'" in done.stderr
    said = json.loads(call("validate", str(broken), "--json", code=2).stdout)
    assert [(fault["line"], fault["key"]) for fault in said["faults"]] == [(2, "refractory"), (4, "on.instance.policy")]
    assert call("validate", str(tmp_path / "none.yaml"), code=2).stderr.startswith("error: ")


def think(store, word):
    """An episode under the default pack, whose second step says a word."""
    engine = ScriptedEngine(["2+2=5", f"{word} 5-1=4", "So the answer is 4.", "enough", "more"])
    watch = ScriptedDetector(lambda text: {"intra_step": 0.8 * ("slip" in text), "instance": 0.9 * ("enough" in text)})
    create_reasoner(engine, detector=watch, store=store).invoke({"messages": [("user", "2+2-1?")]})


@pytest.fixture
def stored(tmp_path):
    """Two episodes: a slip that was rechecked, and one in which nothing was seen."""
    location = str(tmp_path / "episodes.db")
    with EpisodeStore(location) as store:
        for word in ("slip", "fine"):
            think(store, word)
    return location


def test_test_shows_what_another_pack_would_have_done(stored, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "name: own\nalarms: {intra_step: 0.2}\non:\n  intra_step: {policy: {name: ask_human}}\n"
        "  instance: {min_score: 0.95, policy: {name: early_stop}}\n"
    )
    same = json.loads(call("test", "default", "--store", stored, "--json").stdout)
    assert (same["episodes"], same["points"], same["changed"]) == (2, 3, 0)
    assert (same["without_texts"], same["other_alarms"]) == (0, 0)
    other = json.loads(call("test", str(own), "--store", stored, "--json").stdout)
    assert other["changes"] == {"rollback -> ask_human": 1, "stop -> continue": 2}
    assert other["episodes_changed"] == 2
    newest = json.loads(call("test", str(own), "--store", stored, "--last", "1", "--json").stdout)
    assert newest["changes"] == {"stop -> continue": 1}
    text = call("test", str(own), "--store", stored).stdout
    assert "2 episodes, 3 steps with events; under own 3 are decided otherwise, in 2 episodes" in text
    assert "   step   2  rollback -> ask_human  (intra_step.calculation 0.80)" in text
    assert " ~ step   4  stop -> continue" in text
    assert "without their texts" not in text and "other alarms" not in text


def test_test_leaves_out_what_was_stored_without_its_texts_and_says_so(stored):
    with EpisodeStore(stored, keep_text=False) as store:
        think(store, "slip")
    found = json.loads(call("test", "default", "--store", stored, "--json").stdout)
    assert (found["episodes"], found["points"], found["changed"], found["without_texts"]) == (2, 3, 0, 1)
    text = call("test", "default", "--store", stored).stdout
    assert "2 episodes, 3 steps with events; " in text
    assert "1 episodes were stored without their texts and cannot be replayed\n" in text


def test_test_says_where_the_detector_was_asked_for_other_alarms(stored, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("name: own\non: {intra_step: {policy: {name: recheck}}}\n")
    found = json.loads(call("test", str(own), "--store", stored, "--json").stdout)
    points = [point for one in found["replays"] for point in one["points"]]
    assert found["other_alarms"] == found["episodes"] == 2
    assert points and not any(point["exact"] for point in points)
    text = call("test", str(own), "--store", stored).stdout
    assert "2 episodes were recorded with other alarms than own asks for: their events are those of the " in text
    assert " ~ step   2  rollback -> recheck" in text


@pytest.mark.parametrize(
    ("said", "answer", "reason"),
    [
        ("answer\n7\n", "7", "human"),
        ("answer\n\n   \n 7 \n", "7", "human"),
        ("nonsense\nstop\n", "42", "human"),
        ("\n", "42", "finished"),
    ],
)
def test_person_at_the_terminal_is_asked_and_obeyed(said, answer, reason):
    watch = ScriptedDetector(lambda text: {"intra_step": 0.9 * ("5" in text)})
    policies = {"intra_step": AskHumanPolicy(question="Really, step {step}?")}
    reasoner = create_reasoner(
        ScriptedEngine(["2+2=5", "fine"]), detector=watch, policies=policies, checkpointer=InMemorySaver()
    )
    with CliRunner().isolation(input=said) as (output, *_):
        report = _solve(reasoner, Demo("2+2?", 0), False)
        assert b"Really, step 1?" in output.getvalue()
    assert (report["answer"], report["stop_reason"]) == (answer, reason)
    assert [one["kind"] for one in report["interventions"]][:1] == ["ask_human"]


@pytest.mark.parametrize(
    "pressed",
    [None, typer.Abort(), KeyboardInterrupt()],
    ids=["end of input", "Ctrl-C while typing", "Ctrl-C beside it"],
)
def test_whoever_leaves_a_question_has_interrupted_the_episode(pressed, monkeypatch):
    """`main` makes exit code 130 of it."""

    def prompt(*_, **__):
        raise pressed

    if pressed is not None:
        monkeypatch.setattr("typer.prompt", prompt)
    engine, store = ScriptedEngine(["2+2=5", "fine"]), EpisodeStore.in_memory()
    watch = ScriptedDetector(lambda text: {"intra_step": 0.9 * ("5" in text)})
    policies = {"intra_step": AskHumanPolicy()}
    reasoner = create_reasoner(engine, detector=watch, policies=policies, store=store, checkpointer=InMemorySaver())
    with CliRunner().isolation(input=""), pytest.raises(KeyboardInterrupt):
        _solve(reasoner, Demo("2+2?", 0), False)
    assert [summary.status for summary in store.find()] == ["interrupted"]
    assert engine.open_sequences == 0
