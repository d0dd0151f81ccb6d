"""Arms on the same problems: who is right, at what cost, and whether the difference is more than luck."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nr_agent.episode import Problem
from nr_agent.evaluation.kept import ROWS, keep_settings, write_whole
from nr_agent.evaluation.rows import Row, keep_rows, read_rows
from nr_agent.evaluation.statistics import mcnemar, paired_bootstrap, wilson
from nr_agent.tasks import RESERVED_FROM, draw, held_out, score, trained_on

Solve = Callable[[Sequence[tuple[Problem, int]], Callable[[int], None]], list[Mapping[str, Any]]]
"""An arm: solves problems with their seeds and returns their reports, in order; calls back with how many are done."""

BASE = "vanilla"
OURS = "nr_agent"


def run_arms(
    arms: Mapping[str, Solve],
    tasks: Sequence[str],
    *,
    n: int,
    seed: int,
    out: Path,
    about: Mapping[str, Any],
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run every arm on the same problems and write `results.json`, `rows.jsonl` and `settings.json`.

    A problem that has a row of an arm in `rows.jsonl` already is not run again under it.

    Args:
        arms: by name; differences are to `vanilla` where it is among them.
        tasks: families.
        n: problems a family.
        seed: seed of the first problem; problem `i` is drawn and solved with `seed + i`.
        out: folder.
        about: the settings that rows depend on: the model, the detector, the policies; None for what is not used.
        log: gets a line a cell.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigurationError: the folder holds rows of other settings, or nobody knows of which.
    """
    keep_settings(out, about)
    seeds = range(seed, seed + n)
    rows = read_rows(out / ROWS)
    for task in tasks:
        for arm, solve in arms.items():
            missing = [draw(task, number) for number in seeds if (arm, task, number) not in rows]
            if not missing:
                continue
            reports = solve([(problem, problem.seed or 0) for problem in missing], lambda _: None)
            done = [_row(arm, problem, report) for problem, report in zip(missing, reports, strict=True)]
            rows = keep_rows(out / ROWS, done)
            cell = [rows[arm, task, number] for number in seeds]
            log(
                f"{task:18} {arm:12} right {_mean(row.right for row in cell):.1%}  "
                f"tokens {_mean(row.tokens for row in cell):.0f}"
            )
    chosen = [rows[arm, task, number] for task in tasks for arm in arms for number in seeds]
    results = {
        "schema_version": 1,
        "n": n,
        "seed": seed,
        "reserved_seeds": seed + n > RESERVED_FROM,
        "training_seeds": trained_on(seeds),
        **about,
        "arms": {arm: _summary(arm, chosen, tasks) for arm in arms},
        "unseen_texts": _unseen(chosen, arms),
    }
    write_whole(out / "results.json", json.dumps(results, indent=1) + "\n")
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


def _unseen(rows: Sequence[Row], arms: Iterable[str]) -> dict[str, Any]:
    """The arms on the problems whose text no embedded LRM was trained on, whatever its seed: small families repeat."""
    problems = {(row.task, row.seed) for row in rows}
    unseen = {(task, seed) for task, seed in problems if held_out(draw(task, seed).text)}
    chosen = [row for row in rows if (row.task, row.seed) in unseen]
    return {arm: _cell([row for row in chosen if row.arm == arm]) for arm in arms}


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
    kinds = sorted({kind for row in rows for kind in row.interventions})
    acted = {kind: sum(row.interventions.get(kind, 0) for row in rows) for kind in kinds}
    steps = sum(row.steps for row in rows)
    return {
        "n": len(rows),
        "accuracy": right / max(1, len(rows)),
        "accuracy_95": wilson(right, len(rows)),
        "tokens": _mean(row.tokens for row in rows),
        "steps": steps / max(1, len(rows)),
        "interventions": {kind: number / max(1, len(rows)) for kind, number in acted.items()},
        "interventions_a_step": {kind: number / max(1, steps) for kind, number in acted.items()},
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


def _mean(values: Any) -> float:
    numbers = [float(value) for value in values]
    return sum(numbers) / max(1, len(numbers))
