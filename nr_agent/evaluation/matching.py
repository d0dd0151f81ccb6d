"""Rates for the controls: as many events as ours, at other times.

A control raises as many events a step as our detector does under the same policies, on the same task. How often ours
does is counted when its arm runs; where the truth is, and how unsure the model is, is gauged on problems of their own.

Events are matched, not interventions. An event that a rule hears counts also where nothing can follow: in the gap
behind an intervention, in a closed thinking, or where a stop waits for an answer. Ours and a control's fall there
unequally often, so one may intervene more often than the other: the results say how often each did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nr_agent.detection.timed import Scores, TimedDetector
from nr_agent.engine.protocol import Engine, Segment
from nr_agent.episode import Problem
from nr_agent.errors import TaskError
from nr_agent.evaluation.controls import OracleDetector
from nr_agent.evaluation.harness import OURS
from nr_agent.evaluation.kept import write_whole
from nr_agent.events import LEVELS, FailureEvent, Level
from nr_agent.policies import Policies


class Rates:
    """What the controls of a benchmark are matched to, kept beside its results.

    Args:
        path: of the file, JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def note(
        self,
        task: str,
        problems: Sequence[tuple[Problem, int]],
        reports: Sequence[Mapping[str, Any]],
        policies: Policies,
    ) -> None:
        """Count how often our detector raised what the policies listen to.

        Args:
            task: the problems' family.
            problems: with their seeds. What is noted of a seed takes the place of what was noted before.
            reports: what came of them, in order.
            policies: who listened.
        """
        counts = dict(self._known.get(f"counts/{task}", {}))
        for (_, seed), report in zip(problems, reports, strict=True):
            events = [FailureEvent.from_state(event) for event in report["events"]]
            heard = [event for event in events if any(rule.takes(event.score) for rule in policies.rules(event))]
            levels = {level: sum(event.level == level for event in heard) for level in LEVELS}
            counts[str(seed)] = {"steps": int(report["steps"]), **levels}
        self._save(f"counts/{task}", counts)

    def of(self, task: str) -> dict[Level, float]:
        """Events a step, by level, over all problems of a task that our arm has had.

        Raises:
            TaskError: our arm has not run on this task.
        """
        counts = self._known.get(f"counts/{task}", {}).values()
        if not counts:
            raise TaskError(
                f"a control on {task} is matched to the rates of {OURS}, which has not run there",
                hint=f"run the arm {OURS} with it, in a new folder",
            )
        steps = max(1, sum(count["steps"] for count in counts))
        return {level: sum(count[level] for count in counts) / steps for level in LEVELS}

    def gauge(self, task: str) -> dict[str, Any] | None:
        """What was gauged on a task before."""
        found: dict[str, Any] | None = self._known.get(f"gauge/{task}")
        return found

    def keep_gauge(self, task: str, gauge: Gauge) -> dict[str, Any]:
        """Keep what was gauged on a task."""
        self._save(f"gauge/{task}", {"entropies": sorted(gauge.entropies), "true": gauge.true_rates()})
        return dict(self._known[f"gauge/{task}"])

    def _save(self, key: str, value: Any) -> None:
        self._known[key] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(self._known, indent=1) + "\n")


class Gauge(TimedDetector):
    """Raises nothing, and notes of every step how unsure the model was and what the oracle sees.

    Args:
        engine: whose sequences it watches.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__("gauge", engine.fingerprint)
        self._oracle = OracleDetector(engine)
        self._noted: list[tuple[float, Scores]] = []

    def scores(self, seen: Sequence[str], segment: Segment, text: str, *, key: str) -> Scores:
        """Nothing, after a note."""
        unsure = max((value for value in segment.entropies if value is not None), default=0.0)
        self._noted.append((unsure, self._oracle.scores(seen, segment, text, key=key)))
        return {}

    @property
    def entropies(self) -> list[float]:
        """The largest entropy of each step, in nats."""
        return [unsure for unsure, _ in self._noted]

    def true_rates(self) -> dict[Level, float]:
        """Share of the steps in which each level's failure is."""
        steps = max(1, len(self._noted))
        return {level: sum(scores.get(level, 0) > 0 for _, scores in self._noted) / steps for level in LEVELS}


def entropy_limit(entropies: Sequence[float], rate: float) -> float:
    """The entropy that such a share of the steps exceeds."""
    ordered = sorted(entropies)
    if not ordered:
        return float("inf")
    return ordered[min(len(ordered) - 1, max(0, round((1 - rate) * len(ordered)) - 1))] if rate > 0 else float("inf")


def kept_shares(wanted: Mapping[Level, float], true: Mapping[Level, float]) -> dict[Level, float]:
    """Which share of the true events is as often as wanted; all of them where there are fewer."""
    return {level: min(1.0, wanted[level] / true[level]) if true[level] else 1.0 for level in LEVELS}
