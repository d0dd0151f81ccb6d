"""NEAT's rule, and how its neurons are found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nr_agent.detection.timed import NoChannels
from nr_agent.evaluation.neat import find_neat
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.neurons.writes import push_table, push_toward
from nr_agent.policies.baselines import Neat, Vanilla
from nr_agent.policies.baselines.neat import Watch, alike
from nr_agent.policies.baselines.texts import word_ids
from nr_agent.tasks import draw
from nr_agent.tokens import END_THINK


@pytest.fixture(scope="module")
def rule(engine):
    return find_neat(
        engine, [draw(family, seed) for family in ("products", "simple_equations") for seed in range(900_000, 900_006)]
    )


def readings(engine, rule, ids):
    """Plain readings: row `i` is position `i`, and wrote token `i + 1`."""
    with engine.quiet() as model, torch.inference_mode():
        tap = ChannelPlan([Channel.parse(address) for address in rule.channels]).install(model)
        model(input_ids=torch.tensor([ids]), use_cache=False)
        values = tap.take(len(ids)).clone().tolist()
        tap.remove()
    return values


@pytest.mark.parametrize("problem", [0, 1])
def test_thinking_ends_where_the_neurons_are_first_like_at_the_end(solve, engine, rule, problem):
    bare, run = solve(Vanilla(), problem), solve(rule, problem)
    assert run.report["stop_reason"] == "early_stop" and bare.thinking.startswith(run.thinking)
    ids = [token for step in run.episode.kept for token in step.ids]
    first, end = run.thoughts[0].start, run.thoughts[-1].start + len(run.thoughts[-1].ids)
    rows = readings(engine, rule, ids)
    usual = sum(alike(row, rule.reference)[1] for row in rows[: first - 1]) / (first - 1)
    limit = max(0.2, 0.5 * usual)
    done = [
        similarity > 0.6 and magnitude > limit
        for similarity, magnitude in (alike(row, rule.reference) for row in rows[first - 1 : end])
    ]
    # The state that ends it is the last that was read: at the token before the closing, or the one before that.
    assert sum(done) == 1 or done[-2:] == [True, True]
    assert any(done[-2:]) and not any(done[:-2])
    assert ids[end] == engine.codec.control(END_THINK)


def test_rule_that_is_never_met_leaves_the_model_alone(solve, rule):
    assert solve(replace(rule, similarity=1.1, almost=1.1)).text == solve(Vanilla()).text


def test_where_it_is_almost_met_a_paragraph_does_not_begin_with_a_word_of_reflection(solve, engine, rule):
    words = ("Let", "I")  # with these the embedded LRM begins to check
    bare, run = solve(Vanilla()), solve(replace(rule, similarity=1.1, words=words))
    banned = set(word_ids(engine.codec, words))
    assert banned & {step.ids[0] for step in bare.thoughts}
    assert not banned & {step.ids[0] for step in run.thoughts}
    assert run.report["stop_reason"] == "finished" and bare.thinking.startswith(run.thinking)


def test_watch_reads_the_prompt_only_for_its_length():
    rule = Neat(("FFN 1:1", "FFN 1:2"), (2.0, -4.0), NoChannels())
    watch = Watch(rule, prompt=3)
    assert not watch(torch.tensor([0, 1]), torch.tensor([[2.0, -4.0], [2.0, -4.0]]))  # at the prompt: no end
    assert not watch(torch.tensor([2]), torch.tensor([[0.8, -1.6]])) and not watch.almost_done  # below half of it
    assert not watch(torch.tensor([3]), torch.tensor([[2.2, 1.2]])) and watch.almost_done
    assert watch(torch.tensor([4]), torch.tensor([[2.0, -3.0]])) and watch.done


def test_neurons_are_few_late_and_push_the_closing(engine, rule):
    channels = [Channel.parse(address) for address in rule.channels]
    assert 1 <= len(channels) <= 10 and all(channel.kind == "ffn" for channel in channels)
    end = engine.codec.control(END_THINK)
    with engine.quiet() as model:
        push = push_toward(model, channels, end)
        table = push_table(model, channels)
    assert torch.allclose(push, table[:, end] - table.mean(1), atol=1e-4)
    assert all(float(one) * reference > 0 for one, reference in zip(push, rule.reference, strict=True))


def test_likeness_is_measured_by_each_neurons_own_reference():
    assert alike([2.0, -30.0], (2.0, -30.0)) == pytest.approx((1.0, 1.0))
    assert alike([-2.0, 30.0], (2.0, -30.0)) == pytest.approx((-1.0, 1.0))
    assert alike([1.0, -15.0], (2.0, -30.0)) == pytest.approx((1.0, 0.5))
    assert alike([0.0, 0.0], (2.0, -30.0)) == (0.0, 0.0)
