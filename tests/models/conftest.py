import pytest
from models_helpers import write_gguf


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A GGUF file, and the model that was written into it."""
    file = tmp_path_factory.mktemp("files") / "tiny-llama.F32.gguf"
    return file, write_gguf(file)


@pytest.fixture
def file(written):
    return written[0]


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty data home."""
    monkeypatch.setenv("NR_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
