"""Many sequences share the cache: rows are read where they lie, and nobody is computed again at every step."""

from concurrent.futures import Future

import pytest
import torch

from nr_agent.detection.collect import all_channels
from nr_agent.engine import groups, scheduler
from nr_agent.engine.cache import SlotCache
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec
from nr_agent.engine.sequences import RECENT, Sequences, SequenceState
from nr_agent.engine.torch_engine import Limits
from nr_agent.errors import ConfigurationError
from nr_agent.neurons.tap import ChannelPlan

WARM = Sampling(temperature=1.0)
PATIENCE = 60


@pytest.fixture(scope="module")
def engine(make_engine):
    loaded = make_engine("qwen3")
    loaded.attach(ChannelPlan(all_channels(loaded.model)[::7]))
    return loaded


@pytest.fixture(scope="module")
def cramped(make_engine):
    return make_engine("qwen3", slots=4)


@pytest.fixture
def passes(engine):
    """The rows and new tokens of every pass, and whether what it looked back on was copied for it."""
    seen = []

    def look(_module, _inputs, named):
        seen.append((*named["input_ids"].shape, not isinstance(engine.runner.cache._rows, slice)))

    hook = engine.model.register_forward_pre_hook(look, with_kwargs=True)
    yield seen
    hook.remove()


def _steps(engine, refs, lengths):
    requests = [ExtendRequest(ref, StopSpec(max_new=new), WARM) for ref, new in zip(refs, lengths, strict=True)]
    with engine.quiet():  # all of them begin in the same pass
        futures = [engine.submit(request) for request in requests]
    return [future.result(PATIENCE) for future in futures]


def _close(engine, refs):
    for ref in refs:
        engine.close(ref)


@pytest.mark.parametrize("ending", ["resting", "closed"])
def test_rows_that_others_left_are_read_where_they_lie_and_come_to_the_same(engine, passes, ending):
    """Of 20 rows one after the other leaves; the first gaps are filled, then the rest move together."""
    prompts = [[40 + number] * (3 + number % 4) for number in range(20)]
    first, second = [4 + (7 * n) % 20 for n in range(20)], [3 + (11 * n) % 17 for n in range(20)]
    together = [engine.open(prompt, seed=number) for number, prompt in enumerate(prompts)]
    segments = _steps(engine, together, first)
    together = [segment.ref for segment in segments]
    if ending == "closed":
        _close(engine, together[1::3])
    staying = [number for number in range(20) if ending == "resting" or number % 3 != 1]
    later = _steps(engine, [together[number] for number in staying], [second[number] for number in staying])
    decoding = [(rows, copied) for rows, tokens, copied in passes if tokens == 1]
    assert len(decoding) > 25
    assert not any(copied for _, copied in decoding)
    assert {19, 20} <= {rows for rows, _ in decoding}

    for number, (prompt, segment) in enumerate(zip(prompts, segments, strict=True)):
        alone = engine.extend(engine.open(prompt, seed=number), stop=StopSpec(max_new=first[number]), sampling=WARM)
        assert alone.ids == segment.ids
        torch.testing.assert_close(alone.readings.values, segment.readings.values, atol=1e-4, rtol=1e-4)
        if number in staying:
            goes_on = later[staying.index(number)]
            rest = engine.extend(alone.ref, stop=StopSpec(max_new=second[number]), sampling=WARM)
            assert rest.ids == goes_on.ids
            torch.testing.assert_close(rest.readings.values, goes_on.readings.values, atol=1e-4, rtol=1e-4)
        engine.close(alone.ref)
    _close(engine, together)


@pytest.mark.parametrize(
    ("most", "passed"), [(4, [(3, 3), (3, 8), (3, 13), (3, 18)]), (12, [(6, 8), (6, 18)])], ids=["alike", "two lengths"]
)
def test_prompts_with_too_many_logits_for_a_pass_are_taken_in_by_several(engine, passes, monkeypatch, most, passed):
    """Each row has the logits of every other row's end, too: what is alike goes together."""
    prompts = [[40 + number] * (3 + 5 * (number % 4)) for number in range(12)]

    def think():
        passes.clear()
        refs = [engine.open(prompt, seed=number) for number, prompt in enumerate(prompts)]
        segments = _steps(engine, refs, [6] * 12)
        _close(engine, refs)
        return segments, [(rows, tokens) for rows, tokens, _ in passes if tokens > 1]

    whole, together = think()
    monkeypatch.setattr(groups, "_MOST_LOGITS", most * engine.runner.vocabulary)
    parts, apart = think()
    assert together == [(12, 18)]
    assert apart == passed
    for one, other in zip(whole, parts, strict=True):
        assert other.ids == one.ids
        torch.testing.assert_close(other.readings.values, one.readings.values, atol=1e-4, rtol=1e-4)


def _step_by_step(engine, prompts, *, steps, new):
    """Think in several sequences at once; whose step ends asks for the next one before the next pass.

    Returns:
        What each of them wrote up to now, and a future for all of it.
    """
    written = [[] for _ in prompts]
    done = [Future() for _ in prompts]

    def ask(number, ref):
        future = engine.submit(ExtendRequest(ref, StopSpec(max_new=new), WARM, readings=False))
        future.add_done_callback(lambda ended: take(number, ended))

    def take(number, ended):
        try:
            segment = ended.result()
            written[number] += segment.ids
            if len(written[number]) < steps * new:
                ask(number, segment.ref)
            else:
                engine.close(segment.ref)
                done[number].set_result(written[number])
        except BaseException as error:
            done[number].set_exception(error)

    for seed, prompt in enumerate(prompts):
        ask(seed, engine.open(prompt, seed=seed))
    return written, done


def test_more_sequences_than_slots_are_not_computed_again_at_every_step(engine, cramped, monkeypatch):
    computed = []
    run = cramped.runner.run

    def count(slots, starts, rows, wanted=None):
        computed.append(sum(len(rows[row]) for row in wanted))
        return run(slots, starts, rows, wanted)

    monkeypatch.setattr(cramped.runner, "run", count)
    prompts = [[50 + number] * 20 for number in range(8)]
    crowded, roomy = (_step_by_step(which, prompts, steps=6, new=5)[1] for which in (cramped, engine))
    assert [future.result(PATIENCE) for future in crowded] == [future.result(PATIENCE) for future in roomy]
    assert sum(computed) <= 8 * (20 + 6 * 5)


def test_a_step_that_waited_long_is_overtaken_no_more(cramped, monkeypatch):
    monkeypatch.setattr(scheduler, "PATIENCE", 40)
    with cramped.quiet():
        written, done = _step_by_step(cramped, [[60 + number] * 5 for number in range(4)], steps=75, new=4)
        last = cramped.submit(ExtendRequest(cramped.open([70] * 5, seed=9), StopSpec(max_new=4), WARM, readings=False))
    lengths = []
    last.add_done_callback(lambda _: lengths.extend(len(ids) for ids in written))
    cramped.close(last.result(PATIENCE).ref)
    assert [len(future.result(PATIENCE)) for future in done] == 4 * [300]
    assert 40 <= max(lengths) < 60


def test_who_has_just_ended_a_step_keeps_the_slot_while_others_think():
    sequences = Sequences(2, SlotCache(1))
    first, second, third = (SequenceState([1, 2], seed) for seed in range(3))
    sequences.states |= {"1": first, "2": second, "3": third}
    assert (sequences.place(first), sequences.place(second)) == (0, 1)
    first.running = True
    second.ended = sequences.passes = 7
    assert sequences.place(third, urgent=False) is None
    sequences.passes += RECENT
    assert sequences.place(third, urgent=False) == 1
    assert second.slot is None
    second.ended = third.ended = sequences.passes
    assert sequences.place(second) == 1  # somebody must go


@pytest.fixture
def short_of_memory(monkeypatch):
    """Once it is called, the second tensor that is made finds no memory."""

    def begin():
        grow, grown = torch.Tensor.new_zeros, []

        def out_of_memory(tensor, *shape, **options):
            grown.append(shape)
            if len(grown) == 2:
                raise torch.OutOfMemoryError("no room")
            return grow(tensor, *shape, **options)

        monkeypatch.setattr(torch.Tensor, "new_zeros", out_of_memory)

    return begin


def test_memory_that_ends_while_the_arena_grows_leaves_it_usable(short_of_memory):
    cache = SlotCache(2, slots=2, capacity=4)

    def write(slots, length):
        cache.begin(slots, torch.arange(length).expand(len(slots), -1), length)
        for layer in range(2):
            cache.update(*2 * [torch.ones(len(slots), 1, length, 2)], layer)

    write([0, 1], 4)
    short_of_memory()
    with pytest.raises(torch.OutOfMemoryError):
        write([0, 1], 6)
    assert (cache.slots, cache.capacity) == (2, 4)
    write([0, 1], 4)  # what fits into it goes on
    write([0, 1], 6)  # and what does not, once there is room
    assert {tensor.shape[2] for tensor in (*cache.keys, *cache.values)} == {8}


def test_a_fork_that_finds_no_memory_leaves_no_child_behind(make_engine, short_of_memory):
    loaded = make_engine("qwen3")
    refs = [loaded.open([40 + number, 41, 42], seed=number) for number in range(4)]
    refs = [segment.ref for segment in _steps(loaded, refs, [4] * 4)]
    known = set(loaded._sequences.states)
    short_of_memory()
    with pytest.raises(torch.OutOfMemoryError):  # the child would be the fifth, and the arena has four slots
        loaded.fork(refs[0])
    assert set(loaded._sequences.states) == known
    parent, child = _steps(loaded, [refs[0], loaded.fork(refs[0])], [5, 5])
    alone = loaded.extend(loaded.open([40, 41, 42], seed=0), stop=StopSpec(max_new=9), sampling=WARM)
    assert parent.ids == child.ids == alone.ids[4:]


def test_sequences_that_changed_places_by_half_are_computed_again(monkeypatch):
    cache = SlotCache(2, slots=16, capacity=4)
    cache.begin([0], torch.zeros(1, 1, dtype=torch.long), 1)
    for layer in range(2):
        cache.update(*2 * [torch.ones(1, 1, 1, 2)], layer)
    sequences = Sequences(16, cache)
    stays, rests, moves = (SequenceState([1, 2, 3], 0, cached=2, slot=slot) for slot in (0, 1, 9))
    sequences.states |= {"1": stays, "2": rests, "3": moves}
    clone, cloned = torch.Tensor.clone, []

    def out_of_memory(tensor, **options):
        cloned.append(tensor.shape)
        if len(cloned) == 2:
            raise torch.OutOfMemoryError("no room")
        return clone(tensor, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "clone", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            sequences.adjoin([stays, moves], 3)
    assert len(cloned) == 2
    assert [(one.slot, one.cached) for one in (stays, rests, moves)] == [(0, 2), (1, 0), (9, 0)]
    sequences.adjoin([stays, moves], 3)  # once there is room: there is nothing to take along
    assert [(one.slot, one.cached) for one in (stays, rests, moves)] == [(0, 2), (9, 0), (1, 0)]


def test_an_engine_that_nobody_asks_keeps_no_thread(make_engine, monkeypatch):
    monkeypatch.setattr(scheduler, "IDLE", 0.01)
    loaded = make_engine("qwen3")
    lines = []
    for seed in (1, 1):
        ref = loaded.open([40, 41, 42], seed=seed)
        lines.append(loaded.extend(ref, stop=StopSpec(max_new=3), sampling=WARM).ids)
        loaded.close(ref)
        thread = loaded._scheduler._thread
        if thread is not None:
            thread.join(PATIENCE)
        assert loaded._scheduler._thread is None
    assert lines[0] == lines[1]


@pytest.mark.parametrize("name", ["slots", "batch", "chunk"])
def test_limits_that_leave_no_room_for_a_step_are_refused(name):
    with pytest.raises(ConfigurationError, match=f"{name}=0"):
        Limits(**{name: 0})


def test_memory_that_ends_while_the_arena_takes_another_shape_leaves_what_all_layers_have(short_of_memory):
    cache = SlotCache(2, slots=4, capacity=4, room=16)
    cache.begin([0], torch.zeros(1, 1, dtype=torch.long), 1)
    for layer in range(2):
        cache.update(*2 * [torch.ones(1, 1, 1, 2)], layer)
    short_of_memory()
    with pytest.raises(torch.OutOfMemoryError):
        cache.resize(2, 8)
    assert (cache.slots, cache.capacity) == (2, 4)
