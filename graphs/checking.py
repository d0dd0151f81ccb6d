"""What a reasoner is made of, looked at before it is made: a wrong part says so at once, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NoReturn

from pydantic import ValidationError

from nr_agent.engine.protocol import Sampling
from nr_agent.errors import ConfigurationError
from nr_agent.graphs.budget import Budget

_ENGINE = ("codec", "capabilities", "fingerprint", "open", "submit", "fork", "rollback", "close")
_DETECTOR = ("id", "fingerprint", "plan", "observe")
_STORE = ("begin", "add", "get", "finish")


def check_parts(engine: object, detector: object, store: object, seed: object) -> None:
    """Look at the parts that have a life of their own.

    Raises:
        ConfigurationError: one of them is something else.
    """
    check_engine(engine)
    if detector is not None and _lacks(detector, _DETECTOR):
        _refuse("detector", detector, "give load_detector(model, engine, folder=...), 'auto', or None to watch nothing")
    if store is not None and _lacks(store, _STORE):
        _refuse("store", store, "give EpisodeStore('episodes.db') or EpisodeStore('postgresql://...')")
    if isinstance(seed, bool) or not isinstance(seed, int):
        _refuse("seed", seed, "give a whole number")


def check_engine(engine: object, *, hint: str = "give a model's name or folder, or load_engine(...)") -> None:
    """Look at what is to think.

    Raises:
        ConfigurationError: it is no engine.
    """
    if _lacks(engine, _ENGINE):
        _refuse("engine", engine, hint)


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Look at a setting that is one of a few words.

    Raises:
        ConfigurationError: it is another.
    """
    if value not in allowed:
        raise ConfigurationError(f"{name} is {value!r}", hint=f"allowed: {', '.join(map(repr, allowed))}")


def read_budget(given: Budget | Mapping[str, Any] | None, default: Budget = Budget()) -> Budget:  # noqa: B008 - immutable
    """A budget; a mapping changes what it names.

    Raises:
        ConfigurationError: it has a limit that there is not, or one without sense.
    """
    if given is None or isinstance(given, Budget):
        return given or default
    if not isinstance(given, Mapping):
        _refuse("budget", given, "give a Budget, or a dict of what differs")
    try:
        return Budget.model_validate({**default.model_dump(), **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(
            f"the budget is wrong at {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint=f"allowed: {', '.join(Budget.model_fields)}",
        ) from error


def read_sampling(given: Sampling | Mapping[str, Any] | None, default: Sampling = Sampling()) -> Sampling:  # noqa: B008 - immutable
    """A sampling; a mapping changes what it names.

    Raises:
        ConfigurationError: it has a setting that there is not, or one without sense.
    """
    if given is None or isinstance(given, Sampling):
        return given or default
    if not isinstance(given, Mapping):
        _refuse("sampling", given, "give a Sampling, or a dict of what differs")
    names = [item.name for item in fields(Sampling)]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ConfigurationError(f"the sampling has {unknown[0]!r}", hint=f"allowed: {', '.join(names)}")
    return replace(default, **given)


def read_stop(given: object) -> list[str]:
    """The strings that end an answer; an empty one ends none.

    Raises:
        ConfigurationError: it is something else than a text, or a list of texts.
    """
    strings = [given] if isinstance(given, str) else given
    if not isinstance(strings, list | tuple) or not all(isinstance(string, str) for string in strings):
        _refuse("stop", given, "give a text, or a list of texts")
    return [string for string in strings if string]


def _lacks(part: object, names: tuple[str, ...]) -> bool:
    return isinstance(part, type) or any(not hasattr(part, name) for name in names)


def _refuse(name: str, given: object, hint: str) -> NoReturn:
    raise ConfigurationError(f"{name} is {given!r}, a {type(given).__name__}", hint=hint)
