from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nr_agent.store import EpisodeStore


@pytest.fixture(params=["file", "memory", "postgresql"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every kind of place that a store can be in."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return ":memory:" if request.param == "memory" else str(tmp_path / "episodes.db")


@pytest.fixture(params=["file", "postgresql"])
def lasting(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every kind of place that outlives the process."""
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else str(tmp_path / "e.db")


@pytest.fixture
def store(anywhere: str) -> Iterator[EpisodeStore]:
    with EpisodeStore(anywhere, on_error="raise") as opened:
        yield opened


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No test looks into, or writes to, the data of the person who runs it."""
    monkeypatch.setenv("NR_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NR_AGENT_STORE", raising=False)
    return tmp_path / "home"
