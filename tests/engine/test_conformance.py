"""The torch engine keeps what every engine keeps; on models that differ in attention, positions and masks."""

import pytest
from plain_pass import TorchConformance
from tiny_families import FAMILIES

from nr_agent.detection.collect import all_channels
from nr_agent.neurons.tap import ChannelPlan


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def engine(make_engine, family):
    return make_engine(family)


@pytest.fixture(scope="module")
def cramped(make_engine, family):
    return make_engine(family, slots=2, chunk=7)


class TestTorchEngine(TorchConformance):
    def plan(self, engine):
        return ChannelPlan(all_channels(engine.model)[::5])
