"""No test reads the settings of whoever runs it, and none writes into their data. PostgreSQL is a server of our own.

LangGraph reads checkpoints strictly, in every test: what is in a state is of a type that it knows.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from nr_agent.cli._memory import keep_freed_memory

_SERVER = Path("/usr/lib/postgresql/15/bin")
_NUMBERS = itertools.count()

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # it is read when LangGraph is imported

# No test asserts a time: how fast a machine makes examples up is none of our promises.
settings.register_profile("timeless", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("timeless")

LONGEST = ("test_build.py", "training")
"""A file that trains a model, and the folder of files that take long: begun last, everybody would wait for them."""

SETTINGS = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "XDG_DATA_HOME")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (item.path.name != LONGEST[0], item.path.parent.name != LONGEST[1]))


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name in SETTINGS or name.startswith("NR_AGENT_")]:
            patch.delenv(name)
        patch.setenv("NR_AGENT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def kept_memory():
    """As the commands that train do: the process is ours, and tensors come and go in it."""
    keep_freed_memory()


@pytest.fixture(autouse=True)
def known_types(caplog):
    """LangGraph knows the type of everything that comes out of a checkpoint."""
    yield
    said = [record.getMessage() for record in caplog.get_records("call")]
    assert not [text for text in said if "unregistered type" in text or "Blocked deserialization" in text]


@pytest.fixture(scope="session")
def nano():
    """The engine with the embedded LRM."""
    from nr_agent.models.registry import load_engine

    loaded = load_engine("nano")
    yield loaded
    loaded.shutdown()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """A PostgreSQL server of our own on a socket in a temporary folder."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'nr-agent[postgres]')")
    programs = _SERVER if _SERVER.is_dir() else Path(shutil.which("initdb") or "").parent
    if not (programs / "initdb").is_file():
        pytest.skip("PostgreSQL's server is not installed")
    root = os.geteuid() == 0
    if root and subprocess.run(["id", "postgres"], capture_output=True).returncode:
        pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres")
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    folder = Path(tempfile.mkdtemp(prefix="nrpg", dir="/tmp"))
    try:
        if root:
            shutil.chown(folder, "postgres")
        folder.chmod(0o755)
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c shared_buffers=16MB"
        control = [*as_user, programs / "pg_ctl", "-D", folder / "data", "-w"]
        initdb = [*as_user, programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres", "-N"]
        subprocess.run([*initdb, "-E", "UTF8", "--no-locale"], check=True, capture_output=True, cwd=folder)
        start = [*control, "-l", folder / "log", "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            yield folder
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_database(postgres: Path) -> Callable[[], str]:
    """Makes empty databases; gives their URLs."""
    import psycopg

    def create() -> str:
        name = f"store{next(_NUMBERS)}"
        with psycopg.connect(f"host={postgres} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://postgres@/{name}?host={postgres}"

    return create


@pytest.fixture
def postgres_url(new_database: Callable[[], str]) -> str:
    """The URL of a new, empty database."""
    return new_database()
