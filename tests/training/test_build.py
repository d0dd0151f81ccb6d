"""The command that trains an embedded model, at its smallest: every stage, and no stage twice."""

import json

import pytest
from typer.testing import CliRunner

from nr_agent import EpisodeStore, create_reasoner
from nr_agent.cli.main import app
from nr_agent.detection.detector import NeuronDetector
from nr_agent.models.registry import DETECTOR_FOLDER, load_engine
from nr_agent.tasks import FAMILIES, draw

ARGUMENTS = ["models", "train", "tiny", "--steps", "320", "--problems", "5", "--sft-steps", "25", "--out"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    run = CliRunner().invoke(app, [*ARGUMENTS, str(out)], catch_exceptions=False)
    return out, run


@pytest.mark.timeout(1500)
def test_one_command_goes_from_nothing_to_a_model_with_its_detector_and_figures(built):
    out, run = built
    assert run.exit_code == 0
    assert run.stdout.strip() == str(out / "tiny")
    losses = [json.loads(line)["loss"] for line in (out / "pretrain" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] / 2
    measured = json.loads((out / "measured.json").read_text())
    assert {(row["family"], row["temperature"]) for row in measured} == {(f, t) for f in FAMILIES for t in (0.6, 0.0)}
    assert all(row["n"] == {0.6: 5, 0.0: 1}[row["temperature"]] for row in measured)
    card = json.loads((out / "tiny" / DETECTOR_FOLDER / "card.json").read_text())
    assert card["levels"]
    assert set(card["levels"]) | set(card["left_out"]) == {"intra_step", "inter_step", "instance"}
    assert "chain_sum" in (out / "tiny" / "README.md").read_text()


def test_what_was_built_solves_under_control(built):
    out, _ = built
    engine = load_engine(str(out / "tiny"))
    store = EpisodeStore.in_memory()
    try:
        detector = NeuronDetector.load(out / "tiny" / DETECTOR_FOLDER, engine)
        reasoner = create_reasoner(engine, detector=detector, store=store)
        result = reasoner.invoke({"messages": [("user", draw("chain_sum", 1).text)]})
        episode = store.get(result["reasoning"]["episode_id"])
    finally:
        engine.shutdown()
        store.close()
    scored = {reading.level for step in episode.steps for reading in step.readings}
    assert scored == {level.settings.level for level in detector.levels}


def test_a_second_run_repeats_no_stage(built):
    out, _ = built
    before = {path: path.stat().st_mtime_ns for path in (out / "pretrain").rglob("*.safetensors")}
    again = CliRunner().invoke(app, [*ARGUMENTS, str(out)], catch_exceptions=False)
    assert again.exit_code == 0
    assert "trigger SFT" not in again.stderr
    assert "sampling" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (out / "pretrain").rglob("*.safetensors")} == before
