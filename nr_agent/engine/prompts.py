"""Conversations through a chat template: what people and tools wrote in them is text, to the template as to the ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens

from nr_agent.errors import ProblemError

_PRIVATE = range(0xF0100, 0xFFFFD)
"""Characters without a meaning of their own: control tokens in people's text hide behind them."""

_MARKERS = re.sub("x", "", str(mark_control_tokens("x", re.compile("x"))))
"""The characters with which transformers marks text that is to stay text."""


def takes_tools(template: str) -> bool:
    """Whether a chat template has something to say about tools."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # noqa: S701 - it is parsed, never rendered
    try:
        tree = environment.parse(_without_generation(template))
    except TemplateError:
        return "tools" in template
    return any(node.name == "tools" for node in tree.find_all(nodes.Name))


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The added tokens that mean something to the model, and their ids: special ones, and what text does not become.

    Some tokenizers add what is plain text all the same: Gemma's has line breaks and HTML tags among its added tokens.
    """
    special = {identifier for identifier, token in tokenizer.added_tokens_decoder.items() if token.special}

    def spelled(text: str) -> list[int]:
        # As `encode_marked_chat` does, which takes a millisecond a token: there may be thousands.
        return list(tokenizer._encode_without_added_tokens(text))

    return {
        token: identifier
        for token, identifier in tokenizer.get_added_vocab().items()
        if identifier in special or identifier not in [*spelled(token), *spelled(f"\n{token}")]
    }


def render(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    control: Collection[str],
) -> list[int]:
    """A conversation as ids, the next turn begun.

    Every control token that stands in a message, a tool's result or a tool's description is hidden from the
    template, so that no template takes it for its own, and is encoded as plain text.

    Args:
        tokenizer: with a chat template.
        messages: the conversation.
        tools: that may be called.
        control: the tokenizer's `control_tokens`.

    Raises:
        ProblemError: the template refuses the conversation.
    """
    control = sorted(control, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, control)) or "(?!)")
    hidden = dict(zip(control, _unused([messages, tools]), strict=False))

    def hide(text: str) -> str:
        for marker in _MARKERS:
            text = text.replace(marker, "")
        return pattern.sub(lambda found: hidden[found[0]], text)

    chat = apply(tokenizer, each_text(list(messages), hide), each_text(list(tools), hide))
    for token, character in hidden.items():
        if character in chat:
            chat = chat.replace(character, mark_control_tokens(token, re.compile(re.escape(token))))
    try:
        return list(encode_marked_chat(tokenizer, chat))
    except ValueError as error:
        raise ProblemError(
            f"text of the conversation would become a control token of this model: {error}",
            hint="remove the model's own control tokens from the text",
        ) from error


def frame(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
    """The same conversation with nothing in it: the control tokens in here are the template's own."""
    bare = [_bare_message(message) for message in messages]
    chat = apply(tokenizer, bare, [_bare_tool(tool) for tool in tools])
    return list(tokenizer.encode(chat, add_special_tokens=False))


def apply(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
    """The template's text.

    Raises:
        ProblemError: the template refuses the conversation.
    """
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tools=list(tools) or None, add_generation_prompt=True, tokenize=False
        )
    except TemplateError as error:
        raise ProblemError(
            f"this model's chat template refuses the conversation: {error}",
            hint="some templates want the roles to alternate, or know no system or tool messages",
        ) from error
    return str(text)


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """JSON values with every text changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): each_text(item, change) for key, item in value.items()}
    return [each_text(item, change) for item in value] if isinstance(value, (list, tuple)) else value


def _unused(value: Any) -> Iterator[str]:
    """Private characters that occur nowhere in there; there are 65,000, and few are needed."""
    used: set[str] = set()

    def look(text: str) -> str:
        used.update(text)
        return text

    each_text(value, look)
    return (chr(number) for number in _PRIVATE if chr(number) not in used)


def _bare_message(message: Mapping[str, Any]) -> dict[str, Any]:
    bare: dict[str, Any] = {"role": message["role"], "content": "x" if message.get("content") else ""}
    if message.get("tool_calls"):
        call = {"type": "function", "function": {"name": "x", "arguments": {"x": "x"}}}
        bare["tool_calls"] = [call for _ in message["tool_calls"]]
    return bare | {name: "x" for name in ("name", "tool_call_id") if name in message}


def _bare_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "x", "description": "x", "parameters": {"type": "object"}}}


def _without_generation(template: str) -> str:
    """Without the tag by which transformers marks what an assistant wrote: plain jinja does not know it."""
    return re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)
