"""Packs and policies of other packages: entry points of the group `nr_agent.policies`.

An entry point is a *policy*, which packs may name, if it is a pydantic model with a method `decide`. It is a *pack*,
for `--policies NAME`, if it is a `Policies`, a path to a YAML file, or a function without arguments that returns one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel

from nr_agent.errors import PolicyError
from nr_agent.policies.composition import Policies

GROUP: Final = "nr_agent.policies"


@dataclass(frozen=True)
class Plugin:
    """What an installed package adds.

    Attributes:
        name: how it is called.
        kind: `pack` or `policy`.
        package: that brings it.
    """

    name: str
    kind: Literal["pack", "policy"]
    package: str


def plugins() -> list[Plugin]:
    """What installed packages add; loads them.

    Raises:
        PolicyError: one of them cannot be loaded.
    """
    return [
        Plugin(point.name, "policy" if _is_policy(_load(point)) else "pack", _package(point))
        for point in sorted(entry_points(group=GROUP))
    ]


def find_policy(name: str) -> type[BaseModel] | None:
    """The policy that an installed package adds under this name."""
    loaded = _find(name)
    return loaded if _is_policy(loaded) else None


def find_pack(name: str) -> Policies | Path | None:
    """The pack that an installed package adds under this name: ready, or as a file.

    Raises:
        PolicyError: it cannot be loaded, or is no pack.
    """
    loaded = _find(name)
    if loaded is None:
        return None
    if _is_policy(loaded):
        raise PolicyError(
            f"{name!r} is a policy, not a pack",
            hint=f"name it in a pack: on: {{intra_step: {{policy: {{name: {name}}}}}}}",
        )
    if isinstance(loaded, Callable):  # type: ignore[arg-type]  # a protocol, but it can be asked for
        loaded = loaded()
    if isinstance(loaded, Policies):
        return loaded
    if isinstance(loaded, str | Path):
        return Path(loaded)
    raise PolicyError(
        f"the entry point {name!r} of the group {GROUP} is {loaded!r}",
        hint="it must be a Policies, a path to a YAML file, a function that returns one, or a policy's class",
    )


def _find(name: str) -> Any:
    for point in entry_points(group=GROUP, name=name):
        return _load(point)
    return None


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:  # it is another package's code: whatever it raises is told with its name
        raise PolicyError(
            f"the entry point {point.name!r} of {_package(point)} cannot be loaded: {type(error).__name__}: {error}",
            hint=f"update or uninstall {_package(point)}",
        ) from error


def _is_policy(loaded: Any) -> bool:
    return isinstance(loaded, type) and issubclass(loaded, BaseModel) and callable(getattr(loaded, "decide", None))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
