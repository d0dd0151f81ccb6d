"""Several reasoners on one engine: each sees what it was made to see, or is refused when it is built."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nr_agent import create_reasoner
from nr_agent.errors import ConfigurationError
from nr_agent.graphs.baseline import create_baseline
from nr_agent.models.registry import load_detector
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.policies.baselines import Neat
from nr_agent.testing import ScriptedDetector

EQUATION = {"messages": [("user", "Solve for x: 12*x + 7 = 91")]}


@pytest.fixture
def engine(nano):
    """The engine with the embedded LRM, nothing of which is read."""
    nano.attach(None)
    yield nano
    nano.attach(None)


@pytest.fixture
def detector(engine):
    return load_detector("nano", engine)


@pytest.fixture
def scores(engine, detector, store):
    """What a watched reasoner on the engine scored, step by step."""
    watched = create_reasoner(engine, detector=detector, store=store, control=False)

    def scores():
        episode = store.get(watched.invoke(EQUATION)["reasoning"]["episode_id"])
        return [[round(one.score, 3) for one in step.readings] for step in episode.steps if step.kind == "think"]

    return scores


def test_a_reasoner_that_reads_nothing_leaves_the_one_that_does_watching(scores, engine):
    alone = scores()
    assert all(alone)
    quiet = ScriptedDetector(lambda text: {"intra_step": 0.0}, fingerprint=engine.fingerprint)
    for watch in (quiet, None):
        beside = create_reasoner(engine, detector=watch)
        assert scores() == alone
        assert beside.invoke(EQUATION)["reasoning"]["answer"]


def test_reasoners_with_the_same_detector_share_an_engine(scores, engine, detector):
    alone = scores()
    for watch in (detector, detector.at({"intra_step": 0.05}), load_detector("nano", engine)):
        assert create_reasoner(engine, detector=watch).invoke(EQUATION)["reasoning"]["answer"]
        assert scores() == alone


def test_a_second_choice_of_channels_is_refused_when_the_graph_is_built(scores, engine, detector):
    alone = scores()
    channels = detector.channels[:2]
    other = SimpleNamespace(
        id="other", fingerprint=engine.fingerprint, plan=ChannelPlan(channels), observe=detector.observe
    )
    rule = Neat(tuple(map(str, channels)), (1.0, 1.0), other.plan)
    for build in (lambda: create_reasoner(engine, detector=other), lambda: create_baseline(engine, rule)):
        with pytest.raises(ConfigurationError, match=r"read already.*\n.*share one detector"):
            build()
        assert scores() == alone
        engine.attach(None)
        build()
        engine.attach(detector.plan)
