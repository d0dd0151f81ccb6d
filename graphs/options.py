"""What one call of the chat model asks for: its own settings over the model's."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from nr_agent.errors import ConfigurationError
from nr_agent.graphs.budget import Budget
from nr_agent.graphs.checking import read_stop

DRAWN = ("temperature", "top_p", "top_k")
"""The sampling's settings that a chat model has."""

_CALL = (*DRAWN, "seed", "max_tokens", "timeout", "tools", "tool_choice", "stop", "model")
_IGNORED = ("stream", "parallel_tool_calls")
"""What LangChain, or people who are used to servers, send along; there is nothing to do about it."""


class Options:
    """Settings of one call.

    Args:
        own: the model's settings.
        call: what the call says.

    Raises:
        ConfigurationError: the call has a setting that there is not, or another model.
    """

    def __init__(self, own: Mapping[str, Any], call: Mapping[str, Any]) -> None:
        for name in call:
            if name not in (*_CALL, *_IGNORED):
                raise ConfigurationError(f"a call takes no {name!r}", hint=f"allowed: {', '.join(_CALL)}")
        self.settings = {**own, **call}
        if self.settings["model"] != own["model"]:
            raise ConfigurationError(
                f"this chat model runs {own['model']}, not {self.settings['model']}",
                hint=f"make another: ChatNeuReasoner(model={self.settings['model']!r})",
            )

    @property
    def seed(self) -> int:
        """Of the sampling, drawn where there is none."""
        seed: int | None = self.settings["seed"]
        return secrets.randbits(31) if seed is None else seed

    @property
    def sampling(self) -> dict[str, Any]:
        """What differs from the reasoner's."""
        return {name: self.settings[name] for name in DRAWN if self.settings[name] is not None}

    @property
    def stop(self) -> list[str]:
        """Strings that end the answer."""
        return read_stop(self.settings["stop"] or ())

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """That may be called."""
        return () if self.settings.get("tool_choice") == "none" else tuple(self.settings.get("tools") or ())

    @property
    def choice(self) -> str | None:
        """The tool that has to be called, or `any`."""
        return read_choice(self.settings.get("tool_choice")) if self.tools else None

    def budget(self, usual: Budget, between: int) -> dict[str, Any]:
        """What differs from the reasoner's.

        Args:
            usual: how long the thinking and an answer may be, whatever the call says.
            between: tokens that it takes to close the thinking and to begin the answer.

        Raises:
            ConfigurationError: so few tokens that a thought and an answer do not fit into them.
        """
        changed: dict[str, Any] = {}
        if self.settings["max_tokens"] is not None:
            most, least = self.settings["max_tokens"], between + 2
            if isinstance(most, bool) or not isinstance(most, int) or most < least:
                raise ConfigurationError(
                    f"max_tokens is {most!r}, and {between} go between thinking and answer",
                    hint=f"give {least} or more, or None for the budget's own",
                )
            answer = min(usual.max_answer_tokens, max(1, most // 4), most - between - 1)
            thinking = min(usual.max_tokens, most - answer - between)
            changed |= {"max_tokens": thinking, "max_answer_tokens": answer}
        if self.settings["timeout"] is not None:
            changed["max_seconds"] = self.settings["timeout"]
        return changed


def read_choice(choice: Any) -> str | None:
    """A choice of tools in any of the usual forms: `any`, `none`, a name, or None where the model is free."""
    if choice in (None, False, "auto"):
        return None
    if choice in (True, "any", "required"):
        return "any"
    if isinstance(choice, Mapping):
        named = choice.get("function", choice)
        if not isinstance(named, Mapping) or "name" not in named:
            raise ConfigurationError(
                f"the tool_choice {dict(choice)!r} names no tool", hint="give 'auto', 'any', 'none' or a tool's name"
            )
        return str(named["name"])
    return str(choice)
