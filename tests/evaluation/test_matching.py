"""Controls are matched to how often ours raises events, and to nothing that is reported on."""

from __future__ import annotations

import pytest

from nr_agent.episode import Problem
from nr_agent.errors import TaskError
from nr_agent.evaluation.controls import OracleDetector
from nr_agent.evaluation.matching import Gauge, Rates, entropy_limit, kept_shares
from nr_agent.graphs import create_reasoner
from nr_agent.policies import BranchPolicy, EarlyStopPolicy, Policies, RecheckPolicy, Rule
from nr_agent.testing import ScriptedDetector, ScriptedEngine

STEPS = ["4+7=12", "slip 4+7=11", "11+3=14", "circle 14", "So the answer is 14.", "more"]
PACK = Policies(
    {"intra_step": RecheckPolicy(), "inter_step": Rule(BranchPolicy(), min_score=0.95), "instance": EarlyStopPolicy()}
)


def report(watch):
    reasoner = create_reasoner(ScriptedEngine(STEPS), detector=watch, control=False)
    return reasoner.invoke({"messages": [("user", "4+7+3?")]})["reasoning"]


def posed(*seeds):
    return [(Problem(text="4+7+3?"), seed) for seed in seeds]


def test_rates_count_the_events_that_the_policies_listen_to(tmp_path):
    scores = {"slip": {"intra_step": 0.9}, "circle": {"inter_step": 0.94}, "more": {"instance": 0.9}}
    watch = ScriptedDetector(lambda text: next((scores[word] for word in scores if word in text), {}))
    rates = Rates(tmp_path / "matched.json")
    rates.note("sums", posed(7), [report(watch)], PACK)
    once = {"intra_step": 1 / 6, "inter_step": 0.0, "instance": 1 / 6}
    assert Rates(tmp_path / "matched.json").of("sums") == once
    rates.note("sums", posed(7, 8), [report(watch), report(None)], PACK)  # a problem counts once, however often it ran
    assert Rates(tmp_path / "matched.json").of("sums") == {level: rate / 2 for level, rate in once.items()}
    with pytest.raises(TaskError, match="has not run there"):
        rates.of("products")


def test_gauge_raises_nothing_and_sees_what_the_oracle_sees():
    engine = ScriptedEngine(STEPS, confidence=lambda text: -0.5 if "slip" in text else -0.1)
    gauge = Gauge(engine)
    reasoner = create_reasoner(engine, detector=gauge, control=False)
    assert reasoner.invoke({"messages": [("user", "4+7+3?")]})["reasoning"]["events"] == []
    assert len(gauge.entropies) == 6  # the closing is no thought
    assert gauge.true_rates()["intra_step"] == pytest.approx(1 / 6)
    assert gauge.true_rates()["instance"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(("rate", "above"), [(0.0, 0), (0.1, 10), (0.25, 25), (1.0, 99)])
def test_limit_is_exceeded_by_the_share_of_steps_that_is_wanted(rate, above):
    entropies = [number / 100 for number in range(100)]
    limit = entropy_limit(entropies, rate)
    assert sum(value > limit for value in entropies) == above


def test_true_events_are_thinned_to_the_wanted_rate():
    shares = kept_shares(
        {"intra_step": 0.1, "inter_step": 0.3, "instance": 0.0}, {"intra_step": 0.4, "inter_step": 0.1, "instance": 0.0}
    )
    assert shares == {"intra_step": 0.25, "inter_step": 1.0, "instance": 1.0}

    def raised(**shares) -> int:
        events = 0
        for number in range(60):
            engine = ScriptedEngine([f"So the answer is {number}."])
            reasoner = create_reasoner(engine, detector=OracleDetector(engine, **shares), control=False)
            events += len(reasoner.invoke({"messages": [("user", "?")]})["reasoning"]["events"])
        return events

    assert raised() == 60
    assert 5 <= raised(shares={"instance": 0.3}) <= 31  # six standard deviations around 18 are 0 and 39
