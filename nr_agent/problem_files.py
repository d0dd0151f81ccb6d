"""Problems from a file of JSON lines, as benchmarks publish them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nr_agent.episode import Problem
from nr_agent.errors import TaskError

_TEXTS = ("question", "problem", "input", "prompt", "text")
_ANSWERS = ("answer", "Answer", "target", "reference", "solution")
_FINAL = "####"
"""Stands before the final answer in GSM8K's solutions."""


def read_problems(path: Path, n: int | None = None, *, domain: str = "math") -> list[Problem]:
    """The problems of a file, in its order; its name without the ending is their task.

    The problem is what stands under `question`, `problem`, `input`, `prompt` or `text`, or under `Body` and `Question`
    together (SVAMP); the answer, if any, under `answer`, `target`, `reference` or `solution`, behind the last `####`
    where there is one (GSM8K).

    Args:
        path: the file.
        n: the first so many; all by default.
        domain: of the problems.

    Raises:
        TaskError: the file cannot be read, a line is no JSON object, or one holds no problem.
    """
    try:
        # At line feeds alone: JSON may hold the other ends of lines as they are.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}", hint="give a file of JSON lines in UTF-8") from error
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if n is not None and len(problems) == n:
            break
        if line.strip():
            problems.append(_problem(path, number, line, domain))
    if not problems:
        raise TaskError(f"{path} holds no problems", hint="give a file with a JSON object a line")
    return problems


def _problem(path: Path, number: int, line: str, domain: str) -> Problem:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TaskError(f"{where} is no JSON: {error}", hint="each line must be a JSON object") from error
    if not isinstance(row, dict):
        raise TaskError(f"{where} is a {type(row).__name__}", hint="each line must be a JSON object")
    text = _text(row)
    if not text:
        raise TaskError(f"{where} holds no problem", hint=f"name it one of: {', '.join(_TEXTS)}; or Body and Question")
    return Problem(text=text, reference=_answer(row), domain=domain, task=path.stem)


def _text(row: Mapping[str, Any]) -> str:
    if isinstance(row.get("Body"), str) and isinstance(row.get("Question"), str):
        body = row["Body"].strip()
        return f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {row['Question'].strip()}"
    return next((row[name].strip() for name in _TEXTS if isinstance(row.get(name), str)), "")


def _answer(row: Mapping[str, Any]) -> str | None:
    value = next((row[name] for name in _ANSWERS if row.get(name) is not None), None)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).rpartition(_FINAL)[2].strip() or None
