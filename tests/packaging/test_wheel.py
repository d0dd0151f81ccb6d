"""What is in the wheel, and what importing costs."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import nr_agent

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # From a copy: setuptools leaves a build folder behind, and takes modules from it that are long gone.
    source = tmp_path_factory.mktemp("source")
    for name in ("nr_agent", "graphs", "policies"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_nothing_but_the_package_is_at_the_top_of_the_wheel(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"nr_agent", f"nr_agent-{nr_agent.__version__}.dist-info"}


def test_the_wheel_holds_every_module_and_every_file_that_ships_and_no_other(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        *(str(path.relative_to(ROOT)) for path in (ROOT / "nr_agent").rglob("*.py")),
        *(
            f"nr_agent/{path.relative_to(ROOT)}"
            for top in ("graphs", "policies")
            for path in (ROOT / top).rglob("*.py")
        ),
    }
    assert modules == {name for name in names if name.endswith(".py")}
    packs = {f"nr_agent/policies/packs/{path.name}" for path in (ROOT / "policies" / "packs").iterdir()}
    assert {"nr_agent/py.typed", *packs} <= names
    assert {"nr_agent/policies/packs/default.yaml", "nr_agent/policies/packs/schema.json"} <= packs
    model = {name for name in names if name.startswith("nr_agent/models/nano/")}
    for file in ("model.safetensors", "tokenizer.json", "config.json", "README.md", "detector/detector.safetensors"):
        assert f"nr_agent/models/nano/{file}" in model
    assert sum(zipfile.ZipFile(wheel).getinfo(name).file_size for name in model) < 40_000_000


def test_the_changelog_speaks_of_this_version():
    assert nr_agent.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    first = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first.group(1) == nr_agent.__version__


def test_every_public_name_can_be_imported():
    assert dir(nr_agent) == sorted(nr_agent.__all__)
    for name in nr_agent.__all__:
        assert getattr(nr_agent, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nr_agent.nonsense  # noqa: B018


def test_no_pickle_and_no_remote_code_anywhere():
    for folder in ("nr_agent", "graphs", "policies"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert "import pickle" not in text, path
            assert "trust_remote_code=True" not in text, path
            loads = re.findall(r"torch\.load\([^)]*\)", text)
            assert all("weights_only=True" in load for load in loads), path


@pytest.mark.parametrize(
    "statement",
    ["import nr_agent", "import nr_agent.cli", "import nr_agent.policies", "from nr_agent import FailureEvent"],
)
def test_importing_loads_nothing_heavy(statement):
    heavy = ("torch", "transformers", "langgraph", "sqlalchemy", "alembic", "langchain_core", "reasoning_gym")
    code = f"import sys; {statement}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
