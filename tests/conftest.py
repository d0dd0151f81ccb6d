"""No test reads the settings of whoever runs it, and none writes into their data."""

import os

import pytest

SETTINGS = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "XDG_DATA_HOME")


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name in SETTINGS or name.startswith("NR_AGENT_")]:
            patch.delenv(name)
        patch.setenv("NR_AGENT_HOME", str(tmp_path_factory.mktemp("home")))
        yield
