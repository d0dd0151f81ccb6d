"""The model without its channels is measured on the same problems, and is whole again afterwards."""

import pytest

from nr_agent.engine.protocol import Sampling
from nr_agent.evaluation.ablating import as_markdown, measure_ablation
from nr_agent.models.registry import load_engine
from nr_agent.neurons.channels import Channel
from nr_agent.tasks import draw


@pytest.fixture(scope="module")
def engine():
    loaded = load_engine("nano")
    yield loaded
    loaded.shutdown()


def test_without_any_neuron_nothing_is_right_and_without_one_it_hardly_matters(engine):
    problems = [draw("chain_sum", seed) for seed in range(1_710_000, 1_710_006)]
    settings = {"sampling": Sampling(temperature=0.0), "draws": 0, "max_tokens": 200}
    config = engine.model.config
    every = [Channel("ffn", n, i) for n in range(config.num_hidden_layers) for i in range(config.intermediate_size)]
    intact, crippled = measure_ablation(engine, every, problems, **settings)
    again, one_less = measure_ablation(engine, every[:1], problems, **settings)
    assert (intact.arm, crippled.arm, crippled.channels) == ("intact", "mon", len(every))
    assert intact == again
    assert intact.slips_change == 0
    assert crippled.right < intact.right
    assert one_less.right > crippled.right
    assert not any(module._forward_pre_hooks for module in engine.model.modules())


def test_random_arms_are_as_many_as_asked_for_and_shown_in_the_table(engine):
    problems = [draw("products", 1_710_001)]
    rows = measure_ablation(
        engine, [Channel("ffn", 0, 3)], problems, sampling=Sampling(temperature=0.0), draws=2, max_tokens=40
    )
    assert [row.arm for row in rows] == ["intact", "mon", "random 0", "random 1"]
    assert all(row.interval[0] <= row.slips_change <= row.interval[1] for row in rows)
    assert len(as_markdown(rows).splitlines()) == 6
