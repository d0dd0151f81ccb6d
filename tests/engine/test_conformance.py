"""The torch engine keeps what every engine keeps; on models that differ in attention, positions and masks."""

import pytest
import torch
from tiny_families import FAMILIES

from nr_agent.detection.collect import all_channels
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.testing.engine_suite import EngineConformance


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def engine(make_engine, family):
    return make_engine(family)


@pytest.fixture(scope="module")
def cramped(make_engine, family):
    return make_engine(family, slots=2, chunk=7)


class TestTorchEngine(EngineConformance):
    def plan(self, engine):
        return ChannelPlan(all_channels(engine.model)[::5])

    def plain_readings(self, engine, plan, ids):
        with engine.quiet() as model, torch.inference_mode():
            tap = plan.install(model)
            model(input_ids=torch.tensor([ids]), use_cache=False)
            values = tap.take(len(ids)).clone()
            tap.remove()
        return values
