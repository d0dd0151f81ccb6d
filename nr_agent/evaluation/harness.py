"""Arms on the same problems: who is right, at what cost, and whether the difference is more than luck."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nr_agent.episode import Problem
from nr_agent.evaluation.statistics import mcnemar, paired_bootstrap, wilson
from nr_agent.tasks import RESERVED_FROM, draw, score

Solve = Callable[[Sequence[tuple[Problem, int]], Callable[[int], None]], list[Mapping[str, Any]]]
"""An arm: solves problems with their seeds and returns their reports, in order; calls back with how many are done."""

BASE = "vanilla"
OURS = "nr_agent"


@dataclass(frozen=True)
class Row:
    """One problem under one arm.

    Attributes:
        arm: the arm.
        task: the problem's family.
        seed: the problem's seed.
        right: whether the answer is right.
        answer: the answer.
        tokens: all tokens that were generated or inserted, discarded ones included.
        interventions: how often the controller intervened, by kind.
        stop_reason: how the thinking ended.
        episode_id: the episode in the store.
        steps: steps of thinking, discarded ones included.
    """

    arm: str
    task: str
    seed: int
    right: bool
    answer: str | None
    tokens: int
    interventions: dict[str, int]
    stop_reason: str
    episode_id: str
    steps: int = 0


def run_arms(
    arms: Mapping[str, Solve],
    tasks: Sequence[str],
    *,
    n: int,
    seed: int,
    out: Path,
    about: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run every arm on the same problems and write `results.json` and `rows.jsonl`.

    An arm and task that are in `rows.jsonl` already (same problems) are not run again.

    Args:
        arms: by name; differences are to `vanilla` where it is among them.
        tasks: families.
        n: problems a family.
        seed: seed of the first problem; problem `i` is drawn and solved with `seed + i`.
        out: folder.
        about: what else to note: the model, the detector, settings.
        log: gets a line a cell.

    Returns:
        What `results.json` holds.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = _load(out / "rows.jsonl", range(seed, seed + n))
    done = {(row.arm, row.task) for row in rows}
    for task in tasks:
        problems = [draw(task, number) for number in range(seed, seed + n)]
        for arm, solve in arms.items():
            if (arm, task) in done:
                continue
            reports = solve([(problem, seed + i) for i, problem in enumerate(problems)], lambda _: None)
            cell = [_row(arm, problem, report) for problem, report in zip(problems, reports, strict=True)]
            rows += cell
            with (out / "rows.jsonl").open("a") as file:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in cell)
            log(
                f"{task:18} {arm:12} right {_mean(row.right for row in cell):.1%}  "
                f"tokens {_mean(row.tokens for row in cell):.0f}"
            )
    chosen = [row for row in rows if row.arm in arms and row.task in tasks]
    results = {
        "schema_version": 1,
        "n": n,
        "seed": seed,
        "reserved_seeds": seed + n > RESERVED_FROM,
        **(about or {}),
        "arms": {arm: _summary(arm, chosen, tasks) for arm in arms},
    }
    partial = out / "results.json.partial"
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(out / "results.json")
    return results


def graph_arm(make: Callable[[], Any], *, at_once: int = 32) -> Solve:
    """An arm that runs a reasoner's graph.

    Args:
        make: makes the graph, when the arm is first used.
        at_once: how many problems are solved at the same time.
    """

    def solve(problems: Sequence[tuple[Problem, int]], _: Callable[[int], None]) -> list[Mapping[str, Any]]:
        results = make().batch(
            [{"messages": [{"role": "user", "content": problem.text}]} for problem, _ in problems],
            [
                {
                    "max_concurrency": at_once,
                    "configurable": {
                        "nr_agent": {
                            "seed": seed,
                            "reference": problem.reference,
                            "task": problem.task,
                            "problem_seed": problem.seed,
                            "domain": problem.domain,
                        }
                    },
                }
                for problem, seed in problems
            ],
        )
        return [result["reasoning"] for result in results]

    return solve


def _summary(arm: str, rows: Sequence[Row], tasks: Sequence[str]) -> dict[str, Any]:
    own = [row for row in rows if row.arm == arm]
    summary = _cell(own)
    summary["tasks"] = {task: _cell([row for row in own if row.task == task]) for task in tasks}
    base, ours = ([row for row in rows if row.arm == other] for other in (BASE, OURS))
    if base and arm != BASE:
        summary["against_vanilla"] = _compared(own, base)
    if ours and arm not in (BASE, OURS):
        summary["ours_against_it"] = _compared(ours, own)
    return summary


def _compared(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, Any]:
    """An arm against another one, over the problems that both had."""
    known = {(row.task, row.seed): row for row in others}
    pairs = [(known[row.task, row.seed], row) for row in rows if (row.task, row.seed) in known]
    gained = sum(row.right and not other.right for other, row in pairs)
    lost = sum(other.right and not row.right for other, row in pairs)
    tokens = [float(other.tokens) for other, _ in pairs], [float(row.tokens) for _, row in pairs]
    rights = [float(other.right) for other, _ in pairs], [float(row.right) for _, row in pairs]
    return {
        "gained": gained,
        "lost": lost,
        "accuracy_difference": (gained - lost) / max(1, len(pairs)),
        "accuracy_difference_95": paired_bootstrap(*rights),
        "mcnemar_p": mcnemar(gained, lost),
        "token_ratio": sum(tokens[1]) / max(1.0, sum(tokens[0])),
        "token_difference_95": paired_bootstrap(*tokens),
    }


def _cell(rows: Sequence[Row]) -> dict[str, Any]:
    right = sum(row.right for row in rows)
    kinds = {kind for row in rows for kind in row.interventions}
    return {
        "n": len(rows),
        "accuracy": right / max(1, len(rows)),
        "accuracy_95": wilson(right, len(rows)),
        "tokens": _mean(row.tokens for row in rows),
        "interventions": {kind: _mean(row.interventions.get(kind, 0) for row in rows) for kind in sorted(kinds)},
    }


def _row(arm: str, problem: Problem, report: Mapping[str, Any]) -> Row:
    kinds: dict[str, int] = {}
    for intervention in report["interventions"]:
        kinds[intervention["kind"]] = kinds.get(intervention["kind"], 0) + 1
    return Row(
        arm=arm,
        task=problem.task or "",
        seed=problem.seed or 0,
        right=score(problem, report["answer"]),
        answer=report["answer"],
        tokens=int(report["usage"]["output"]),
        interventions=kinds,
        stop_reason=str(report["stop_reason"]),
        episode_id=str(report["episode_id"]),
        steps=int(report["steps"]),
    )


def _load(path: Path, seeds: range) -> list[Row]:
    """Rows of whole cells that were run before on these problems."""
    if not path.exists():
        return []
    rows = [Row(**json.loads(line)) for line in path.read_text().splitlines() if line]
    counts: dict[tuple[str, str], int] = {}
    wanted = [row for row in rows if row.seed in seeds]
    for row in wanted:
        counts[row.arm, row.task] = counts.get((row.arm, row.task), 0) + 1
    return [row for row in wanted if counts[row.arm, row.task] == len(seeds)]


def _mean(values: Any) -> float:
    numbers = [float(value) for value in values]
    return sum(numbers) / max(1, len(numbers))
