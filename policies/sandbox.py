"""Running a program that a model wrote: only by a command that the user's settings name, never by default."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from typing import Final, Literal

from nr_agent.errors import ConfigurationError
from nr_agent.settings import load_settings

Verdict = Literal["passed", "failed", "not_run"]

_FENCE: Final = re.compile(r"[ \t]*```[ \t]*([\w+-]*)[ \t]*")
_PYTHON: Final = ("", "py", "python", "python3")


def programs(text: str, before: str = "") -> str:
    """The Python in a text: the fenced blocks that end in it, in order, as one program.

    Args:
        text: a step.
        before: what was thought before it, where a block may have begun.
    """
    blocks: list[str] = []
    language: str | None = None  # of the block that is open
    block: list[str] = []
    lines = (before + text).split("\n")
    own = before.count("\n")
    for number, line in enumerate(lines):
        fence = _FENCE.fullmatch(line)
        if fence is None or (language is not None and fence[1]):
            block.append(line)
        elif language is None:
            language, block = fence[1].lower(), []
        else:
            if language in _PYTHON and number >= own:
                blocks.append("\n".join([*block, ""]))
            language = None
    return "\n".join(blocks)


def run_program(program: str, *, seconds: float) -> Verdict:
    """Whether a program ends without an error, in the sandbox of the settings.

    Args:
        program: Python.
        seconds: after so long it has failed.

    Returns:
        `not_run` where the settings name no sandbox.

    Raises:
        ConfigurationError: the sandbox cannot be started.
    """
    command = load_settings().sandbox
    if command is None:
        return "not_run"
    quiet = subprocess.DEVNULL  # and no pipe that a program which outlives its time could keep open
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command; the program goes to its standard input
            _split(command), input=program.encode(), stdout=quiet, stderr=quiet, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return "failed"
    except (OSError, ValueError, IndexError) as error:
        raise ConfigurationError(
            f"the sandbox {command!r} cannot be started: {error}", hint="correct or unset NR_AGENT_SANDBOX"
        ) from error
    return "failed" if done.returncode else "passed"


def _split(command: str) -> list[str] | str:
    """A command's words; Windows takes it as it is, with its backslashes."""
    return command if os.name == "nt" else shlex.split(command)
