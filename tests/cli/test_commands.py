"""The command line as a person meets it: outputs, errors in a line, exit codes."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from nr_agent.cli._output import one_line, sanitise
from nr_agent.cli.solve import Screen
from nr_agent.models.registry import find_model

PROBLEM = "State the final answer to the following arithmetic problem: 12 + 35 - 8 ="


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"NR_AGENT_HOME": str(tmp_path / "home"), "COLUMNS": "120"}


@pytest.fixture
def run(environment):
    def call(*arguments, stdin="", **settings):
        return subprocess.run(
            [sys.executable, "-m", "nr_agent.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment | settings,
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
    code = (
        "import sys; from nr_agent.cli.main import app; app(['solve', '--help'], standalone_mode=False); "
        "print([name for name in ('torch', 'transformers', 'langgraph', 'sqlalchemy', 'rich') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.splitlines()[-1] == "[]"


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


def test_a_problem_and_the_demo_are_not_solved_together(run):
    assert "give a problem, or --demo, not both" in failed(run("solve", "2+2", "--demo"), 2)
    assert "not both" not in failed(run("solve"), 2)


def test_a_problem_that_is_no_text_is_refused(environment):
    command = [sys.executable, "-m", "nr_agent.cli", "solve"]
    for arguments, stdin in (([b"\xff 1+1"], b""), (["-"], b"\xff 1+1")):
        done = subprocess.run([*command, *arguments], capture_output=True, env=environment, input=stdin, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(b"error: the problem is not text")


def test_a_model_that_does_not_exist_is_refused(run):
    assert "there is no model" in failed(run("solve", PROBLEM, "--model", "no/such/folder"), 3)


def test_a_folder_that_holds_no_checkpoint_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "config.json is missing" in failed(run("solve", PROBLEM, "--model", str(tmp_path / "empty")), 3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint without a detector."""
    from transformers import AutoTokenizer

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
    assert {"python", "nr-agent", "torch", "transformers", "langgraph", "sqlalchemy", "sqlite", "device"} <= set(states)


def test_doctor_names_what_is_broken_and_looks_at_the_rest(run, tmp_path):
    (tmp_path / "file").write_text("x")
    done = run("doctor", "--model", "no/such", "--store", str(tmp_path / "file" / "episodes.db"), "--json")
    assert done.returncode == 1
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert {what for what, finding in findings.items() if finding["state"] == "fail"} == {"model", "store"}
    assert "one of: nano" in findings["model"]["detail"]
    assert "choose another" in findings["store"]["detail"]


def test_doctor_tells_of_a_setting_without_sense_beside_all_the_rest(run):
    done = run("doctor", "--json", NR_AGENT_KEEP_TEXT="perhaps")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["settings"]["state"] == "fail" and "NR_AGENT_KEEP_TEXT" in findings["settings"]["detail"]
    assert findings["python"]["state"] == findings["sqlite"]["state"] == "ok" and {"device", "store"} <= set(findings)


def test_doctor_warns_of_a_missing_detector_and_fails_on_a_foreign_one(run, tiny, tmp_path):
    done = run("doctor", "--model", str(tiny))
    assert done.returncode == 0, done.stdout
    assert "! detector" in done.stdout
    assert "nr-agent fit" in done.stdout
    foreign = tmp_path / "foreign"
    shutil.copytree(tiny, foreign)
    shutil.copytree(find_model("nano") / "detector", foreign / "detector")
    done = run("doctor", "--model", str(foreign))
    assert done.returncode == 1
    assert "\u2717 detector" in done.stdout
    assert "was fitted on" in done.stdout


def test_an_interrupt_ends_with_a_line_and_its_own_code(environment):
    command = [sys.executable, "-u", "-m", "nr_agent.cli", "solve", PROBLEM]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert any(line.startswith("episode") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert said == "interrupted\n"


def test_an_unexpected_error_is_a_line_and_the_way_to_its_traceback(capsys, monkeypatch):
    main = importlib.import_module("nr_agent.cli.main")

    def break_down():
        raise RuntimeError("first\nsecond \x1b[2J")

    monkeypatch.setattr(main, "app", break_down)
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["error: RuntimeError: first second \ufffd[2J", "  set NR_AGENT_DEBUG=1 to see where"]
    monkeypatch.setenv("NR_AGENT_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main.main()


def test_an_interrupt_that_an_import_wrapped_is_an_interrupt(capsys, monkeypatch):
    main = importlib.import_module("nr_agent.cli.main")

    def break_down():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("could not import module") from error

    monkeypatch.setattr(main, "app", break_down)
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_traceback_of_an_error_is_shown_where_it_is_asked_for(run):
    done = run("solve", "", NR_AGENT_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ProblemError: the problem is empty" in done.stderr


def test_a_terminal_without_the_signs_still_shows_the_episode(run):
    done = run("solve", PROBLEM, "--seed", "1", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "? answer" in done.stdout


def test_models_are_listed(run):
    assert "nano" in run("models", "ls").stdout


def test_an_exported_episode_holds_its_correction_tokens(run, tmp_path):
    told = [json.loads(line) for line in run("solve", "--demo", "--json").stdout.splitlines()]
    spoken = [done["kind"] for one in told for done in one["interventions"] if done["kind"] in ("recheck", "branch")]
    assert spoken
    done = run("export", "--format", "messages", "--out", str(tmp_path / "out"), "--outcome", "any")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == len(told)
    written = "".join(row["messages"][-1]["content"] for row in rows)
    for kind in ("recheck", "branch"):
        assert written.count(f"<|{kind}|>") == spoken.count(kind)


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\u202eabc", "\x9b31m", "a\x00b", "\u2028x", "\ud800"])
def test_model_text_cannot_move_the_terminal(hostile):
    shown = sanitise(hostile)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert len(one_line(hostile * 50, 40)) <= 40


def step(index, branch, *parts):
    shown = [{"provenance": provenance, "text": text} for provenance, text in parts]
    return {"type": "nr.step", "episode_id": "e", "index": index, "kind": "think", "branch": branch, "parts": shown}


@pytest.fixture
def shown():
    def show(*events, terminal=False):
        colours = "standard" if terminal else None
        console = Console(highlight=False, soft_wrap=True, emoji=False, force_terminal=terminal, color_system=colours)
        with console.capture() as capture:
            screen = Screen(console, quiet=False)
            for event in events:
                screen.show(event)
        return capture.get()

    return show


@pytest.mark.parametrize("text", ["[red]x[/red]", ":smile: [/]", "<|recheck|> </think>", "[link=http://a]b[/link]"])
def test_markup_in_model_text_is_shown_as_it_is_written(shown, text):
    opened = {"type": "nr.open", "episode_id": "e", "problem": text, "model": "m", "prompt_tokens": 1}
    assert shown(opened, step(1, "main", ("model", text))).count(text) == 2


def test_inserted_text_has_a_sign_as_well_as_a_colour(shown):
    event = step(1, "main", ("inserted", "<|recheck|>"), ("model", "Let me redo that\n\n"))
    assert "\u25b8<|recheck|>Let me redo that" in shown(event)
    assert "\x1b[36m\u25b8<|recheck|>\x1b[0mLet me redo that\n" in shown(event, terminal=True)


def test_branches_that_were_given_up_are_named(shown):
    usage = {"output": 3, "thinking": 1, "answer": 1, "inserted": 1, "discarded": 0}
    branch = {"branches": ["branch-1", "branch-2"], "kept": "branch-2"}
    report = {"answer": None, "usage": usage, "interventions": [branch, {"branches": [], "kept": None}]}
    end = {"type": "nr.stop", "episode_id": "e", "reason": "early_stop", "report": report}
    text = shown(step(2, "branch-1", ("model", "a")), end)
    assert "[branch-1] a" in text
    assert "\u2717 discarded  branch-1, in favour of branch-2" in text
    assert "no answer" in text
