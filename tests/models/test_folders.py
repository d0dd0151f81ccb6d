"""Folders of checkpoints: what is broken says so, and a detector is there when its files are."""

import shutil

import pytest

from nr_agent import create_reasoner
from nr_agent.errors import DetectorError, ModelError
from nr_agent.graphs.reasoner import parts_of
from nr_agent.models.registry import find_model, load_detector, load_engine

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
