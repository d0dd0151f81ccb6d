"""Policies by name, from the packs that are shipped or installed, or from a file of your own."""

from __future__ import annotations

import difflib
from pathlib import Path

from nr_agent.errors import PolicyError
from nr_agent.policies.checking import read_pack, refuse
from nr_agent.policies.composition import Policies
from nr_agent.policies.plugins import find_pack, plugins

FOLDER = Path(__file__).parent / "packs"
"""The packs that are shipped, and their schema."""


def pack_names() -> list[str]:
    """The packs that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_policies(name_or_path: str | Path) -> Policies:
    """Policies from a pack that is shipped or installed, or from a YAML file.

    Raises:
        PolicyError: there is no such pack or file, or something in it is not allowed.
    """
    found = find_pack_file(name_or_path)
    if isinstance(found, Policies):
        return found
    pack, faults = read_pack(found)
    if pack is None:
        raise refuse(found, faults)
    return pack.policies()


def find_pack_file(name_or_path: str | Path) -> Path | Policies:
    """The file of a pack; or the policies themselves, where an installed package makes them in Python.

    Raises:
        PolicyError: there is no such pack or file.
    """
    names = pack_names()
    if str(name_or_path) in names:
        return FOLDER / f"{name_or_path}.yaml"
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    installed = find_pack(str(name_or_path))
    if installed is not None:
        return installed
    names += [plugin.name for plugin in plugins() if plugin.kind == "pack"]
    close = difflib.get_close_matches(str(name_or_path), names, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise PolicyError(
        f"there is no policy pack {str(name_or_path)!r}",
        hint=f"{meant}give a YAML file, or one of: {', '.join(names)}",
    )
