"""However a sequence is thought - in steps, forked, rolled back, evicted, beside others - it is the same sequence."""

import threading

import pytest
import torch

from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import Sampling, StopSpec
from nr_agent.neurons.tap import ChannelPlan

PROMPT = "Find the value of x in the equation: 3*x + 4 = 19"
GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.0, top_p=0.9)


def prompt(engine, text=PROMPT):
    return engine.codec.render([{"role": "user", "content": text}])


def one_shot(engine, ids, tokens, sampling=WARM, seed=3):
    ref = engine.open(ids, seed=seed)
    segment = engine.extend(ref, stop=StopSpec(max_new=tokens), sampling=sampling)
    engine.close(ref)
    return segment.ids


def in_steps(engine, ref, sizes, sampling=WARM):
    written = []
    for size in sizes:
        segment = engine.extend(ref, stop=StopSpec(max_new=size), sampling=sampling)
        ref = segment.ref
        written += segment.ids
    return ref, written


def test_greedy_steps_equal_generate(engine):
    ids = prompt(engine)
    ref, written = in_steps(engine, engine.open(ids), [1, 7, 3, 29], GREEDY)
    generated = engine.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        temperature=None,
        top_p=None,
        eos_token_id=None,
        max_new_tokens=40,
    )
    assert written == generated[0, len(ids) :].tolist()
    engine.close(ref)


def test_sampled_steps_equal_one_shot(engine):
    ids = prompt(engine)
    ref, written = in_steps(engine, engine.open(ids, seed=3), [2, 5, 11, 12])
    assert written == one_shot(engine, ids, 30)
    engine.close(ref)


def test_rolling_back_and_going_on_equals_a_fresh_run(engine):
    ids = prompt(engine)
    fresh = one_shot(engine, ids, 25)
    ref, _ = in_steps(engine, engine.open(ids, seed=3), [20])
    forced = engine.extend(ref, stop=StopSpec(max_new=6), force=engine.codec.encode("no, "), sampling=WARM)
    ref = engine.rollback(forced.ref, to=len(ids) + 9)
    ref, rest = in_steps(engine, ref, [16])
    assert engine.tokens(ref) == [*ids, *fresh]
    assert rest == fresh[9:]
    engine.close(ref)


def test_a_fork_goes_its_own_way_and_leaves_its_parent_alone(engine):
    ids = prompt(engine)
    fresh = one_shot(engine, ids, 30)
    ref, _ = in_steps(engine, engine.open(ids, seed=3), [12])
    same, earlier = engine.fork(ref), engine.fork(ref, at=len(ids) + 5)
    other = engine.fork(ref, seed=99)
    _, elsewhere = in_steps(engine, other, [18])
    assert in_steps(engine, same, [18])[1] == fresh[12:]
    assert in_steps(engine, earlier, [25])[1] == fresh[5:]
    assert in_steps(engine, ref, [18])[1] == fresh[12:]
    assert elsewhere != fresh[12:]


def test_alone_equals_in_a_ragged_batch(engine):
    prompts = [prompt(engine, f"{PROMPT} {'+ 1' * (number % 5)}") for number in range(8)]
    alone = [one_shot(engine, ids, 10 + 3 * number, seed=number) for number, ids in enumerate(prompts)]
    together: dict[int, list[int]] = {}

    def think(number: int) -> None:
        ref = engine.open(prompts[number], seed=number)
        # Steps of different lengths: rows join and leave at different tokens.
        _, together[number] = in_steps(engine, ref, [3 + number % 3, 7 + 3 * number - number % 3])
        engine.close(ref)

    threads = [threading.Thread(target=think, args=(number,)) for number in (5, 2, 7, 0, 1, 6, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(8)] == alone


@pytest.mark.parametrize("limits", [{"slots": 2, "batch": 2}, {"chunk": 7}])
def test_eviction_and_chunks_change_nothing(make_engine, limits):
    small, large = make_engine("qwen3", **limits), make_engine("qwen3")
    ids = prompt(small)
    refs = [small.open(ids, seed=seed) for seed in range(5)]
    written: list[list[int]] = [[] for _ in refs]
    for _ in range(3):
        for number, ref in enumerate(refs):
            refs[number], more = in_steps(small, ref, [6])
            written[number] += more
    assert written == [one_shot(large, ids, 18, seed=seed) for seed in range(5)]


def test_a_restored_sequence_goes_on_as_the_lost_one_would(qwen):
    ids = prompt(qwen)
    fresh = one_shot(qwen, ids, 24)
    ref = qwen.restore([*ids, *fresh[:10]], seed=3)
    assert in_steps(qwen, ref, [14])[1] == fresh[10:]


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "mistral", "gemma2", "phi3", "gpt_neox"])
def test_every_reading_equals_a_plain_forward_over_the_final_text(make_engine, family):
    engine = make_engine(family, chunk=11)
    channels = all_channels(engine.model)[::5]
    engine.attach(ChannelPlan(channels))
    ids = prompt(engine)
    read: dict[int, torch.Tensor] = {}

    def take(segment):
        readings = segment.readings
        first = segment.start - 1 if segment.start > len(ids) else 0
        assert readings.positions.tolist() == list(range(first, segment.start + len(segment.ids) - 1))
        for position, token, row in zip(readings.positions.tolist(), readings.token_ids, readings.values, strict=True):
            assert engine.tokens(segment.ref)[position] == token
            read[position] = row
        return segment.ref

    ref = take(engine.extend(engine.open(ids, seed=1), stop=StopSpec(max_new=9), sampling=WARM))
    ref = take(engine.extend(ref, stop=StopSpec(max_new=5), force=engine.codec.encode("Wait, no: "), sampling=WARM))
    ref = take(engine.extend(engine.rollback(ref, to=ref.length - 4), stop=StopSpec(max_new=8), sampling=WARM))
    ref = take(engine.extend(engine.fork(ref, seed=5), stop=StopSpec(max_new=8), sampling=WARM))
    final = engine.tokens(ref)
    engine.attach(None)
    tap = ChannelPlan(channels).install(engine.model)
    with torch.inference_mode():
        engine.model(input_ids=torch.tensor([final]), use_cache=False)
    plain = tap.take(len(final)).clone()
    tap.remove()
    assert sorted(read) == list(range(len(final) - 1))
    for position, row in read.items():
        torch.testing.assert_close(row, plain[position], rtol=1e-3, atol=1e-3)


def test_flush_brings_the_last_reading_too(make_engine):
    engine = make_engine("llama")
    engine.attach(ChannelPlan(all_channels(engine.model)[:4]))
    ids = prompt(engine)
    first = engine.extend(engine.open(ids), stop=StopSpec(max_new=3), sampling=GREEDY, flush=True)
    assert first.readings.positions.tolist() == list(range(len(ids) + 3))
    second = engine.extend(first.ref, stop=StopSpec(max_new=2), sampling=GREEDY)
    assert second.readings.positions.tolist() == [len(ids) + 3]
