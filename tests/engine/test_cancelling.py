"""Whoever leaves a run stops its rows: the engine decodes at most a few tokens that nobody will see."""

import asyncio
import threading
import time
from concurrent.futures import wait
from contextlib import aclosing, contextmanager

import pytest
from tiny_families import FAMILIES, build

from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.graphs import create_reasoner
from nr_agent.models.fingerprint import fingerprint
from nr_agent.store import EpisodeStore

ASKED = {"messages": [{"role": "user", "content": "What is 2+2?"}]}
GREEDY = Sampling(temperature=0)
MOST = 4
"""Tokens that may be decoded after somebody has left."""

PATIENCE = 60


class Passes:
    """Counts the engine's passes, one token of its only row each, and calls somebody at one of them."""

    def __init__(self):
        self.count = 0
        self.at = {}

    def __call__(self, *_):
        self.count += 1
        self.at.pop(self.count, lambda: None)()
        time.sleep(0.05)  # a slow model: there is time to decide between two tokens


@pytest.fixture
def engine(tokenizer):
    """One that thinks without an end: its most likely tokens spell no delimiter."""
    model = build("qwen3", len(tokenizer), **FAMILIES["qwen3"])
    engine = TorchEngine(model, tokenizer, name="qwen3", fingerprint=fingerprint(model))
    yield engine
    engine.shutdown()


@pytest.fixture
def passes(engine):
    passes = Passes()
    handle = engine.model.register_forward_pre_hook(passes)
    yield passes
    handle.remove()


@pytest.fixture
def store():
    return EpisodeStore.in_memory()


@contextmanager
def stopping(passes):
    """What happens in here leaves a run, and writes down how many passes there were then."""
    marks = []
    yield marks
    ended = passes.count
    time.sleep(0.5)
    assert passes.count == ended, "the engine goes on"
    assert ended <= marks[0] + MOST


async def cancelled_amid(passes, marks, work):
    """Cancel some work at the sixth pass, and mark it."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    passes.at[6] = lambda: (marks.append(passes.count), loop.call_soon_threadsafe(task.cancel))
    with pytest.raises(asyncio.CancelledError):
        await task


def reasoner(engine, store):
    return create_reasoner(engine, detector=None, store=store, sampling=GREEDY)


def statuses(store):
    return [summary.status for summary in store.find()]


def test_a_cancelled_task_stops_its_row(engine, passes, store):
    async def main():
        await cancelled_amid(passes, marks, reasoner(engine, store).ainvoke(ASKED))

    with stopping(passes) as marks:
        asyncio.run(main())
    assert statuses(store) == ["interrupted"]


def test_a_time_out_stops_the_row(engine, passes, store):
    async def main():
        with pytest.raises(TimeoutError):
            try:
                await asyncio.wait_for(reasoner(engine, store).ainvoke(ASKED), timeout=2)
            finally:
                marks.append(passes.count)

    with stopping(passes) as marks:
        asyncio.run(main())
    assert marks[0] > 5
    assert statuses(store) == ["interrupted"]


def test_a_graph_s_own_time_out_stops_the_row(engine, passes, store):
    graph = reasoner(engine, store)
    graph.step_timeout = 2

    async def main():
        with pytest.raises(TimeoutError):
            try:
                await graph.ainvoke(ASKED)
            finally:
                marks.append(passes.count)

    with stopping(passes) as marks:
        asyncio.run(main())
    assert marks[0] > 5


def test_leaving_a_stream_stops_its_row(engine, passes, store):
    """The stream is left from outside while it waits for the step's end."""

    async def main():
        async def follow():
            async with aclosing(reasoner(engine, store).astream(ASKED, stream_mode="custom")) as parts:
                async for part in parts:
                    assert part["type"] == "nr.open"

        await cancelled_amid(passes, marks, follow())

    with stopping(passes) as marks:
        asyncio.run(main())
    assert statuses(store) == ["interrupted"]


def test_breaking_out_of_a_stream_of_coroutines_stops_its_row(engine, passes, store):
    async def main():
        async with aclosing(reasoner(engine, store).astream(ASKED, stream_mode="custom")) as parts:
            async for part in parts:
                assert part["type"] == "nr.open"
                marks.append(passes.count)
                break

    with stopping(passes) as marks:
        asyncio.run(main())


def test_breaking_out_of_a_stream_stops_its_row(engine, passes, store):
    with stopping(passes) as marks:
        for part in reasoner(engine, store).stream(ASKED, stream_mode="custom"):
            assert part["type"] == "nr.open"
            marks.append(passes.count)
            break


def cancelled(engine, ref, future):
    assert future.cancel()


def closed(engine, ref, future):
    engine.close(ref)


def shut_down(engine, ref, future):
    engine.shutdown()


@pytest.mark.parametrize("leave", [cancelled, closed, shut_down])
def test_whoever_waits_for_several_steps_is_told_of_one_that_is_given_up(engine, passes, leave):
    """`wait` and `as_completed` wait for more than `cancel` says."""
    begun = threading.Event()
    passes.at[3] = begun.set
    ref = engine.open([30, 31, 32])
    future = engine.submit(ExtendRequest(ref, StopSpec(max_new=400), GREEDY))
    assert begun.wait(PATIENCE)
    leave(engine, ref, future)
    done, _ = wait([future], timeout=PATIENCE)
    assert done == {future}
    assert future.cancelled()


@pytest.mark.parametrize("leave", [cancelled, closed])
def test_whoever_waits_for_several_steps_is_told_of_one_that_never_began(engine, leave):
    ref = engine.open([30, 31, 32])
    with engine.quiet():
        future = engine.submit(ExtendRequest(ref, StopSpec(max_new=400), GREEDY))
        leave(engine, ref, future)
    done, _ = wait([future], timeout=PATIENCE)
    assert done == {future}
    assert future.cancelled()


def test_a_step_of_the_engine_s_own_stops_when_its_task_is_cancelled(engine, passes):
    ref, marks = engine.open([30, 31, 32]), []

    async def main():
        await cancelled_amid(passes, marks, engine.aextend(ExtendRequest(ref, StopSpec(max_new=400), GREEDY)))

    asyncio.run(main())
    deadline = time.monotonic() + PATIENCE
    while engine.tokens(ref) != [30, 31, 32]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert passes.count <= marks[0] + MOST
    assert engine.extend(ref, stop=StopSpec(max_new=3), sampling=GREEDY).start == 3
