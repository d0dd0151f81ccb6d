"""`nr-agent episodes` and `nr-agent export`, as they are typed."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from export_helpers import make_episode, rechecked, stopped

from nr_agent.cli.main import app
from nr_agent.episode import Episode, Problem
from nr_agent.errors import ConfigurationError, ExportError, ModelError, NotFoundError, StoreError
from nr_agent.store import EpisodeStore

EVIL = "\x1b]0;owned\x07\x1b[2J[bold]12 + 35[/bold] \u202e"


@pytest.fixture
def place(tmp_path, codec, monkeypatch) -> Path:
    """A store with three episodes, which is the default one."""
    path = tmp_path / "episodes.db"
    monkeypatch.setenv("NR_AGENT_STORE", str(path))
    with EpisodeStore(path) as store:
        store.begin(rechecked(codec, "aa-recheck"))
        store.begin(stopped(codec, "bb-stop", correct=False, status="failed"))
        end = [("m", f"</think>\n\n{EVIL}<|im_end|>")]
        evil = make_episode(codec, [[("m", f"{EVIL}\n\n")]], end, question=EVIL, episode_id="cc-evil")
        store.begin(evil.model_copy(update={"answer": EVIL, "error": EVIL}))
    return path


@pytest.fixture
def own(tmp_path, tokenizer) -> Path:
    """A folder with the tokenizer that thought the episodes."""
    return save(tokenizer, tmp_path / "model")


def save(tokenizer, folder: Path) -> Path:
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "qwen3", "num_hidden_layers": 1, "hidden_size": 8}')
    return folder


@pytest.fixture
def nr(capsys):
    """Run a command in this process; gives standard output and standard error."""

    def run(line: str) -> tuple[str, str]:
        capsys.readouterr()
        app(shlex.split(line), standalone_mode=False)
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def test_ls_shows_the_newest_first(place, nr):
    out, err = nr("episodes ls")
    lines = [line for line in out.splitlines() if "-" in line[:6]]
    assert [line.split()[0] for line in lines] == ["cc-evil", "bb-stop", "aa-recheck"]
    assert "What is 12 + 35?" in lines[2]
    assert "right" in lines[2]
    assert "wrong" in lines[1]
    assert err == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--limit 1", ["cc-evil"]),
        ("--status failed", ["bb-stop"]),
        ("--event overthinking", ["bb-stop"]),
        ("--event intra_step", ["aa-recheck"]),
        ("--task nothing", []),
    ],
)
def test_ls_filters_and_writes_an_object_a_line(place, nr, options, expected):
    out, _ = nr(f"episodes ls --json {options}")
    assert [json.loads(line)["id"] for line in out.splitlines()] == expected


def test_ls_of_an_unknown_status_names_the_option(place, nr):
    with pytest.raises(ConfigurationError, match="--status"):
        nr("episodes ls --status nonsense")


def test_show_tells_what_happened_where_it_happened(place, nr):
    out, _ = nr("episodes show aa")
    story = [
        "12 + 35 = 46",
        "\u26a0 intra_step / calculation: score 0.90 over 0.50",
        "\u21b3 recheck",
        "\u25b8 <|recheck|>12 + 35 = 47",
        "\u2713 answer: 47 (right)",
    ]
    places = [out.index(part) for part in story]
    assert places == sorted(places)


def test_show_marks_what_was_given_up(place, nr):
    with EpisodeStore(place) as store:
        store.discard("aa-recheck", [2])
    out, _ = nr("episodes show aa")
    assert "-- 2 think (\u2717 given up" in out


def test_model_text_does_not_reach_the_terminal_as_commands(place, nr):
    for line in ("episodes ls", "episodes show cc", "export --preview 3 --outcome any"):
        out, err = nr(line)
        assert not {"\x1b", "\x07", "\u202e"} & set(out + err), line
    out, _ = nr("episodes show cc")
    assert "[bold]12 + 35[/bold]" in out


def test_show_as_json_is_the_whole_episode(place, nr, codec):
    out, _ = nr("episodes show aa --json")
    found = json.loads(out)
    assert [step["ids"] for step in found["steps"]] == [step.ids for step in rechecked(codec).steps]


def test_json_is_ascii_and_comes_back_as_it_was(place, nr, codec):
    """No encoding loses a sign of it, and no terminal obeys one: U+009B begins a command."""
    text = "\u2211 of 1 to 3\x9b31m?"
    with EpisodeStore(place) as store:
        store.begin(rechecked(codec, "dd-odd", problem=Problem(text=text)))
    with EpisodeStore(place) as store:
        whole = store.get("dd-odd")
    shown, _ = nr("episodes show dd --json")
    listed, _ = nr("episodes ls --limit 1 --json")
    assert shown.isascii() and Episode.model_validate_json(shown) == whole
    assert listed.isascii() and json.loads(listed)["problem"] == whole.problem.text == text


def test_what_is_not_there_is_an_error_that_says_so(place, nr, tmp_path):
    with pytest.raises(NotFoundError, match="zz"):
        nr("episodes show zz")
    for line in ("episodes ls", "episodes show last", f"export --out {tmp_path / 'x'}"):
        with pytest.raises(StoreError, match="there is no episode store"):
            nr(f"{line} --store {tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()


def test_export_writes_the_folder_and_says_what_is_in_it(place, nr, tmp_path):
    out, err = nr(f"export --out {tmp_path / 'x'}")
    assert out == f"{tmp_path / 'x'}\n"
    assert "2 rows of 2 episodes" in err
    assert "mask respond" in err
    out, _ = nr(f"export --out {tmp_path / 'y'} --outcome any --format pretokenized --files jsonl --json")
    assert json.loads(out) == json.loads((tmp_path / "y" / "manifest.json").read_text())
    with pytest.raises(ExportError, match="there already"):
        nr(f"export --out {tmp_path / 'x'}")
    nr(f"export --out {tmp_path / 'x'} --overwrite")


def test_export_cuts_and_verifies_with_a_models_tokenizer(place, nr, tmp_path, own):
    for form in ("messages", "pretokenized"):
        out = tmp_path / form
        _, err = nr(
            f"export --out {out} --format {form} --files jsonl --mask clean --verify --outcome any --tokenizer {own}"
        )
        assert "verified: 2 rows" in err
        assert "<|recheck|>" not in (out / "train.jsonl").read_text()


@pytest.mark.parametrize(
    ("named", "others", "told"),
    [
        ("", "", 1),  # the newest right one is the first model's
        ("", "--outcome wrong", 1),
        ("", "--outcome any", 2),  # one tokenizer cannot cut what two thought
        ("", "--outcome any --model first", 1),
        ("", "--outcome any --model second", 1),
        ("--tokenizer first", "--outcome any --model first", 1),
    ],
)
def test_export_cuts_with_the_tokenizer_of_the_newest_episode_that_was_asked_for(
    nr, tmp_path, monkeypatch, codec, other_codec, tokenizer, other_tokenizer, named, others, told
):
    monkeypatch.setenv("NR_AGENT_STORE", str(tmp_path / "two.db"))
    models = tmp_path / "home" / "models"
    save(tokenizer, models / "first")
    save(other_tokenizer, models / "second")
    with EpisodeStore(tmp_path / "two.db") as store:
        began = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)]
        store.begin(rechecked(codec, "a", model="first", created_at=began[0]))
        store.begin(rechecked(other_codec, "b", model="second", created_at=began[1], correct=False))
    out, _ = nr(f"export --out {tmp_path / 'out'} --format axolotl {named} {others} --json")
    manifest = json.loads(out)
    assert (manifest["rows"], manifest["episodes"]) == (1, told)
    other = "thought with another tokenizer than the one that is to cut it"
    assert manifest["refused"] == ({other: 1} if told == 2 else {})


def test_export_says_how_to_name_the_tokenizer_of_a_model_that_is_gone(nr, place, tmp_path, codec, own):
    with EpisodeStore(place) as store:
        store.begin(rechecked(codec, "dd", model="gone"))
    with pytest.raises(ModelError, match="'gone'") as caught:
        nr(f"export --out {tmp_path / 'x'} --mask clean")
    assert "--tokenizer" in caught.value.hint
    nr(f"export --out {tmp_path / 'x'} --mask clean --tokenizer {own}")


@pytest.mark.parametrize(
    ("options", "effect", "treatments"),
    [
        ("--format pretokenized", "are shown, not trained", ["mask", "train", "mask", "mask", "train", "train"]),
        ("--format messages", "trained like the rest", ["mask", "train", "train", "train", "train", "train"]),
    ],
)
def test_preview_shows_what_is_trained_and_writes_nothing(place, nr, tmp_path, options, effect, treatments):
    before = {path.name for path in tmp_path.iterdir()}
    out, _ = nr(f"export --preview 1 {options}")
    said, *shown = out.splitlines()
    assert said.startswith("mask respond: ")
    assert effect in said
    assert [line.split()[0] for line in shown] == ["==", *treatments]
    assert {path.name for path in tmp_path.iterdir()} == before


def test_preview_of_clean_messages_shows_what_is_removed(place, nr, own):
    out, _ = nr(f"export --preview 1 --mask clean --tokenizer {own}")
    treatments = [line.split()[0] for line in out.splitlines()[2:]]
    assert treatments == ["mask", "train", "remove", "remove", "train", "train"]


@pytest.mark.parametrize("form", ["messages", "pretokenized", "axolotl", "preference", "stepwise"])
def test_preview_says_what_is_left_out_and_why(place, nr, codec, own, form):
    with EpisodeStore(place) as store:
        store.begin(rechecked(codec, "dd-talk", settings={"turns": 3, "tools": 0}))
    with EpisodeStore(place, redact=lambda text: text.replace("35", "[x]")) as store:
        store.begin(rechecked(codec, "ee-redacted"))
    out, _ = nr(f"export --preview 9 --format {form} --tokenizer {own}")
    lines = out.splitlines()
    after = {line[3:]: lines[at + 1] for at, line in enumerate(lines) if line.startswith("== ")}
    talk, redacted = after["dd-talk"], after["ee-redacted"]
    assert (talk == "left out: a conversation before the problem") == (form != "pretokenized")
    assert (redacted == "left out: tokens were redacted") == (form != "messages")


def test_preview_shows_a_step_whole_where_only_its_own_tokenizer_could_cut_it(
    place, nr, tmp_path, codec, own, other_tokenizer
):
    with EpisodeStore(place, redact=lambda text: text.replace("35", "[x]")) as store:
        store.begin(rechecked(codec, "ee-redacted"))
    out, _ = nr(f"export --preview 9 --tokenizer {own}")
    assert "tokens of: <|recheck|>12 + [x] = 47" in out
    out, _ = nr(f"export --preview 1 --tokenizer {save(other_tokenizer, tmp_path / 'other')}")
    assert "tokens of: <|recheck|>12 + 35 = 47" in out
    assert "12 + 34" not in out


def test_export_without_a_place_says_what_to_do(place, nr):
    with pytest.raises(ConfigurationError, match="where to write") as caught:
        nr("export")
    assert "--out" in caught.value.hint


def test_errors_are_a_line_and_a_hint_with_their_exit_code(place, tmp_path):
    command = [sys.executable, "-m", "nr_agent.cli", "episodes", "show", "zz", "--store", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[0] == "error: there is no episode 'zz'"


def test_preview_on_a_terminal_colours_tokens_by_whether_they_are_trained(place, codec, monkeypatch):
    from rich.console import Console

    from nr_agent.cli import _preview

    recorded = Console(record=True, force_terminal=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    monkeypatch.setattr(_preview, "_console", lambda: recorded)
    app(shlex.split("export --preview 1"), standalone_mode=False)
    recorded.file.close()
    shown = recorded.export_text(styles=True)
    lines = [line for line in shown.splitlines() if "train  " in line or "mask   " in line]
    assert lines
    assert all(("\x1b[32m" in line) == ("train  " in line) for line in lines)
    assert all(("\x1b[90m" in line) == ("mask   " in line) for line in lines)


def test_preview_of_pairs_shows_both(place, nr, own):
    out, _ = nr(f"export --preview 1 --format preference --tokenizer {own}")
    said, *shown = out.splitlines()
    assert "count every token of a pair" in said
    assert [line.split()[0] for line in shown] == ["==", "prompt", "chosen", "rejected"]


def test_export_chooses_by_domain_model_event_and_time(place, nr, tmp_path):
    for number, (options, count) in enumerate(
        [("--domain math", 2), ("--model nano --event intra_step", 1), ("--since 1h", 2)]
    ):
        out, _ = nr(f"export --out {tmp_path / str(number)} {options} --json")
        assert json.loads(out)["episodes"] == count, options
    with pytest.raises(ConfigurationError, match="--since"):
        nr(f"export --out {tmp_path / 'x'} --since yesterday")


@pytest.mark.parametrize("options", ["--domain law", "--outcome wrong", "--domain law --preview 2"])
def test_an_export_without_a_row_is_an_error_that_says_what_to_look_at(place, nr, tmp_path, options):
    with pytest.raises(ExportError, match=r"no row|no episode") as caught:
        nr(f"export --out {tmp_path / 'x'} {options}")
    assert "episodes ls" in caught.value.hint


@pytest.mark.parametrize("option", ["--event oscilation", "--intervention recheckk", "--outcome wrongg"])
def test_a_filter_that_nothing_can_meet_is_refused_and_names_what_there_is(place, nr, option):
    with pytest.raises(ConfigurationError, match=option.split()[0]) as caught:
        nr(f"episodes ls {option}")
    assert "choose from" in caught.value.hint


@pytest.mark.parametrize("out", ["file", "file/x", "folder", "/proc/x", "."])
def test_a_place_that_cannot_be_written_is_an_error_and_what_is_there_stays(place, nr, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    for options in ("", " --overwrite"):
        with pytest.raises(ExportError) as caught:
            nr(f"export --out {out}{options}")
        assert caught.value.hint
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "notes").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_every_mistake_has_an_exit_code_and_no_traceback(place, tmp_path):
    (tmp_path / "text").write_text("a file of mine")
    for line, code in (
        ("export", 2),
        (f"export --out {tmp_path / 'text'}", 1),
        (f"export --out {tmp_path / 'x'} --format nonsense", 2),
        (f"export --out {tmp_path / 'x'} --mask nonsense", 2),
        (f"export --out {tmp_path / 'x'} --tokenizer nothing-like-it", 3),
        (f"export --out {tmp_path / 'x'} --store {tmp_path / 'text'}", 4),
        ("episodes annotate aa note --step 99", 3),
        ("db prune", 2),
        (f"db check --store {tmp_path / 'text'}", 4),
        (f"train --data {tmp_path} --out {tmp_path / 'run'}", 1 if importlib.util.find_spec("trl") else 2),
    ):
        command = [sys.executable, "-m", "nr_agent.cli", *shlex.split(line)]
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (code, ""), (line, said)
        assert said[0].startswith("error: "), line
        assert said[1].startswith("  "), line
        assert "Traceback" not in done.stderr
    assert (tmp_path / "text").read_text() == "a file of mine"
