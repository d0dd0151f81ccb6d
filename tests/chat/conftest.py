"""Engines for chat models. LangChain's suite runs as it is, under anyio and without its pytest plugins."""

from __future__ import annotations

import pytest

from nr_agent.models.registry import load_detector


def pytest_configure(config):
    for name in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{name}: of LangChain's suite; its plugin is not installed")


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
def benchmark():
    """Stands for pytest-benchmark's fixture: the suite times what it calls, here it is only called."""
    return lambda function, *args, **kwargs: function(*args, **kwargs)


@pytest.fixture
def snapshot():
    """The suite asks for it before it skips what is not serialisable."""


@pytest.fixture
def vcr():
    """The suite asks for it before it skips what needs a recorder of HTTP calls."""


@pytest.fixture(scope="session")
def nano_detector(nano):
    """The detector that ships with the embedded LRM, for its engine."""
    return load_detector("nano", nano)
