"""What `nr-agent fit` makes of its options, and what it refuses before anything is loaded."""

import pytest
from typer.testing import CliRunner

import nr_agent.detection.fit as detection_fit
from nr_agent.cli.main import app
from nr_agent.detection.fit import FitSettings
from nr_agent.models import across, registry


def test_an_unknown_ranking_or_layer_is_refused_before_anything_is_loaded(tmp_path):
    for option, value in (("--ranking", "depass"), ("--layers", "7")):
        failed = CliRunner().invoke(app, ["fit", "--out", str(tmp_path), option, value])
        assert type(failed.exception).__name__ == "ConfigurationError"
        assert value in str(failed.exception)


@pytest.mark.parametrize(
    ("option", "value", "meant"), [("--ranking", "mean_difference", "logit_attribution"), ("--layers", "all", "middle")]
)
def test_published_beside_another_choice_is_refused_and_beside_its_own_is_not(
    tmp_path, monkeypatch, option, value, meant
):
    class LoadingError(Exception):
        pass

    def load(*_):
        raise LoadingError

    monkeypatch.setattr(registry, "load_engine", load)
    fitting = ["fit", "--out", str(tmp_path), "--n", "20", "--tasks", "chain_sum", "--published", option]
    failed = CliRunner().invoke(app, [*fitting, value])
    assert type(failed.exception).__name__ == "ConfigurationError"
    assert f"{option} {meant}" in str(failed.exception)
    assert isinstance(CliRunner().invoke(app, [*fitting, meant]).exception, LoadingError)


def test_fit_gets_what_the_command_line_says(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(across, "sampler", lambda *_: None)
    monkeypatch.setattr(detection_fit, "fit", lambda *given, **_: taken.append(given[3]))
    fitting = ["fit", "--out", str(tmp_path), "--n", "20", "--tasks", "chain_sum"]
    for more in ([], ["--max-tokens", "1024", "--layers", "middle"], ["--published", "--max-tokens", "99"]):
        assert CliRunner().invoke(app, [*fitting, *more], catch_exceptions=False).exit_code == 0
    usual, chosen, published = taken
    assert usual == FitSettings()
    assert chosen == FitSettings(max_tokens=1024, layers="middle")
    assert published == FitSettings.published(max_tokens=99)


def test_seeds_are_of_families_and_not_of_files(tmp_path, monkeypatch):
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(f'{{"question": "{number}+1?"}}\n' for number in range(30)))
    fitting = ["fit", "--out", str(tmp_path / "out"), "--problems", str(problems)]
    failed = CliRunner().invoke(app, [*fitting, "--seed", "600000"])
    assert "--seed" in str(failed.exception)
    taken = []
    monkeypatch.setattr(across, "sampler", lambda *_: None)
    monkeypatch.setattr(detection_fit, "fit", lambda *given, **_: taken.append(len(given[1])))
    assert CliRunner().invoke(app, [*fitting, "--n", "600000"], catch_exceptions=False).exit_code == 0
    assert taken == [30]


@pytest.mark.parametrize("command", [["fit", "--n", "20", "--tasks", "chain_sum"], ["eval", "--n", "1"]])
def test_where_no_model_is_named_the_settings_name_one(tmp_path, monkeypatch, command):
    monkeypatch.setenv("NR_AGENT_MODEL", str(tmp_path / "none"))
    failed = CliRunner().invoke(app, [command[0], "--out", str(tmp_path / "out"), *command[1:]])
    assert type(failed.exception).__name__ == "ModelError" and str(tmp_path / "none") in str(failed.exception)
