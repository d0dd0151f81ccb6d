"""Settings from the environment: `NR_AGENT_` and the name, such as `NR_AGENT_STORE` or `NR_AGENT_KEEP_TEXT`."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from nr_agent.errors import ConfigurationError


class Settings(BaseSettings):
    """What holds unless an option says otherwise.

    Attributes:
        store: the episode store: a path, or an SQLAlchemy URL; by default `episodes.db` in the home folder.
        home: folder for the data of this user.
        model: the model that is used where none is named.
        policies: a pack, or a file of policies: what decides in LangGraph's server.
        sandbox: a command that runs a Python program from its standard input where it can do no harm. Code that a
            model wrote is run by it, and by nothing else: without one it is never run.
        keep_text: whether episodes keep their texts and token ids; without, only numbers, kinds and hashes.
    """

    model_config = SettingsConfigDict(env_prefix="NR_AGENT_", extra="forbid", frozen=True)

    store: str | None = None
    home: Path = Field(default_factory=lambda: _data_home() / "nr_agent")
    model: str = "nano"
    policies: str = "default"
    sandbox: str | None = None
    keep_text: bool = True

    @property
    def store_url(self) -> str:
        """Where episodes are kept."""
        return self.store or str(self.home.expanduser() / "episodes.db")


def load_settings() -> Settings:
    """The settings of the environment.

    Raises:
        ConfigurationError: one of them makes no sense.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "NR_AGENT_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(f"{name} is not valid: {first['msg']}", hint=f"correct or unset {name}") from error


def _data_home() -> Path:
    given = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "share"
