"""Folders of checkpoints: what is broken says so, and a detector is there when its files are."""

import shutil

import pytest

from nr_agent import ChatNeuReasoner, create_reasoner
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.errors import DetectorError, ModelError
from nr_agent.graphs.reasoner import load_parts, parts_of
from nr_agent.models.registry import find_model, has_detector, load_detector, load_engine

EQUATION = {"messages": [("user", "Solve for x: 12*x + 7 = 91")]}


@pytest.fixture
def folder(tmp_path):
    """The embedded LRM's files in a folder of their own, without the detector."""
    return shutil.copytree(find_model("nano"), tmp_path / "model", ignore=shutil.ignore_patterns("detector"))


def test_a_checkpoint_that_was_cut_off_is_a_model_error(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_engine(str(folder))


def test_an_empty_detector_folder_is_no_detector(folder):
    (folder / "detector").mkdir()
    reasoner = create_reasoner(str(folder))
    parts = parts_of(reasoner)
    assert parts.detector is None and reasoner.invoke(EQUATION)["reasoning"]["answer"]
    with pytest.raises(DetectorError, match=r"detector\.json is missing\n.*--no-control, detector=None"):
        load_detector(str(folder), parts.engine)
    parts.engine.shutdown()


def test_an_engine_brings_its_models_own_detector(nano):
    own = load_detector("nano", nano)
    for reasoner in (create_reasoner(nano), ChatNeuReasoner(engine=nano)._reasoner()):
        detector = parts_of(reasoner).detector
        assert detector is not None and detector.id == own.id
    report = create_reasoner(nano).invoke(EQUATION)["reasoning"]
    assert {event["detector"] for event in report["events"]} == {own.id}
    assert parts_of(create_reasoner(nano, detector=None)).detector is None


def test_an_engine_without_a_detector_beside_its_model_is_watched_by_none(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    engine = load_engine(folder.name)
    by_hand = TorchEngine(engine.model, engine.codec.tokenizer, name="mine", fingerprint=engine.fingerprint)
    assert load_parts(by_hand, "auto") == (by_hand, None)
    assert load_parts(engine, "auto") == (engine, None)
    shutil.copytree(find_model("nano") / "detector", folder / "detector")
    monkeypatch.chdir("/")
    assert has_detector(str(folder)) and load_parts(engine, "auto")[1] is not None
    shutil.rmtree(folder)
    assert load_parts(engine, "auto") == (engine, None)
    for one in (by_hand, engine):
        one.shutdown()
