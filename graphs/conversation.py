"""What people, models and tools have said, as a problem and as messages for the chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    HumanMessage,
    ToolMessage,
    message_chunk_to_message,
)

from nr_agent.errors import ProblemError

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
_SPOKEN = ("text", "reasoning", "thinking", "tool_call", "tool_use", "invalid_tool_call", "non_standard")
"""Kinds of content that a message may have: text is read, what a model thought or called is not text."""
_MEDIA = ("image", "input_image", "audio", "input_audio", "video", "file", "document", "media")
"""Kinds of content that a model may have made for people, and that cannot be read here."""


def find_problem(messages: Sequence[BaseMessage]) -> str:
    """The last thing that a person said.

    Raises:
        ProblemError: nobody said anything.
    """
    text = next((read_text(message) for message in reversed(messages) if isinstance(message, HumanMessage)), "")
    if not text.strip():
        raise ProblemError(
            "there is no problem: the conversation has no human message with text in it",
            hint='invoke with {"messages": [{"role": "user", "content": "..."}]}',
        )
    return text


def to_template(messages: Sequence[BaseMessage], *, calls: bool = True) -> list[dict[str, Any]]:
    """Messages as a chat template takes them. What a model thought earlier is left out.

    Args:
        messages: of the conversation.
        calls: whether the template knows tools; otherwise calls of them are left out, and results are messages.

    Raises:
        ProblemError: a message is of a kind that cannot be rendered, or holds more than text.
    """
    rendered = []
    for message in map(_whole, messages):
        role = _ROLES.get(message.type)
        if role is None:
            raise ProblemError(
                f"a message of type {message.type!r} cannot be rendered", hint=f"allowed: {', '.join(_ROLES)}"
            )
        turn: dict[str, Any] = {"role": role, "content": read_text(message)}
        if calls and isinstance(message, AIMessage) and message.tool_calls:
            turn["tool_calls"] = [_call(call) for call in message.tool_calls]
        if isinstance(message, ToolMessage):
            turn |= {"tool_call_id": message.tool_call_id} | ({"name": message.name} if message.name else {})
        # A turn of the model in which it only thought has nothing to show.
        if turn["content"] or turn.get("tool_calls") or not isinstance(message, AIMessage):
            rendered.append(turn)
    return rendered


def read_text(message: BaseMessage) -> str:
    """A message's text.

    Raises:
        ProblemError: it holds more than text, or something that is no text.
    """
    for block in message.content if isinstance(message.content, list) else ():
        kind = "text" if isinstance(block, str) else str(block.get("type"))
        # Every provider has kinds of its own for what a model thought, called or refused.
        media = kind in _MEDIA or kind.endswith(("_url", "_file"))
        known = not media if isinstance(message, AIMessage) else kind in _SPOKEN
        if not known:
            raise ProblemError(
                f"a message of type {message.type!r} holds a block of type {kind!r}, and this model reads text only",
                hint="take it out, or describe it in words",
            )
    text = _all_text(message)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ProblemError(
            f"a message of type {message.type!r} is not text: it has a lone surrogate at {error.start}",
            hint='decode its bytes with errors="replace"',
        ) from error
    return text


def _whole(message: BaseMessage) -> BaseMessage:
    """A message that was streamed, as the message that it has become."""
    return message_chunk_to_message(message) if isinstance(message, BaseMessageChunk) else message


def _all_text(message: BaseMessage) -> str:
    """Text blocks in their order; what a tool gave as JSON stays JSON."""
    if isinstance(message, ToolMessage) and isinstance(message.content, list):
        blocks = [block if isinstance(block, str) else block.get("text", "") for block in message.content]
        return "\n".join(block for block in blocks if block)
    return str(message.text)


def _call(call: Any) -> dict[str, Any]:
    # By way of JSON: what is no JSON value would fail inside the template.
    arguments = json.loads(json.dumps(call["args"], default=str))
    return {"type": "function", "id": call["id"] or "", "function": {"name": call["name"], "arguments": arguments}}
