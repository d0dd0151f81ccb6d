"""The command line as a person meets it: outputs, errors in a line, exit codes."""

import json
import os
import subprocess
import sys

import pytest

from nr_agent.cli._output import one_line, sanitise

PROBLEM = "State the final answer to the following arithmetic problem: 12 + 35 - 8 ="


@pytest.fixture
def run(tmp_path):
    def call(*arguments, stdin=""):
        environment = os.environ | {"NR_AGENT_HOME": str(tmp_path / "home"), "COLUMNS": "120"}
        return subprocess.run(
            [sys.executable, "-m", "nr_agent.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            input=stdin,
            check=False,
        )

    return call


def failed(done, code):
    """An error is short, has a remedy, and no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) == 2, done.stderr
    return done.stderr


def test_help_lists_the_commands_and_loads_nothing_heavy(run):
    done = run("--help")
    assert done.returncode == 0
    for command in ("solve", "fit", "eval", "export", "episodes", "models", "doctor"):
        assert command in done.stdout
    assert run("--version").stdout.startswith("nr-agent 0.")


def test_solving_shows_steps_answer_counts_and_the_episode(run):
    done = run("solve", PROBLEM, "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert "12+35" in done.stdout
    assert "answer" in done.stdout
    assert "tokens" in done.stdout
    shown = done.stdout.strip().splitlines()[-1].split()[-1]
    episode = run("episodes", "show", shown, "--json")
    assert json.loads(episode.stdout)["id"] == shown
    assert shown[:8] in run("episodes", "ls").stdout


def test_json_is_one_object_and_nothing_else(run):
    done = run("solve", "-", "--seed", "1", "--json", stdin=PROBLEM)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["schema_version"] == 1
    assert {"answer", "stop_reason", "episode_id", "steps", "events", "interventions", "usage", "seed"} <= set(told)
    assert told["usage"]["output"] == sum(step["tokens"] for step in told["steps"])


def test_the_same_seed_gives_the_same_tokens(run):
    first, again = (json.loads(run("solve", PROBLEM, "--seed", "5", "--json").stdout) for _ in range(2))
    assert first["steps"] == [step | {"episode_id": first["episode_id"]} for step in again["steps"]]


@pytest.mark.parametrize("empty", ["", "   \n "])
def test_an_empty_problem_is_refused(run, empty):
    assert "the problem is empty" in failed(run("solve", empty), 2)


def test_a_model_that_does_not_exist_is_refused(run):
    assert "there is no model" in failed(run("solve", PROBLEM, "--model", "no/such/folder"), 3)


def test_a_folder_that_holds_no_checkpoint_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "config.json is missing" in failed(run("solve", PROBLEM, "--model", str(tmp_path / "empty")), 3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint without a detector."""
    from transformers import AutoTokenizer

    from nr_agent.models.registry import find_model
    from nr_agent.training.pretrain import build_model, save_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(find_model("nano"))
    save_model(build_model("tiny", tokenizer), tokenizer, folder)
    return folder


def test_a_checkpoint_without_a_detector_needs_no_control_or_a_fit(run, tiny):
    assert "--no-control" in failed(run("solve", PROBLEM, "--model", str(tiny)), 3)
    done = run("solve", PROBLEM, "--model", str(tiny), "--no-control", "--max-tokens", "40")
    assert done.returncode == 0, done.stderr


def test_a_detector_of_another_model_is_refused(run, tiny):
    from nr_agent.models.registry import find_model

    detector = find_model("nano") / "detector"
    done = run("solve", PROBLEM, "--model", str(tiny), "--detector", str(detector))
    assert "was fitted on" in failed(done, 3)
    assert list(json.loads(run("episodes", "ls", "--json").stdout or "[]")) == []


def test_a_prompt_beyond_the_context_is_refused_and_leaves_no_episode(run):
    error = failed(run("solve", "1 + " * 3000 + "1"), 2)
    assert "2048" in error
    assert list(json.loads(run("episodes", "ls", "--json").stdout or "[]")) == []


def test_a_store_that_cannot_be_written_is_refused(run, tmp_path):
    assert "error" in failed(run("solve", PROBLEM, "--store", f"sqlite:///file:{tmp_path}/ro.db?mode=ro&uri=true"), 4)
    (tmp_path / "file").write_text("x")
    assert "error" in failed(run("solve", PROBLEM, "--store", str(tmp_path / "file" / "episodes.db")), 4)


def test_unknown_policies_name_the_known_ones(run):
    assert "default" in failed(run("solve", PROBLEM, "--policies", "astrology"), 2)


def test_doctor_finds_everything_in_order(run):
    done = run("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    states = {finding["what"]: finding["state"] for finding in json.loads(done.stdout)}
    assert states["model"] == states["detector"] == states["control tokens"] == "ok"
    assert run("doctor", "--model", "no/such").returncode == 1


def test_models_are_listed(run):
    assert "nano" in run("models", "ls").stdout


def test_an_exported_episode_holds_its_correction_tokens(run, tmp_path):
    told = json.loads(run("solve", "--demo", "--json").stdout.splitlines()[0])
    assert told["interventions"]
    done = run("export", "--format", "messages", "--out", str(tmp_path / "out"), "--outcome", "any")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert rows
    written = "".join(row["messages"][-1]["content"] for row in rows)
    assert "</think>" in written


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\u202eabc", "\x9b31m", "a\x00b"])
def test_model_text_cannot_move_the_terminal(hostile):
    shown = sanitise(hostile)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert len(one_line(hostile * 50, 40)) <= 40
