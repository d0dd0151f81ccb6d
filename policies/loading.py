"""Policies from a file: packs that are shipped, by name, or your own, by path."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nr_agent.errors import PolicyError
from nr_agent.policies.ask_human import AskHumanPolicy
from nr_agent.policies.branch import BranchPolicy
from nr_agent.policies.composition import ADDRESSES, Policies, Rule
from nr_agent.policies.early_stop import EarlyStopPolicy
from nr_agent.policies.recheck import RecheckPolicy

_FOLDER = Path(__file__).parent / "packs"
_SHIPPED = (RecheckPolicy, BranchPolicy, EarlyStopPolicy, AskHumanPolicy)


class RuleFile(BaseModel):
    """A rule in a pack: which policy, with its own settings, and from which score on."""

    model_config = ConfigDict(extra="forbid")

    policy: Annotated[RecheckPolicy | BranchPolicy | EarlyStopPolicy | AskHumanPolicy, Field(discriminator="name")]
    min_score: float = Field(default=0.0, ge=0, le=1)


class PackFile(BaseModel):
    """A pack: a rule by `level` or `level.kind`, and the limits."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    max_interventions: int = Field(default=3, ge=0)
    refractory: int = Field(default=1, ge=0)
    on: dict[str, RuleFile]


def pack_names() -> list[str]:
    """The packs that are shipped."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_policies(name_or_path: str | Path) -> Policies:
    """Policies from a shipped pack, or from a YAML file.

    Raises:
        PolicyError: there is no such pack or file, or something in it is not allowed.
    """
    path = _find(name_or_path)
    try:
        # A bare `on:` is a boolean in YAML 1.1; here it is the key that it looks like.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_PackLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"{path} cannot be read: {error}", hint="give a YAML file") from error
    try:
        pack = PackFile.model_validate(content)
    except ValidationError as error:
        raise _explain(path, error) from error
    for address in pack.on:
        if address not in ADDRESSES:
            raise PolicyError(f"{path}: `on` has a rule for {address!r}", hint=f"allowed: {', '.join(ADDRESSES)}")
    rules: dict[str, Any] = {address: Rule(rule.policy, rule.min_score) for address, rule in pack.on.items()}
    return Policies(rules, pack.max_interventions, pack.refractory, pack.name)


class _PackLoader(yaml.SafeLoader):
    """The safe loader, in which only `true` and `false` are booleans, not `on`, `off`, `yes` and `no`."""


_PackLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _find(name_or_path: str | Path) -> Path:
    names = pack_names()
    if str(name_or_path) in names:
        return _FOLDER / f"{name_or_path}.yaml"
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        close = difflib.get_close_matches(str(name_or_path), names, 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise PolicyError(
            f"there is no policy pack {str(name_or_path)!r}",
            hint=f"{meant}give a YAML file, or one of: {', '.join(names)}",
        )
    return path


def _explain(path: Path, error: ValidationError) -> PolicyError:
    """The first thing that is wrong, with its key and what is allowed there."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place) or "the file"
    context = first.get("ctx", {})
    allowed = str(context.get("expected_tags") or context.get("expected") or "")
    if first["type"] in ("extra_forbidden", "missing"):
        allowed = ", ".join(_keys_beside(place))
    hint = f"allowed: {allowed}" if allowed else f"got {first['input']!r}"
    return PolicyError(f"{path}: {key}: {first['msg']}", hint=hint)


def _keys_beside(place: list[str]) -> list[str]:
    model: type[BaseModel] = PackFile
    if place[0] == "on" and len(place) > 2:
        model = RuleFile
        if place[2] == "policy" and len(place) > 3:
            # pydantic names the member of the union in the path: on, address, policy, member, key
            model = next((shipped for shipped in _SHIPPED if shipped.model_fields["name"].default == place[3]), model)
    return list(model.model_fields)
