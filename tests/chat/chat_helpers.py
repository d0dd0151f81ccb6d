"""A scripted model that knows tools."""

from __future__ import annotations

import json

from nr_agent.testing import ScriptedEngine

ARGUMENTS = {
    "magic_function": {"input": 3},
    "magic_function_no_args": {},
    "get_weather": {"location": "San Francisco, CA"},
    "unicode_customer": {"customer_name": "你好啊集团 こんにちは", "description": "会社"},
    "Joke": {"setup": "Why?", "punchline": "Cats."},
    "joke": {"setup": "Why?", "punchline": "Cats."},
    "JokeDict": {"setup": "Why?", "punchline": "Cats."},
    "Person": {"name": "Eva", "age": 4},
    "greeting_generator": {"answer_style": "pirate"},
    "my_adder_tool": {"a": 1, "b": 2},
}


def offered(text: str) -> list[str]:
    """Names of the tools that a prompt presents."""
    if "<tools>" not in text:
        return []
    listed = text.split("<tools>\n")[1].split("\n</tools>")[0]
    return [json.loads(line)["function"]["name"] for line in listed.splitlines()]


def reply(text: str) -> str:
    """What a model that knows tools would write next."""
    begun = text.split("</think>")[-1].strip()
    if begun.endswith('"arguments":'):
        name = begun.split('"name": "')[1].split('"')[0]
        return json.dumps(ARGUMENTS.get(name, {}), ensure_ascii=False) + "}\n</tool_call>"
    names = offered(text)
    if begun.endswith('{"name": "'):
        call = json.dumps(ARGUMENTS.get(names[0], {}), ensure_ascii=False)
        return f'{names[0]}", "arguments": {call}}}\n</tool_call>'
    if names and "<tool_response>" not in text:
        call = {"name": names[0], "arguments": ARGUMENTS.get(names[0], {})}
        return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"
    return "It is so, and you know it."


def tool_engine() -> ScriptedEngine:
    """A model with a template for tools, which calls the first tool that it is offered."""
    return ScriptedEngine(["I look at the question.", "So I know."], answer=reply, tools=True, name="tools")
