"""Logit rules, margins and monitors, each held to a plain computation."""

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import ExtendRequest, Margin, Sampling, StopSpec
from nr_agent.engine.sampler import draw
from nr_agent.errors import EngineError
from nr_agent.neurons.tap import ChannelPlan

IDS = [30, 31, 32, 33]
GREEDY = Sampling(temperature=0)


@pytest.fixture
def tapped(qwen):
    channels = all_channels(qwen.model)[::7]
    qwen.attach(ChannelPlan(channels))
    yield qwen
    qwen.attach(None)


def gap(engine, ids, token):
    """How far a token is below the likeliest one, behind some tokens."""
    with torch.no_grad():
        logp = engine.model(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
    return float(logp.max() - logp[token])


def test_a_repeated_token_is_punished_as_transformers_does_it():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 50, generator=generator)
    written = [[1, 2, 2, 3], [4], [5, 6, 7]]
    how = [Sampling(temperature=0, repetition_penalty=value) for value in (3.0, 1.0, 40.0)]
    for row in range(3):
        logits[row, written[row][0]] = 5.0
    expected = [
        int(
            RepetitionPenaltyLogitsProcessor(how[row].repetition_penalty)(
                torch.tensor([ids]), logits[row : row + 1]
            ).argmax()
        )
        for row, ids in enumerate(written)
    ]
    assert draw(logits, how, [(0, 0)] * 3, written).tolist() == expected
    assert expected[1] == 4
    assert expected[2] != 5


def test_a_penalty_of_one_changes_nothing_and_a_high_one_forbids_repeats(qwen):
    free = qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=24), sampling=GREEDY).ids
    one = Sampling(temperature=0, repetition_penalty=1.0)
    assert qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=24), sampling=one).ids == free
    high = Sampling(temperature=0, repetition_penalty=1e6)
    written = qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=24), sampling=high).ids
    assert len({*IDS, *written}) == len(IDS) + 24


def test_what_is_avoided_is_left_at_its_last_token(qwen):
    stop = StopSpec(max_new=12)
    plain = qwen.extend(qwen.open(IDS), stop=stop, sampling=GREEDY).ids
    piece = tuple(plain[2:6])
    other = qwen.extend(qwen.open(IDS), stop=stop, sampling=Sampling(temperature=0, avoid=(piece,))).ids
    assert other[:5] == plain[:5]
    assert other[5] != plain[5]
    assert all(tuple(other[i : i + 4]) != piece for i in range(len(other)))


@pytest.mark.parametrize("token", [7, 90])
def test_a_segment_is_empty_where_the_margin_holds_before_its_first_token(qwen, token):
    off = gap(qwen, IDS, token)
    stays = qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=3, margins=(Margin(token, off - 1e-3),)))
    ends = qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=3, margins=(Margin(token, off + 1e-3),)))
    assert (len(stays.ids), stays.end) == (3, "length")
    assert (ends.ids, ends.end, ends.ref.length) == ([], "margin", len(IDS))


def test_a_margin_anywhere_ends_where_a_plain_computation_says(qwen):
    free = qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=30), sampling=GREEDY).ids
    gaps = [gap(qwen, IDS + free[:place], 7) for place in range(30)]
    nats = sorted(gaps[1:])[3] + 1e-4
    first = next(place for place in range(30) if gaps[place] <= nats)
    stop = StopSpec(max_new=30, margins=(Margin(7, nats, anywhere=True),))
    segment = qwen.extend(qwen.open(IDS), stop=stop, sampling=GREEDY)
    assert (segment.ids, segment.end) == (free[:first], "margin")


def test_readings_have_no_gap_behind_a_margin(tapped):
    first = tapped.extend(tapped.open(IDS), stop=StopSpec(max_new=5, margins=(Margin(7, 1e9),)), sampling=GREEDY)
    second = tapped.extend(first.ref, stop=StopSpec(max_new=5), sampling=GREEDY)
    positions = [*first.readings.positions.tolist(), *second.readings.positions.tolist()]
    assert first.ids == []
    assert positions == list(range(len(IDS) + 5 - 1))


def test_a_monitor_sees_every_reading_and_ends_the_segment_with_the_token_it_produced(tapped):
    seen = []

    def monitor(positions, values):
        seen.extend(zip(positions.tolist(), values, strict=True))
        return seen[-1][0] >= 10

    segment = tapped.extend(tapped.open(IDS), stop=StopSpec(max_new=50, monitor=monitor), sampling=GREEDY)
    assert segment.end == "monitor"
    assert len(IDS) + len(segment.ids) == 12
    assert [position for position, _ in seen] == segment.readings.positions.tolist() == list(range(11))
    assert torch.equal(torch.stack([values for _, values in seen]), segment.readings.values)


def test_a_monitor_that_raises_fails_its_own_step_alone(tapped):
    def broken(positions, values):
        raise ValueError("no idea")

    other = tapped.submit(ExtendRequest(tapped.open(IDS), StopSpec(max_new=40), GREEDY))
    ref = tapped.open(IDS)
    with pytest.raises(EngineError, match="no idea"):
        tapped.extend(ref, stop=StopSpec(max_new=5, monitor=broken))
    assert len(other.result(60).ids) == 40
    assert tapped.tokens(ref) == IDS
    again = tapped.extend(ref, stop=StopSpec(max_new=3), sampling=GREEDY)
    assert again.readings.positions.tolist() == list(range(len(IDS) + 2))


def test_a_monitor_without_readings_and_unknown_ids_are_refused(qwen):
    with pytest.raises(EngineError, match="readings"):
        qwen.extend(qwen.open(IDS), stop=StopSpec(monitor=lambda positions, values: False))
    for bad in (StopSpec(margins=(Margin(1 << 30, 1.0),)), StopSpec(max_new=1)):
        with pytest.raises(EngineError, match="token"):
            qwen.extend(qwen.open(IDS), stop=bad, sampling=Sampling(suppress=(-1,)))
    with pytest.raises(EngineError, match="token"):
        qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=1), sampling=Sampling(avoid=((1, 1 << 30),)))
