"""Channels are ranked as they stream by; what they push on a token is what they add to its logit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from nr_agent.detection.collect import all_channels, read_attributions, read_hidden, read_traces
from nr_agent.detection.fit import FitSettings
from nr_agent.detection.labels import StepLabels
from nr_agent.detection.rank import Choice, rank_channels
from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem
from nr_agent.errors import DetectorError
from nr_agent.events import LEVELS
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.ranking import MeanDifference, StepDifference, choose, choose_random
from nr_agent.neurons.sites import find_sites

SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SHAPE, intermediate_size=80, num_key_value_heads=2, pad_token_id=0)
    return AutoModelForCausalLM.from_config(config).eval()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 99), st.sampled_from([0.0, 1e6]))
@settings(max_examples=30, deadline=None)
def test_a_ranking_that_streams_is_that_of_all_steps_together(sizes, seed, level):
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64) + level
    failing = torch.rand(sum(sizes), generator=generator) < 0.5
    streamed = MeanDifference(5)
    for piece, labels in zip(means.split(sizes), failing.split(sizes), strict=True):
        streamed.add(piece, labels)
    if int(failing.sum()) < 2 or int((~failing).sum()) < 2:
        assert not streamed.scores().any()
        return
    groups = means[failing], means[~failing]
    pooled = torch.stack([one.var(0, correction=0) for one in groups]).mean(0).sqrt()
    expected = (groups[0].mean(0) - groups[1].mean(0)) / pooled
    torch.testing.assert_close(streamed.scores(), expected.float(), rtol=1e-4, atol=1e-4)


def test_a_channel_that_moves_only_at_the_end_of_steps_is_ranked_by_that():
    generator = torch.Generator().manual_seed(0)
    means, lasts = torch.randn(40, 3, generator=generator), torch.randn(40, 3, generator=generator)
    failing = torch.arange(40) % 2 == 0
    means[failing, 0] += 3
    lasts[failing, 1] -= 5
    ranking = StepDifference(3)
    for part in range(0, 40, 8):
        ranking.add(means[part : part + 8], lasts[part : part + 8], failing[part : part + 8])
    scores = ranking.scores()
    assert scores[1] < -2 < 2 < scores[0]
    assert scores[2].abs() < 1
    assert ranking.sign_flips()[1]


def traces(*lengths):
    generator = torch.Generator().manual_seed(1)
    made = []
    for length in lengths:
        ids = torch.randint(1, 60, (length,), generator=generator).tolist()
        made.append(Traced(Problem(text=str(length)), 0, ids, [TracedStep(2, length, "", [], [])]))
    return made


def test_attributions_are_what_each_channel_adds_to_the_logit_of_the_token_that_was_written(model):
    """Every site's channels together: what its projection puts out, taken to the token's logit."""
    (traced,) = traces(9)
    channels = all_channels(model)
    ((_, pushed),) = read_attributions(model, [traced], channels)
    outputs = {}
    handles = [
        site.module.register_forward_hook(lambda _m, _i, out, at=at: outputs.update({at: out[0]}))
        for at, site in enumerate(find_sites(model))
    ]
    with torch.no_grad():
        model(torch.tensor([traced.ids]))
    for handle in handles:
        handle.remove()
    aims = model.lm_head.weight[traced.ids[1:]] * model.model.norm.weight
    for at, site in enumerate(find_sites(model)):
        columns = [i for i, c in enumerate(channels) if (c.kind, c.layer) == (site.kind, site.layer)]
        expected = (outputs[at][:-1] * aims).sum(-1)
        torch.testing.assert_close(pushed[:-1, columns].sum(-1), expected.detach(), atol=1e-5, rtol=1e-4)
    assert not pushed[-1].any()


def test_padding_and_small_batches_change_nothing(model):
    known = traces(9, 4, 14)
    channels = [Channel("ffn", 1, 7), Channel("head", 2, 3)]
    for read in (
        lambda batch: read_attributions(model, known, channels, batch=batch),
        lambda batch: read_traces(model, known, channels, batch=batch),
        lambda batch: read_hidden(model, known, batch=batch),
    ):
        together, alone = dict(read(3)), dict(read(1))
        assert sorted(together) == [0, 1, 2]
        for number, traced in enumerate(known):
            assert len(together[number]) == len(traced.ids)
            torch.testing.assert_close(together[number], alone[number], atol=1e-5, rtol=1e-4)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def labelled(count):
    return [[StepLabels(n % 2 == 0, None, n % 3 == 0, n % 2 == 1)] for n in range(count)]


def test_the_published_choice_is_one_layer_with_heads_for_circling(model):
    known = traces(*range(5, 17))
    choice = FitSettings.published(channels=dict.fromkeys(LEVELS, 4)).choice()
    mon, control, mean, scale = rank_channels(model, known, labelled(12), ["train"] * 12, choice)
    for groups in (mon.groups, control.groups):
        for group in groups:
            addresses = [Channel.parse(address) for address in group.channels]
            assert {channel.layer for channel in addresses} == {1}
            assert {channel.kind for channel in addresses} == {"head" if group.level == "inter_step" else "ffn"}
    assert {group.ranking for group in mon.groups} == {"logit_attribution"}
    assert len(mean) == len(scale) == len(all_channels(model))


def test_rankings_differ_and_signs_are_always_those_of_the_readings(model):
    known = traces(*range(5, 17))
    kinds, many = dict.fromkeys(LEVELS, "any"), dict.fromkeys(LEVELS, 252)
    found = {}
    for ranking in ("mean_difference", "logit_attribution"):
        mon, *_ = rank_channels(model, known, labelled(12), ["train"] * 12, Choice(many, kinds, ranking))
        found[ranking] = mon.groups[0]
    by_readings = dict(zip(found["mean_difference"].channels, found["mean_difference"].scores, strict=True))
    assert found["mean_difference"].channels != found["logit_attribution"].channels
    agree = [
        score * by_readings[name] >= 0
        for name, score in zip(found["logit_attribution"].channels, found["logit_attribution"].scores, strict=True)
    ]
    assert all(agree)


def test_only_training_problems_rank(model):
    known = traces(*range(5, 17))
    choice = Choice(dict.fromkeys(LEVELS, 9), dict.fromkeys(LEVELS, "any"))
    splits = ["train"] * 9 + ["test"] * 3
    mon, *_ = rank_channels(model, known, labelled(12), splits, choice)
    again, *_ = rank_channels(model, known[:9], labelled(9), splits[:9], choice)
    assert mon == again


def test_a_choice_of_nothing_is_refused(model):
    choice = Choice(dict.fromkeys(LEVELS, 4), dict.fromkeys(LEVELS, "expert"))
    with pytest.raises(DetectorError, match="no expert channel"):
        rank_channels(model, traces(5), labelled(1), ["train"], choice)


def test_random_channels_are_drawn_once_each_and_the_same_again():
    pool = [Channel("ffn", 0, i) for i in range(20)]
    readings = StepDifference(20)
    steps = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    readings.add(steps, steps, torch.tensor([True, False] * 4))
    drawn = choose_random(pool, [True] * 19 + [False], 12, seed=3, readings=readings)
    assert drawn == choose_random(pool, [True] * 19 + [False], 12, seed=3, readings=readings)
    assert len({channel for channel, _ in drawn}) == 12
    assert dict(drawn) == {channel: float(readings.scores()[channel.index]) for channel, _ in drawn}
    assert pool[19] not in [channel for channel, _ in drawn]


def test_the_best_channel_comes_first():
    ranking = MeanDifference(3)
    steps = torch.tensor([[1.0, 5.0, 0.1], [1.1, 5.2, 0.0], [1.0, -5.0, 0.1], [1.2, -5.1, 0.2]])
    ranking.add(steps, torch.tensor([True, True, False, False]))
    pool = [Channel("ffn", 0, i) for i in range(3)]
    assert choose(ranking, pool, [True] * 3, 1)[0][0] == pool[1]
