import pytest

from nr_agent.models.registry import load_detector, load_engine


@pytest.fixture(scope="session")
def engine():
    loaded = load_engine("nano")
    yield loaded
    loaded.shutdown()


@pytest.fixture(scope="session")
def detector(engine):
    return load_detector("nano", engine)
