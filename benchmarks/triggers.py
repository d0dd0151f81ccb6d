"""Does a model that was never made for it learn to obey correction tokens? Trigger SFT of any checkpoint, by LoRA.

The model gets the correction tokens, and a short trigger SFT on the teacher's traces. Before and after it the tokens
are put at slips and circles that were planted in the teacher's traces of problems that no training ever sees, and what
the model writes there is judged as `benchmarks.ceiling` judges it. Beside it stands what it writes without the token.

python -m benchmarks.triggers [--model smollm2] [--steps 60] [--tokens 1500] [--n 12] [--families A,B] --out DIR
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Problem
from nr_agent.evaluation.repairs import Repairs, as_markdown, measure_repairs
from nr_agent.models.registry import find_model, load_engine
from nr_agent.tasks import FAMILIES, draw, held_out
from nr_agent.tokens import STEP_END
from nr_agent.training.corpus import prompt_ids
from nr_agent.training.correction_rows import add_correction_tokens
from nr_agent.training.traces import Habits, teach
from nr_agent.training.trigger_sft import SftSettings, trigger_sft

HELD_OUT_FROM = 1_800_000
"""First seed of the problems in which the tokens are tried."""
_FAILING = Habits(slip=0.4, astray=0.0, redo=0.0, careful=0.0, repeat=0.2, passes=(1.0,), closing=0.0, stopped=0.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Try, train, try again; print both tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=1500, help="tokens a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--n", type=int, default=12, help="places a family and remedy")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()
    families = options.families.split(",")
    folder = find_model(options.model)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    print("added", add_correction_tokens(model, tokenizer), flush=True)
    settings = SftSettings(
        steps=options.steps, tokens=options.tokens, learning_rate=options.rate, seed=options.seed, method="lora"
    )
    found: dict[str, Any] = {"settings": asdict(settings) | {"model": options.model, "families": families}}
    untrained = options.out / "untrained"
    model.save_pretrained(untrained)
    tokenizer.save_pretrained(untrained)
    found["before"] = _tried(untrained, tokenizer, families, options.n)

    def log(line: str) -> None:
        found.setdefault("log", []).append(line)
        print(line, flush=True)

    trained = trigger_sft(model, tokenizer, [], families, settings, log=log)
    trained.save_pretrained(options.out / "trained")
    tokenizer.save_pretrained(options.out / "trained")
    found["after"] = _tried(options.out / "trained", tokenizer, families, options.n)
    (options.out / "triggers.json").write_text(json.dumps(found, indent=1) + "\n")


def _tried(folder: Path, tokenizer: Any, families: Sequence[str], count: int) -> list[dict[str, Any]]:
    engine = load_engine(str(folder))
    try:
        traces = [trace for family in families for trace in _failing(tokenizer, family, count)]
        rows: list[Repairs] = measure_repairs(engine, traces, sampling=Sampling(temperature=0.6), a_family=count)
    finally:
        engine.shutdown()
    print(as_markdown(rows), flush=True)
    return [asdict(row) for row in rows]


def _failing(tokenizer: Any, family: str, count: int) -> list[Traced]:
    """The teacher's traces of held-out problems, with what was planted in them."""
    made: list[Traced] = []
    drawn = (draw(family, seed) for seed in itertools.count(HELD_OUT_FROM))
    for problem in itertools.islice((problem for problem in drawn if held_out(problem.text)), 4 * count):
        trace = teach(family, problem.text, random.Random(problem.text), _FAILING)
        made.append(_as_traced(tokenizer, problem, ["".join(span.text for span in step) for step in trace.steps]))
    return made


def _as_traced(tokenizer: Any, problem: Problem, steps: Sequence[str]) -> Traced:
    traced = Traced(problem, 0, prompt_ids(tokenizer, problem.text))
    for text in steps:
        ids = tokenizer.encode(text + STEP_END, add_special_tokens=False)
        start, unknown = len(traced.ids), [0.0] * len(ids)
        traced.steps.append(TracedStep(start, start + len(ids), text + STEP_END, unknown, unknown))
        traced.ids.extend(ids)
    return traced


if __name__ == "__main__":
    main()
