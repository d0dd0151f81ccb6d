"""What is wrong in a pack: every fault, with its line, its key, and what is allowed there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from nr_agent.errors import PolicyError
from nr_agent.policies.composition import ADDRESSES
from nr_agent.policies.pack_file import ONE, POLICIES, SEVERAL, PackFile, RuleFile
from nr_agent.policies.plugins import find_policy, plugins

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a pack.

    Attributes:
        line: where, from 1; None where that cannot be said.
        key: which key, its path with dots; empty for the whole file.
        message: what is wrong.
        hint: what to do about it.
    """

    line: int | None
    key: str
    message: str
    hint: str


def read_pack(path: Path) -> tuple[PackFile | None, list[Fault]]:
    """The pack in a YAML file, or what is wrong with it.

    Returns:
        The pack and no fault, or None and every fault in the order of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # A bare `on:` is a boolean in YAML 1.1; here it is the key that it looks like.
        root = yaml.compose(text, Loader=_PackLoader)
        content = yaml.load(text, Loader=_PackLoader)  # noqa: S506 - a SafeLoader
    # What stands behind `!!timestamp`, `!!int` or `!!bool` may fail in any way.
    except (OSError, ValueError, AttributeError, LookupError, yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        return None, [
            Fault(mark.line + 1 if mark else None, "", f"it cannot be read: {error}", "give a YAML file in UTF-8")
        ]
    faults = list(_doubles(root))
    try:
        pack = PackFile.model_validate(content)
    except ValidationError as error:
        faults += [_fault(content, root, one) for one in error.errors(include_url=False)]
    else:
        if not faults:
            return pack, []
    return None, sorted(faults, key=lambda fault: (fault.line or 0, fault.key))


def refuse(path: Path, faults: Sequence[Fault]) -> PolicyError:
    """The error for a pack with faults: the first, and how to see the others."""
    first = faults[0]
    place = f"{path}:{first.line}" if first.line else str(path)
    more = f"; {len(faults) - 1} more: nr-agent policies validate {path}" if len(faults) > 1 else ""
    return PolicyError(f"{place}: {first.key or 'the file'}: {first.message}", hint=f"{first.hint}{more}")


class _PackLoader(yaml.SafeLoader):
    """The safe loader, in which only `true` and `false` are booleans, not `on` and `off`, and nothing is a date."""


_DATE = "tag:yaml.org,2002:timestamp"
_PackLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != _DATE and (tag != "tag:yaml.org,2002:bool" or first in "tTfF")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _fault(content: Any, root: yaml.Node | None, error: Any) -> Fault:
    place = _place(content, error["loc"])
    key = ".".join(str(part) for part in place)
    message = error["msg"]
    if error["type"] == "union_tag_invalid":
        message = f"there is no policy {error['ctx']['tag']!r}"
    return Fault(_line(root, place), key, message, _hint(content, place, error))


def _hint(content: Any, place: Place, error: Any) -> str:
    context, kind = error.get("ctx", {}), error["type"]
    if kind == "unknown_address":
        return f"allowed: {', '.join(ADDRESSES)}"
    if kind in ("extra_forbidden", "missing"):
        return f"allowed: {', '.join(_keys_beside(content, place[:-1]))}"
    if kind == "union_tag_invalid":
        others = [repr(plugin.name) for plugin in plugins() if plugin.kind == "policy"]
        return f"allowed: {', '.join([str(context['expected_tags']), *others])}"
    if "expected" in context:
        return f"allowed: {context['expected']}"
    return f"got {error['input']!r}"


def _place(content: Any, loc: Sequence[str | int]) -> Place:
    """A path of pydantic's without the members of unions that it names on the way."""
    place: list[str | int] = []
    here = content
    for number, part in enumerate(loc):
        inside = part in here if isinstance(here, dict) else isinstance(here, list) and part in range(len(here))
        if inside:
            here = here[part]
        elif number < len(loc) - 1 or part in ("[key]", ONE, SEVERAL):
            continue  # the name of a union's member
        place.append(part)
    return tuple(place)


def _keys_beside(content: Any, parent: Place) -> list[str]:
    model: type[BaseModel] = PackFile
    if parent and parent[-1] == "policy":
        here = content
        for part in parent:
            here = here[part]
        name = str(here.get("name"))
        model = POLICIES.get(name) or find_policy(name) or RuleFile
    elif len(parent) > 1:
        model = RuleFile
    return list(model.model_fields)


def _line(root: yaml.Node | None, place: Place) -> int | None:
    """The line of a key, or of the last on the way to it that there is."""
    line = None if root is None else root.start_mark.line + 1
    node = root
    for part in place:
        child, child_line = _child(node, part)
        if child is None:
            break
        node, line = child, child_line
    return line


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, int | None]:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    return None, None


def _doubles(root: yaml.Node | None) -> Iterator[Fault]:
    """Keys that stand twice in a mapping: YAML would silently take the last."""
    todo: list[tuple[yaml.Node | None, str]] = [(root, "")]
    seen: set[int] = set()
    while todo:
        node, path = todo.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += [(value, f"{path}{number}.") for number, value in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in first:
                    message = f"the key is there twice, first in line {first[name]}"
                    yield Fault(line, f"{path}{name}", message, "keep one; several rules of an address are a list")
                first.setdefault(name, line)
                todo.append((value, f"{path}{name}."))
