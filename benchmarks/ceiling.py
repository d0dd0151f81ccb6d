"""What correction tokens can do at best: four arms, and how often a remedy repairs what it is put behind.

Arms: the model before the trigger SFT; after it, without triggers; with events at random times, as many a step as the
oracle intervened; with triggers at the true times. Then repairs, on the model's own failures, beside what happens
without the remedy.

python -m benchmarks.ceiling --base FOLDER [--model nano|FOLDER] [--in-place] [--n 60] [--seed 1600000] --out DIR
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nr_agent.engine.protocol import Sampling
from nr_agent.evaluation.controls import OracleDetector, RandomDetector
from nr_agent.evaluation.harness import graph_arm, run_arms
from nr_agent.evaluation.repairs import as_markdown, measure_repairs
from nr_agent.graphs import create_reasoner
from nr_agent.models.across import sampler
from nr_agent.models.registry import load_engine
from nr_agent.policies import BranchPolicy, EarlyStopPolicy, Policies, RecheckPolicy
from nr_agent.tasks import FAMILIES, draw

ARMS = ("vanilla", "sft", "oracle", "random")


def everything(in_place: bool) -> Policies:
    """All remedies; rechecks in the place of steps that are taken back, or behind them, left where they fail.

    What a recheck in its place gave stays: where that fails once it fails again, at the cost of a step each time.
    """
    return Policies(
        on={
            "intra_step": RecheckPolicy(rollback=True) if in_place else RecheckPolicy(escalate=True),
            "inter_step": BranchPolicy(width=1 if in_place else 2, back=1, until_answer=True),
            "instance": EarlyStopPolicy(require_answer=True),
        },
        max_interventions=8,
        refractory=1 if in_place else 0,
        name="ceiling",
    )


def main() -> None:
    """Run the arms, then the repairs; print both and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="the model before the trigger SFT")
    parser.add_argument("--model", default="nano", help="the model after it")
    parser.add_argument("--in-place", action="store_true", help="rechecks stand in the place of the slipped step")
    parser.add_argument("--n", type=int, default=60, help="problems a family")
    parser.add_argument("--seed", type=int, default=1_600_000)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sampling = Sampling(temperature=options.temperature)
    base, tuned = load_engine(options.base), load_engine(options.model)
    rates: dict[Any, float] = {}

    def arm(name: str) -> Any:
        if name == "vanilla":
            return create_reasoner(base, detector=None, control=False, sampling=sampling)
        if name == "sft":
            return create_reasoner(tuned, detector=None, control=False, sampling=sampling)
        rates.update(_rates(options.out / "rows.jsonl") if name == "random" else {})
        detector = OracleDetector(tuned) if name == "oracle" else RandomDetector(tuned.fingerprint, rates)
        return create_reasoner(tuned, detector=detector, policies=everything(options.in_place), sampling=sampling)

    about = {
        "model": tuned.name,
        "fingerprint": tuned.fingerprint,
        "base": base.fingerprint,
        "policies_fingerprint": everything(options.in_place).fingerprint,
        "temperature": options.temperature,
    }
    for name in ARMS:  # one after another: the random arm takes its rate from the oracle's
        arms = {known: graph_arm(lambda known=known: arm(known)) for known in ARMS[: ARMS.index(name) + 1]}  # type: ignore[misc]
        results = run_arms(
            arms, list(FAMILIES), n=options.n, seed=options.seed, out=options.out, about=about, log=print
        )
    for name, summary in results["arms"].items():
        against = summary.get("against_vanilla", {})
        print(f"{name:8} right {summary['accuracy']:.1%}  tokens {summary['tokens']:.0f}  {against}")
    problems = [draw(name, seed) for name in FAMILIES for seed in range(options.seed, options.seed + 4 * options.n)]
    sample = sampler(tuned, options.model)
    traces = sample(problems, sampling=sampling, seed=options.seed, trials=True)
    repairs = measure_repairs(tuned, traces, sampling=sampling)
    (options.out / "repairs.json").write_text(json.dumps([asdict(row) for row in repairs], indent=1) + "\n")
    print(as_markdown(repairs))
    base.shutdown()
    tuned.shutdown()


def _rates(rows: Path) -> dict[str, float]:
    """How often the oracle intervened, a step, by level: so often the random arm raises events, and acts on fewer."""
    found = [row for row in map(json.loads, rows.read_text().splitlines()) if row["arm"] == "oracle"]
    steps = max(1, sum(row["steps"] for row in found))
    levels = {"intra_step": "recheck", "inter_step": "branch", "instance": "stop"}
    return {level: sum(row["interventions"].get(kind, 0) for row in found) / steps for level, kind in levels.items()}


if __name__ == "__main__":
    main()
