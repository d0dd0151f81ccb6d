"""From the events of an episode to the chunks of a chat message."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from nr_agent.errors import ConfigurationError
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.replies import Reply, read_reply

_CALLS_FROM = 2
"""Index of the first call: content blocks are merged by index, and thoughts have 0, text has 1."""


class Chunks:
    """Takes the events of one episode and gives chunks that add up to its message.

    Thoughts come step by step, as they are thought: a step that is taken back later has been said by then, and is
    part of the message. Of several branches only the one that is kept is heard, once it has been chosen.

    Args:
        parts: of the reasoner.
        stop: strings that end the answer.
        tools: whether there are tools to call.
    """

    def __init__(self, parts: Parts, *, stop: Sequence[str], tools: bool) -> None:
        self.parts = parts
        self.stop = stop
        self.tools = tools
        self.episode_id: str | None = None
        self.ended = False
        self._line = "main"
        self._others: dict[str, str] = {}
        self._turns: dict[str, str] = {}  # the text of each branch's answer
        self._gap = ""  # space behind the last thought: it is said with the next, and not at the end
        self._begun = False
        self._thought = ""

    def take(self, event: Mapping[str, Any]) -> list[AIMessageChunk]:
        """The chunks of an event of the custom stream; most have none."""
        kind = event["type"]
        if kind == "nr.open":
            self.episode_id = event["episode_id"]
        elif kind == "nr.step":
            text = "".join(part["text"] for part in event["parts"])
            if event["kind"] == "think":
                return self._think(event["branch"], text)
            self._turns[event["branch"]] = self._turns.get(event["branch"], "") + text
        elif kind == "nr.intervention" and event["intervention"]["kept"] is not None:
            self._line = event["intervention"]["kept"]
            others, self._others = self._others, {}
            return self._think(self._line, others.get(self._line, ""))
        elif kind == "nr.stop":
            self.ended = True
            return self._end(event["report"])
        return []

    def check(self) -> None:
        """The run is over: was the episode, too?

        Raises:
            ConfigurationError: it waits for a person, whom a chat model cannot ask.
        """
        if not self.ended:
            raise ConfigurationError(
                f"episode {self.episode_id} waits for a person's answer, and a chat model cannot ask",
                hint="use policies with attended=False, or the reasoner itself, in a graph with a checkpointer",
            )

    def _think(self, branch: str, text: str) -> list[AIMessageChunk]:
        if branch != self._line:
            self._others[branch] = self._others.get(branch, "") + text
            return []
        self._thought += text
        text = self._gap + text if self._begun else text.lstrip()
        said = text.rstrip()
        self._gap = text[len(said) :]
        self._begun = self._begun or bool(said)
        return [self._chunk(additional_kwargs={"reasoning_content": said})] if said else []

    def _end(self, report: Mapping[str, Any]) -> list[AIMessageChunk]:
        # Not from the store: it may keep no texts, or others.
        codec = self.parts.engine.codec
        turn = self._turns.get(self._line, "")
        reply = read_reply(turn, codec, report["episode_id"], stop=self.stop, tools=self.tools)
        ends = tuple(codec.decode([token]) for token in codec.end_ids)
        if self.tools and self._thought.endswith(ends):  # a model that never closes its thinking calls there
            ended = read_reply(self._thought, codec, report["episode_id"], stop=self.stop, tools=True)
            reply = ended if ended.calls or ended.broken else reply
        # Without a turn for the answer, the answer is in the thoughts.
        text = reply.text or ("" if reply.calls or reply.broken else report["answer"] or "")
        usage = report["usage"]
        said = [self._chunk(content=text)] if text else []
        called = [self._chunk(tool_call_chunks=_calls(reply))] if reply.calls or reply.broken else []
        last = self._chunk(
            chunk_position="last",
            usage_metadata={
                "input_tokens": usage["prompt"],
                "output_tokens": usage["output"],
                "total_tokens": usage["total"],
                "output_token_details": {"reasoning": usage["output"] - usage["answer"]},
            },
            response_metadata={
                "model_name": self.parts.engine.name,
                "model_provider": "nr_agent",
                "finish_reason": "tool_calls" if reply.calls else report["stop_reason"],
                "nr_agent": {
                    name: report[name]
                    for name in ("episode_id", "answer", "stop_reason", "steps", "events", "interventions")
                },
            },
        )
        return [*said, *called, last]

    def _chunk(self, content: str = "", **fields: Any) -> AIMessageChunk:
        return AIMessageChunk(content=content, id=f"nr-{self.episode_id}", **fields)


def _calls(reply: Reply) -> list[Any]:
    calls = [(call["name"], json.dumps(call["args"], ensure_ascii=False), call["id"]) for call in reply.calls]
    # As a JSON string it cannot be read as arguments: it stays a call that is not valid.
    broken = [(call["name"], json.dumps(call["args"], ensure_ascii=False), call["id"]) for call in reply.broken]
    return [
        tool_call_chunk(name=name, args=args, id=key, index=number)
        for number, (name, args, key) in enumerate([*calls, *broken], _CALLS_FROM)
    ]
