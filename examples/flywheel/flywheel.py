"""The flywheel: solve with corrections, export, train on it, and solve held-out problems again.

python examples/flywheel/flywheel.py [--problems 200] [--held-out 200] [--steps 200] [--out flywheel]

The model solves training problems under control; right answers become training data in which the failed steps are
left out (`clean`). What is compared is the model alone, before and after, on problems that it never saw: how many are
right, and how many tokens that took.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from nr_agent import create_reasoner
from nr_agent.engine.text import TokenizerCodec
from nr_agent.evaluation.harness import graph_arm
from nr_agent.evaluation.statistics import paired_bootstrap
from nr_agent.export import export
from nr_agent.models.registry import load_engine
from nr_agent.store import EpisodeStore
from nr_agent.tasks import draw, family_names, score
from nr_agent.training.finetune import FinetuneSettings, finetune

TRAINING = 700_000
"""First training seed: below 1,000,000."""
HELD_OUT = 1_900_000
"""First development seed: never trained on."""


def main() -> None:
    """Run it, and say what changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tasks", help="families, separated by commas; all by default")
    parser.add_argument("--problems", type=int, default=200, help="training problems a family")
    parser.add_argument("--held-out", type=int, default=200, help="held-out problems a family")
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--out", type=Path, default=Path("flywheel"))
    options = parser.parse_args()
    if not 0 < options.problems <= 1_000_000 - TRAINING or not 0 < options.held_out <= 100_000:
        parser.error("so many problems would leave the training or the development seeds")
    tasks = family_names(options.tasks)
    options.out.mkdir(parents=True, exist_ok=True)

    with EpisodeStore(options.out / "episodes.db", run="flywheel") as store:
        engine = load_engine(options.model)
        reasoner = create_reasoner(options.model, store=store)
        training = [draw(task, TRAINING + number) for number in range(options.problems) for task in tasks]
        graph_arm(lambda: reasoner)([(problem, problem.seed or 0) for problem in training], lambda _: None)
        tokenizer = engine.codec.tokenizer
        codec = TokenizerCodec(tokenizer, frozenset({tokenizer.eos_token_id}))
        data = options.out / "data"
        manifest = export(
            store, data, format="pretokenized", mask="clean", mix_clean=0.5, dedupe=True, overwrite=True, codec=codec
        )
        engine.shutdown()
    print(f"{manifest.rows} rows of {manifest.episodes} right episodes, {manifest.clean_rows} without an intervention")
    if not manifest.rows:
        print("nothing was corrected, so there is nothing to learn from: give more --problems")
        return

    settings = FinetuneSettings(
        method=options.method, steps=options.steps, batch=8, learning_rate=options.learning_rate
    )
    done = finetune(options.model, data, options.out / "run", settings)
    before = measure(options.model, tasks, options.held_out)
    after = measure(str(done.model), tasks, options.held_out)
    result: dict[str, Any] = {"rows": manifest.rows, "loss": done.loss, "held_out": HELD_OUT}
    for name, found in (("before", before), ("after", after)):
        result[name] = {what: sum(values) / len(values) for what, values in found.items()}
        print(f"{name:7} {result[name]['right']:.1%} right, {result[name]['tokens']:.0f} tokens a problem")
    # The same problems with the same seeds: what one gained and another lost is told apart from chance.
    for what in before:
        low, high = paired_bootstrap(before[what], after[what])
        mean = result["after"][what] - result["before"][what]
        result[f"{what}_after_minus_before"] = {"mean": mean, "low": low, "high": high}
        print(f"{what}: {mean:+.3f} (95%: {low:+.3f} to {high:+.3f})")
    (options.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(model: str, tasks: list[str], count: int) -> dict[str, list[float]]:
    """The model alone, without control, on held-out problems: what is right, and the tokens it took."""
    problems = [draw(task, HELD_OUT + number) for task in tasks for number in range(count)]
    engine = load_engine(model)
    try:
        reasoner = create_reasoner(engine, detector=None, control=False)
        reports = graph_arm(lambda: reasoner)([(problem, problem.seed or 0) for problem in problems], lambda _: None)
    finally:
        engine.shutdown()
    names = ("thinking", "answer", "inserted", "discarded")
    return {
        "right": [float(score(problem, report["answer"])) for problem, report in zip(problems, reports, strict=True)],
        "tokens": [float(sum(report["usage"][name] for name in names)) for report in reports],
    }


if __name__ == "__main__":
    main()
