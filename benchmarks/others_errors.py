"""Does a model notice errors while it reads what others wrote? Four GPT-3 models' solutions, read by a small model.

A detector is fitted on the readings of a plain pass over the published solutions of grade-school-math, split by
question, and put beside all controls: AUROC and first-error F1. A solution that ends wrong went wrong at its first
result that no right solution of the question has; one without such a result is left out.

python -m benchmarks.others_errors --data example_model_solutions.jsonl [--model smollm2] [--questions 150] --out DIR
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nr_agent.detection.collect import read_confidence
from nr_agent.detection.fit import FitSettings, fit_traces
from nr_agent.detection.labels import StepLabels
from nr_agent.detection.processbench import StepwiseExample, as_trace, read_solutions
from nr_agent.detection.traces import Traced
from nr_agent.models.registry import load_engine


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, fit, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0, help="of the questions that are drawn")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    examples = list(read_solutions(options.data, by="reference"))
    questions = sorted({example.problem for example in examples if example.label >= 0})
    drawn = set(random.Random(options.seed).sample(questions, min(options.questions, len(questions))))
    chosen = [example for example in examples if example.problem in drawn]
    wrong = sum(example.label >= 0 for example in chosen)
    print(f"{len(chosen)} solutions of {len(drawn)} questions, {wrong} of which go wrong", flush=True)
    engine = load_engine(options.model)
    try:
        traces = [_read(engine, as_trace(example, engine.codec)) for example in chosen]
        print("confidences are read", flush=True)
        labelled = [_labels(example) for example in chosen]
        fit_traces(
            engine,
            traces,
            labelled,
            options.out,
            FitSettings(),
            source="solutions that other models wrote",
            label_sources={"intra_step": "reference"},
            log=lambda line: print(line, flush=True),
        )
    finally:
        engine.shutdown()
    print((options.out / "card.md").read_text())


def _read(engine: Any, traced: Traced) -> Traced:
    """The trace with the confidence that the reading model would have had in each token."""
    with engine.quiet() as model:
        _, logprobs, entropies = read_confidence(model, traced.ids, [])
    steps = [
        replace(
            step,
            logprobs=logprobs[step.start : step.end].tolist(),
            entropies=entropies[step.start : step.end].tolist(),
        )
        for step in traced.steps
    ]
    return replace(traced, steps=steps)


def _labels(example: StepwiseExample) -> list[StepLabels]:
    """Steps before the first wrong one are sound; of those behind it nothing is known."""
    known: dict[int, bool] = {label.step: label.value for label in example.labels("reference")}
    return [StepLabels(known.get(step), None, None, None) for step in range(len(example.steps))]


if __name__ == "__main__":
    main()
