"""The arms of a benchmark by name: ours, its controls, and the baselines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nr_agent.errors import ConfigurationError
from nr_agent.tasks import FAMILIES
from nr_agent.tokens import RECHECK

if TYPE_CHECKING:
    from nr_agent.engine.torch_engine import TorchEngine
    from nr_agent.episode import Problem
    from nr_agent.evaluation.harness import Solve
    from nr_agent.evaluation.matching import Rates
    from nr_agent.policies import Policies
    from nr_agent.policies.baselines import Baseline

ARMS: Final = {
    "vanilla": "the bare model",
    "nr_agent": "watched by its detector and controlled",
    "oracle": "controlled at the true times: what the policies could do with a perfect detector",
    "random_time": "controlled, with as many events a step as nr_agent, at random times",
    "entropy_time": "rechecked, with as many slips raised a step as by nr_agent, where the model is unsure",
    "oracle_time": "controlled, with at most as many events a step as nr_agent, at true times",
    "nothinking": "answers without thinking",
    "s1": "thinks on where it would end",
    "deer": "ends at a confident trial answer",
    "dynasor": "ends when three probed answers agree",
    "nowait": "never writes words of reflection",
    "thinkbrake": "ends where closing is almost likeliest",
    "neat": "ends by ten neurons",
    "answer_convergence": "ends when the answer stays the same",
    "self_consistency": "votes among eight samples",
    "self_refine": "criticises and rewrites its answer",
}
DEFAULT: Final = ("vanilla", "nr_agent", "oracle")

PILOT: Final = 20
"""Problems a family on which neurons are found, and truth and entropy gauged; from the last of the training seeds."""

_TURNS: Final = ("Wait", "Alternatively", "Hold on", "Let me", "I should")
"""Where the thinking of a model turns that learned from our teacher, as all do that know the correction tokens."""


@dataclass(frozen=True)
class Bench:
    """What the arms share.

    Attributes:
        engine: thinks.
        model: its name or folder.
        detector: folder of the detector, if not the model's own.
        policies: decide.
        common: budget and sampling of all arms.
        families: the tasks of the benchmark.
        out: its folder.
    """

    engine: TorchEngine
    model: str
    detector: Path | None
    policies: Policies
    common: Mapping[str, Any]
    families: Sequence[str]
    out: Path

    def settings(self, names: Sequence[str]) -> dict[str, Any]:
        """What the rows of some arms depend on; None for what none of them uses.

        Raises:
            DetectorError: an arm needs a detector, and the model has none.
        """
        from nr_agent.evaluation.harness import OURS  # noqa: PLC0415 - imported when needed
        from nr_agent.models.registry import load_detector  # noqa: PLC0415 - imports torch

        watched = any(name == OURS or name.endswith("_time") for name in names)
        controlled = watched or "oracle" in names
        return {
            "model": self.engine.name,
            "fingerprint": self.engine.fingerprint,
            "detector": load_detector(self.model, self.engine, folder=self.detector).id if watched else None,
            "policies": self.policies.name if controlled else None,
            "policies_fingerprint": self.policies.fingerprint if controlled else None,
            "temperature": self.common["sampling"].temperature,
            "max_tokens": self.common["budget"].max_tokens,
            "max_step_tokens": self.common["budget"].max_step_tokens,
            **{f"baseline_{name}": repr(made) for name, made in self._published().items() if name in names},
        }

    def arms(self, names: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Solve]:
        """The arms, in an order in which each finds what it is matched to.

        Args:
            names: of the arms.
            settings: theirs.

        Raises:
            TaskError: a control has nothing to be matched to.
            ConfigurationError: an arm votes among samples that would all be equal; or the folder holds what was made
                with other settings.
            DetectorError: the model has no neurons for an arm that needs them.
        """
        from nr_agent.evaluation.harness import OURS  # noqa: PLC0415 - imported when needed
        from nr_agent.evaluation.kept import MATCHED, check_settings, keep_settings  # noqa: PLC0415 - when needed
        from nr_agent.evaluation.matching import Rates  # noqa: PLC0415 - imported when needed

        check_settings(self.out, settings)
        rates = Rates(self.out / MATCHED)
        if OURS not in names and any(name.endswith("_time") for name in names):
            for family in self.families:
                rates.of(family)
        if "self_consistency" in names and not self.common["sampling"].temperature:
            raise ConfigurationError(
                "self_consistency votes among samples, and greedy ones are equal", hint="raise --temperature"
            )
        if "neat" in names:
            keep_settings(self.out, settings)
            self._neat()  # where a model has no such neurons, that is said before hours are spent on the other arms
        ordered = sorted(names, key=lambda name: (name.endswith("_time"), name != OURS and name != "vanilla"))
        return {name: self._arm(name, rates) for name in ordered}

    def _arm(self, name: str, rates: Rates) -> Solve:
        from nr_agent.evaluation.harness import OURS, graph_arm  # noqa: PLC0415 - imported when needed

        def solve(problems: Sequence[tuple[Problem, int]], done: Callable[[int], None]) -> list[Mapping[str, Any]]:
            task = str(problems[0][0].task)
            reports = graph_arm(lambda: self._graph(name, task, rates))(problems, done)
            if name == OURS:
                rates.note(task, problems, reports, self.policies)
            return reports

        return solve

    def _graph(self, name: str, task: str, rates: Rates) -> Any:
        from nr_agent.graphs import create_reasoner  # noqa: PLC0415 - imports LangGraph
        from nr_agent.graphs.baseline import create_baseline  # noqa: PLC0415 - imports LangGraph

        self.engine.attach(None)  # the arms take turns, and each has channels of its own read
        if name == "vanilla":
            return create_reasoner(self.engine, detector=None, control=False, **self.common)
        watch = self._detector(name, task, rates)
        if watch is not None:
            return create_reasoner(self.engine, detector=watch, policies=self.policies, **self.common)
        return create_baseline(self.engine, self._baseline(name), **self.common)

    def _detector(self, name: str, task: str, rates: Rates) -> Any:
        """What watches an arm that is controlled; None for a baseline."""
        from nr_agent.evaluation.controls import (  # noqa: PLC0415 - imported when needed
            EntropyDetector,
            OracleDetector,
            RandomDetector,
        )
        from nr_agent.evaluation.matching import entropy_limit, kept_shares  # noqa: PLC0415 - imported when needed
        from nr_agent.models.registry import load_detector  # noqa: PLC0415 - imports torch

        if name == "nr_agent":
            return load_detector(self.model, self.engine, folder=self.detector)
        if name == "oracle":
            return OracleDetector(self.engine)
        if name == "random_time":
            return RandomDetector(self.engine.fingerprint, rates.of(task))
        if name == "entropy_time":
            wanted = rates.of(task)["intra_step"]
            return EntropyDetector(
                self.engine.fingerprint, entropy_limit(self._gauge(task, rates)["entropies"], wanted)
            )
        if name == "oracle_time":
            return OracleDetector(self.engine, shares=kept_shares(rates.of(task), self._gauge(task, rates)["true"]))
        return None

    def _gauge(self, task: str, rates: Rates) -> dict[str, Any]:
        """How unsure the bare model is and where it fails, on problems of their own."""
        from nr_agent.evaluation.harness import graph_arm  # noqa: PLC0415 - imported when needed
        from nr_agent.evaluation.matching import Gauge  # noqa: PLC0415 - imported when needed
        from nr_agent.graphs import create_reasoner  # noqa: PLC0415 - imports LangGraph

        known = rates.gauge(task)
        if known is not None:
            return known
        gauge = Gauge(self.engine)
        pilot = create_reasoner(self.engine, detector=gauge, control=False, **self.common)
        graph_arm(lambda: pilot)([(problem, problem.seed or 0) for problem in _pilot([task])], lambda _: None)
        return rates.keep_gauge(task, gauge)

    def _baseline(self, name: str) -> Baseline:
        return self._neat() if name == "neat" else self._published()[name]

    def _published(self) -> dict[str, Baseline]:
        """The published baselines that have nothing to be found first."""
        from nr_agent.policies import baselines  # noqa: PLC0415 - imported when needed

        taught = self.engine.codec.control(RECHECK) is not None
        return {
            "nothinking": baselines.NoThinking(),
            "s1": baselines.S1(),
            "deer": baselines.Deer(words=_TURNS) if taught else baselines.Deer(),
            "dynasor": baselines.Dynasor(),
            "nowait": baselines.NoWait(),
            "thinkbrake": baselines.ThinkBrake(),
            "answer_convergence": baselines.AnswerConvergence(),
            "self_consistency": baselines.SelfConsistency(),
            "self_refine": baselines.SelfRefine(),
        }

    def _neat(self) -> Baseline:
        """NEAT's neurons, found once a benchmark: on problems of all families, whichever are measured first."""
        from nr_agent.evaluation.kept import NEURONS, write_whole  # noqa: PLC0415 - imported when needed
        from nr_agent.evaluation.neat import find_neat, make_neat  # noqa: PLC0415 - imports torch
        from nr_agent.neurons.channels import Channel  # noqa: PLC0415 - imports torch

        path = self.out / NEURONS
        if path.exists():
            known = json.loads(path.read_text())
            return make_neat([Channel.parse(address) for address in known["channels"]], known["reference"])
        found = find_neat(self.engine, _pilot(list(FAMILIES)))
        write_whole(path, json.dumps({"channels": found.channels, "reference": found.reference}, indent=1) + "\n")
        return found


def _pilot(families: Sequence[str]) -> list[Problem]:
    from nr_agent.tasks import TRAINING_SEEDS, draw  # noqa: PLC0415 - imports reasoning-gym

    each = max(1, PILOT // len(families)) if len(families) > 1 else PILOT
    return [draw(family, seed) for family in families for seed in TRAINING_SEEDS[-each:]]
