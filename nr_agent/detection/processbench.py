"""ProcessBench's shape (arXiv 2412.06559): a problem, its steps, and the index of the first wrong one."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from nr_agent.detection.sources import Label, LabelSource, first_error_labels
from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.engine.protocol import TextCodec
from nr_agent.episode import Problem, Record
from nr_agent.equations import equations
from nr_agent.errors import LabelError
from nr_agent.tokens import STEP_END

_MARKED = re.compile(r"<<([^<>]*)>>")


class StepwiseExample(Record):
    """A row of ProcessBench.

    Attributes:
        id: of the row.
        generator: the model that wrote the steps.
        problem: the problem's text.
        steps: the steps' texts.
        final_answer_correct: whether the answer at the end is right; None where that is not known.
        label: index of the first wrong step, -1 where none is.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    generator: str = ""
    problem: str = Field(min_length=1)
    steps: list[str] = Field(min_length=1)
    final_answer_correct: bool | None = None
    label: int = Field(ge=-1)

    @model_validator(mode="after")
    def _inside(self) -> StepwiseExample:
        if self.label >= len(self.steps):
            raise ValueError(f"label {self.label} is behind the last of {len(self.steps)} steps")
        return self

    def labels(self, source: LabelSource = "processbench") -> list[Label]:
        """What the row says of its steps: those before the first wrong one are sound, those behind it unknown."""
        return first_error_labels(self.label, len(self.steps), source)


def read_examples(path: Path) -> list[StepwiseExample]:
    """Read rows from a `.jsonl` file or a `.json` list, as ProcessBench is published.

    Raises:
        LabelError: the file cannot be read, or a row is of another shape; its number is named.
    """
    examples = []
    for number, row in enumerate(_rows(path), 1):
        try:
            examples.append(StepwiseExample.model_validate(row))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the row"
            raise LabelError(
                f"{path}, row {number}: {place}: {first['msg']}",
                hint="a row has id, generator, problem, steps, final_answer_correct and label",
            ) from error
    return examples


def write_examples(path: Path, examples: Iterable[StepwiseExample]) -> int:
    """Write rows as `.jsonl`; returns how many."""
    lines = [example.model_dump_json() + "\n" for example in examples]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def as_example(
    traced: Traced, labels: Sequence[Label], generator: str, *, correct: bool | None = None
) -> StepwiseExample:
    """A trace with the labels of its slips as a row.

    Raises:
        LabelError: a step before the first slip has no label, so which one is the first is not known.
    """
    slips = {label.step: label.value for label in labels if label.level == "intra_step"}
    first = next((step for step in sorted(slips) if slips[step]), -1)
    until = len(traced.steps) if first < 0 else first
    missing = next((step for step in range(until) if step not in slips), None)
    if missing is not None:
        raise LabelError(
            f"whether step {missing} of the trace with seed {traced.seed} is wrong is not known",
            hint="label every step up to the first wrong one",
        )
    return StepwiseExample(
        id=f"{traced.problem.task or 'problem'}-{traced.problem.seed}-{traced.seed}",
        generator=generator,
        problem=traced.problem.text,
        steps=[step.text.strip() for step in traced.steps],
        final_answer_correct=correct,
        label=first,
    )


def as_trace(example: StepwiseExample, codec: TextCodec) -> Traced:
    """A row as if the model had thought it: its steps behind the opened thinking, each ended by a blank line.

    The model did not write this text: confidences are to be read off it (`read_confidence` does), and what a
    detector makes of it says how well it reads errors, not how well it sees its own.
    """
    ids = codec.render([{"role": "user", "content": example.problem}])
    steps = []
    for text in example.steps:
        tokens = codec.encode(text.strip() + STEP_END)
        blank = [0.0] * len(tokens)
        steps.append(TracedStep(len(ids), len(ids) + len(tokens), text.strip() + STEP_END, blank, list(blank)))
        ids += tokens
    problem = Problem(text=example.problem, metadata={"id": example.id, "generator": example.generator})
    return Traced(problem, 0, ids, steps)


def read_solutions(path: Path, *, by: Literal["calculator", "reference"] = "calculator") -> Iterator[StepwiseExample]:
    """The published model solutions of grade-school-math, where `<<a op b=c>>` marks each calculation.

    A step is a line. The first line with a wrong calculation is the first wrong step; a solution without one that
    ends right has none; of one that ends wrong without one it is not known where, and it is left out.

    Their models had a calculator, so few calculations are wrong. By `reference` the first wrong step of a solution that
    ends wrong is also the first one with a result that no right solution of the question has, the published one or
    another model's; where every result is known there, the solution is left out.

    Args:
        path: the file.
        by: how wrong steps are found.

    Raises:
        LabelError: the file cannot be read, or is none of these.
    """
    for number, row in enumerate(_rows(path), 1):
        if not isinstance(row, dict) or "question" not in row:
            raise LabelError(f"{path}, row {number}: no question", hint="give example_model_solutions.jsonl")
        solutions = {name: value for name, value in row.items() if isinstance(value, dict)}
        right = [value["solution"] for value in solutions.values() if value["is_correct"]]
        known = _results("\n".join([row.get("ground_truth", ""), *right]))
        for generator, value in solutions.items():
            lines = [line for line in value["solution"].splitlines() if line.strip()]
            astray = by == "reference" and not value["is_correct"]
            wrong = next(
                (
                    place
                    for place, line in enumerate(lines)
                    if _miscalculates(line) or (astray and not _results(line) <= known)
                ),
                -1,
            )
            if lines and (wrong >= 0 or value["is_correct"]):
                yield StepwiseExample(
                    id=f"gsm8k-{number}-{generator}",
                    generator=generator,
                    problem=row["question"],
                    steps=[_MARKED.sub("", line) for line in lines],
                    final_answer_correct=value["is_correct"],
                    label=wrong,
                )


def _miscalculates(line: str) -> bool:
    return any(not equation.holds for marked in _MARKED.findall(line) for equation in equations(marked))


def _results(text: str) -> set[float]:
    """What calculations are said to come to, as far as four places."""
    found = set()
    for marked in _MARKED.findall(text):
        with contextlib.suppress(ValueError):
            found.add(round(float(marked.rpartition("=")[2].replace(",", "").strip(" $%")), 4))
    return found


def _rows(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            yield from json.loads(text)
            return
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise LabelError(f"{path}, line {number} is no JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LabelError(f"{path} cannot be read: {error}", hint="give a .json or .jsonl file") from error
