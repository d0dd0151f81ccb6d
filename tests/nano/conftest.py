import pytest

from nr_agent.models.registry import load_detector


@pytest.fixture(scope="session")
def engine(nano):
    return nano


@pytest.fixture(scope="session")
def detector(engine):
    return load_detector("nano", engine)
