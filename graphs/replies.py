"""What the model said in the end: the text of its answer, and the tools that it calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall

from nr_agent.engine.protocol import TextCodec
from nr_agent.errors import ToolsUnsupportedError
from nr_agent.tokens import END_THINK, END_TOOL_CALL, TOOL_CALL

_NAME = re.compile(r"[\w.:/-]+")
_OBJECT = json.JSONDecoder(strict=False)


@dataclass
class Reply:
    """The answer as it was written.

    Attributes:
        text: of the answer, without calls.
        calls: calls of tools.
        broken: calls that cannot be read, with the reason.
    """

    text: str
    calls: list[ToolCall] = field(default_factory=list)
    broken: list[InvalidToolCall] = field(default_factory=list)


def read_reply(turn: str, codec: TextCodec, episode_id: str, *, stop: Sequence[str] = (), tools: bool = False) -> Reply:
    """The reply in the text of an answer's step.

    Args:
        turn: from what closed the thinking, if anything did, to the token that ended the turn.
        codec: of the engine.
        episode_id: calls are named after it.
        stop: strings that end the answer; they are no part of it.
        tools: whether there were tools to call; otherwise a call is text like any other.
    """
    ending = next((end for token in codec.end_ids if turn.endswith(end := codec.decode([token]))), "")
    # The first of these closed the thinking: the answer is behind it. A model that does not think writes none.
    before, closed, behind = turn.removesuffix(ending).partition(END_THINK)
    written = behind if closed else before
    text = before_stop(written.strip(), stop)
    return _read_calls(text, episode_id) if tools else Reply(text.strip())


def before_stop(text: str, stop: Sequence[str]) -> str:
    """Text up to the first of the strings that end it."""
    return text[: min((at for string in stop if (at := text.find(string)) >= 0), default=len(text))]


def lead(tools: Sequence[Mapping[str, Any]], choice: str | None) -> str:
    """What an answer begins with if it has to be a call of a tool.

    Args:
        tools: in OpenAI's form.
        choice: `any`, a tool's name, or None where the model is free.

    Raises:
        ToolsUnsupportedError: there is no such tool, or its name cannot be written.
    """
    if choice is None:
        return ""
    names = [str(tool["function"]["name"]) for tool in tools]
    if not names:
        raise ToolsUnsupportedError("a tool has to be called, and there is none", hint="give tools, or no tool_choice")
    if choice == "any" and len(names) != 1:
        return f'{TOOL_CALL}\n{{"name": "'
    name = names[0] if choice == "any" else choice
    if name not in names or not _NAME.fullmatch(name):
        raise ToolsUnsupportedError(
            f"the tool {name!r} cannot be chosen", hint=f"choose one of: any, {', '.join(names)}; in letters and digits"
        )
    return f'{TOOL_CALL}\n{{"name": "{name}", "arguments": '


def _read_calls(text: str, episode_id: str) -> Reply:
    said = text.split(TOOL_CALL)[0]
    reply = Reply(said.strip())
    at = len(said)
    while 0 <= at < len(text):
        start = at + len(TOOL_CALL)
        name = f"call-{episode_id}-{len(reply.calls) + len(reply.broken)}"
        try:
            # A whole JSON object first: a marker inside its strings is part of them.
            begin = start + len(text[start:]) - len(text[start:].lstrip())
            value, end = _OBJECT.raw_decode(text, begin)
            reply.calls.append(_call(value, name))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            closing = text.find(END_TOOL_CALL, start)
            end = closing if closing >= 0 else len(text)
            raw = text[start:end].strip()
            reply.broken.append(
                InvalidToolCall(type="invalid_tool_call", name=None, args=raw, id=name, error=f"no call: {error}")
            )
        at = text.find(TOOL_CALL, end)
        rest = text[end : at if at >= 0 else len(text)].replace(END_TOOL_CALL, "", 1).strip()
        reply.text = f"{reply.text}\n{rest}".strip()
    return reply


def _call(value: Any, name: str) -> ToolCall:
    arguments = value.get("arguments", value.get("parameters", {})) if isinstance(value, dict) else None
    if isinstance(arguments, str):
        arguments = _OBJECT.decode(arguments)
    if not isinstance(arguments, dict):
        raise TypeError("it is not an object with a name and arguments")
    return ToolCall(type="tool_call", name=str(value["name"]), args=arguments, id=name)
