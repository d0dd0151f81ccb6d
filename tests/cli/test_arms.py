"""`nr-agent eval` with arms of every sort."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from nr_agent.cli._arms import ARMS
from nr_agent.cli.main import app
from nr_agent.errors import ConfigurationError, TaskError
from nr_agent.models.registry import own_detector

CHOSEN = ("random_time", "vanilla", "nothinking", "deer", "neat", "nr_agent", "oracle_time", "entropy_time")


def evaluate(out, *options):
    arguments = ["eval", "--out", str(out), "--tasks", "chain_sum", "--n", "2", *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("arms")
    run = evaluate(out, "--arms", ",".join(CHOSEN), "--policies", "medicine")
    assert run.exit_code == 0, run.output
    return out


def test_arms_of_every_sort_are_compared_with_the_bare_model(done):
    results = json.loads((done / "results.json").read_text())
    assert set(results["arms"]) == set(CHOSEN)
    assert all("against_vanilla" in summary for name, summary in results["arms"].items() if name != "vanilla")
    rows = [json.loads(line) for line in (done / "rows.jsonl").read_text().splitlines()]
    ours = {row["seed"]: row["right"] for row in rows if row["arm"] == "nr_agent"}
    for name in set(CHOSEN) - {"vanilla", "nr_agent"}:
        theirs = {row["seed"]: row["right"] for row in rows if row["arm"] == name}
        compared = results["arms"][name]["ours_against_it"]
        assert compared["accuracy_difference"] == sum(ours[seed] - theirs[seed] for seed in ours) / 2
    assert not {"ours_against_it"} & {*results["arms"]["vanilla"], *results["arms"]["nr_agent"]}
    assert {name: sum(row["arm"] == name for row in rows) for name in CHOSEN} == dict.fromkeys(CHOSEN, 2)
    assert all(row["tokens"] > 0 and "ask_human" not in row["interventions"] for row in rows)


def test_what_the_controls_are_matched_to_is_kept(done):
    matched = json.loads((done / "matched.json").read_text())
    counts = matched["counts/chain_sum"]
    assert list(counts) == ["1500000", "1500001"]
    assert set(counts["1500000"]) == {"steps", "intra_step", "inter_step", "instance"}
    assert matched["gauge/chain_sum"]["entropies"]
    assert json.loads((done / "neat.json").read_text())["channels"]
    again = evaluate(done, "--arms", "random_time,neat", "--policies", "medicine")
    assert again.exit_code == 0 and "chain_sum" not in again.stderr  # nothing ran again


def test_results_say_what_they_were_made_with(done):
    results = json.loads((done / "results.json").read_text())
    told = {name: results[name] for name in ("model", "policies", "temperature", "max_tokens")}
    assert told == {"model": "nano", "policies": "medicine", "temperature": 0.6, "max_tokens": 1024}
    assert results["detector"].startswith("nano-") and results["fingerprint"] and results["policies_fingerprint"]
    kept = json.loads((done / "settings.json").read_text())
    assert {name for name in kept if name.startswith("baseline_")} == {"baseline_nothinking", "baseline_deer"}
    assert kept["baseline_deer"].startswith("Deer(words=('Wait', 'Alternatively', 'Hold on'")


def test_rows_of_another_detector_are_not_passed_off_as_these(done, tmp_path):
    shutil.copytree(own_detector("nano"), tmp_path / "other")
    manifest = tmp_path / "other" / "detector.json"
    manifest.write_text(manifest.read_text().replace('"id": "nano-', '"id": "other-', 1))
    options = ("--policies", "medicine", "--detector", str(tmp_path / "other"))
    with pytest.raises(ConfigurationError, match=r"detector 'nano-.*' there and 'other-.*' here"):
        evaluate(done, "--arms", "nr_agent", *options)
    assert evaluate(done, "--arms", "vanilla,neat", *options).exit_code == 0  # they use none


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "policies 'medicine' there and 'default' here"),
        (["--policies", "medicine", "--temperature", "0.2"], "temperature 0.6 there and 0.2 here"),
        (["--policies", "medicine", "--max-tokens", "64"], "max_tokens 1024 there and 64 here"),
    ],
)
def test_rows_of_other_settings_are_not_passed_off_as_these(options, complaint, done):
    before = {path.name: path.read_bytes() for path in done.iterdir()}
    with pytest.raises(ConfigurationError, match=complaint):
        evaluate(done, "--arms", "random_time,nr_agent", *options)
    assert {path.name: path.read_bytes() for path in done.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        (["--arms", "vanila"], TaskError, "there is no arm 'vanila'"),
        (["--arms", "vanilla,random_time"], TaskError, "matched to the rates of nr_agent"),
        (["--arms", "self_consistency", "--temperature", "0"], ConfigurationError, "votes among samples"),
    ],
)
def test_arm_that_cannot_run_is_refused_before_any_runs(options, error, complaint, tmp_path):
    with pytest.raises(error, match=complaint):
        evaluate(tmp_path, *options)
    assert not list(tmp_path.iterdir())


def test_figures_on_seeds_for_training_are_warned_of(tmp_path):
    run = evaluate(tmp_path, "--arms", "nothinking", "--seed", "999999")
    assert run.exit_code == 0 and "warning: seeds below 1000000" in run.stderr
    assert json.loads((tmp_path / "results.json").read_text())["training_seeds"]
    assert "warning" not in evaluate(tmp_path, "--arms", "nothinking", "--seed", "1000000").stderr


def test_help_names_every_arm():
    shown = CliRunner().invoke(app, ["eval", "--help"]).stdout
    assert all(name in " ".join(shown.split()) for name in ARMS)
