"""The conformance suite of episode stores: what was acknowledged is there, once and whole, whatever happened.

Subclass `StoreConformance` in a test file and give it a fixture `location`; pytest collects the rest. Name the class
`Test...`: the base is not collected by itself. It opens stores in other processes, too, and kills those.
"""

from __future__ import annotations

import json
import math
import pkgutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nr_agent.episode import Episode, Intervention, Problem, Step, Usage, measure_usage
from nr_agent.errors import NotFoundError
from nr_agent.events import Evidence, IntraStepFailure
from nr_agent.ids import new_id
from nr_agent.store import EpisodeFilter

PATIENCE = 300.0
"""Seconds after which a process that has not ended never will."""

STEPS = 5
"""Steps of an episode in this suite, the prompt included."""

# Run in a process of its own: argv is the location, the name of the first episode, how many, after how many lines of
# output it kills itself (0: never), what opens a store, and its options. Every line tells of something that was
# acknowledged.
_WRITE = """
import json, os, pkgutil, signal, sys
from nr_agent.testing.store_suite import STEPS, make_episode, make_step
location, first, count, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
opener, options = pkgutil.resolve_name(sys.argv[5]), json.loads(sys.argv[6])
told = 0
def tell(what, episode_id):
    global told
    os.write(1, (json.dumps([what, episode_id]) + "\\n").encode())
    told += 1
    if told == last:
        os.kill(os.getpid(), signal.SIGKILL)
store = opener(location, **options)
for number in range(count):
    whole = make_episode(f"{first}-{number}")
    store.begin(whole.model_copy(update={"steps": [], "events": [], "interventions": []}))
    tell("begun", whole.id)
    for step in whole.steps:
        store.add(whole.id, step)
        tell("queued", whole.id)
    store.add(whole.id, *whole.events, *whole.interventions)
    store.flush()
    tell("flushed", whole.id)
    store.finish(whole.id, status="completed", answer="47", correct=True)
    tell("finished", whole.id)
store.close()
tell("closed", "")
"""


def make_episode(episode_id: str | None = None, **fields: Any) -> Episode:
    """A small whole episode: a prompt, a slip, its recheck, more thinking, the answer."""
    steps = [make_step(index) for index in range(STEPS)]
    event = IntraStepFailure(id="v1", step=1, position=20, score=0.9, threshold=0.5, detector="d")
    action = Intervention(id="i1", kind="recheck", event_id="v1", policy="recheck", step=1, position=20, inserted=[7])
    values: dict[str, Any] = {
        "problem": Problem(text="What is 12 + 35?", reference="47", domain="math", task="chain_sum", seed=5),
        "steps": steps,
        "events": [event],
        "interventions": [action],
    }
    return Episode(id=episode_id or new_id(), **(values | fields))


def make_step(index: int, **fields: Any) -> Step:
    """A step of ten tokens at its place."""
    kind = "prompt" if index == 0 else "answer" if index == STEPS - 1 else "think"
    values = {"index": index, "kind": kind, "start": 10 * index, "ids": [index] * 10, "text": f"step {index}"}
    return Step.model_validate({**values, "provenance": [("prompt" if index == 0 else "model", 10)], **fields})


class StoreConformance:
    """What every episode store keeps.

    Fixture to give:
        location: where a new, empty store can be opened, as text that another process can use; it outlives processes.

    Attributes:
        opener: what opens a store at a location, as `module:name`: other processes look it up, too.
        options: that it is given by name; plain values.
        processes: how many write at once.
        episodes: how many each of them writes.
        large: bytes of the large step.

    Example:
        >>> class TestMyStore(StoreConformance):  # doctest: +SKIP
        ...     opener = "my_package:MyStore"
        ...
        ...     @pytest.fixture
        ...     def location(self, tmp_path):
        ...         return str(tmp_path / "episodes")
    """

    opener = "nr_agent.store:EpisodeStore"
    options: ClassVar[Mapping[str, Any]] = {}
    processes = 8
    episodes = 200
    large = 50_000_000

    def open(self, location: str) -> Any:
        """The store at a location."""
        return pkgutil.resolve_name(self.opener)(location, **self.options)

    # --- what goes in comes out ---

    def test_an_episode_comes_back_as_it_went_in(self, location: str) -> None:
        whole = make_episode("e", created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))
        with self.open(location) as store:
            store.begin(whole)
            assert store.get("e") == whole
        with self.open(location) as store:
            known = store.get("e")
            assert (known.steps, known.events, known.interventions) == (whole.steps, whole.events, whole.interventions)

    def test_what_is_written_twice_is_there_once(self, location: str) -> None:
        whole = make_episode("e", status="completed")
        with self.open(location) as store:
            for _ in range(3):
                store.begin(whole)
                store.add("e", *whole.steps, *whole.events, *whole.interventions)
            assert len(list(store.find())) == 1
            known = store.get("e")
            assert (known.steps, known.events, known.interventions) == (whole.steps, whole.events, whole.interventions)

    def test_finishing_says_what_came_of_it(self, location: str) -> None:
        with self.open(location) as store:
            store.begin(make_episode("e"))
            store.discard("e", [1])
            store.finish("e", status="completed", stop_reason="finished", answer="47", correct=True)
            known = store.get("e")
            assert (known.status, known.answer, known.correct) == ("completed", "47", True)
            assert [step.discarded for step in known.steps] == [index == 1 for index in range(STEPS)]
            assert known.usage == measure_usage(known.steps) == Usage(prompt=10, thinking=20, answer=10, discarded=10)
            assert known.ended_at is not None

    def test_what_was_never_begun_is_an_error_for_the_caller(self, location: str) -> None:
        with self.open(location) as store:
            writes: list[Callable[[], Any]] = [
                lambda: store.add("ghost", make_step(0)),
                lambda: store.discard("ghost", [0]),
                lambda: store.finish("ghost", status="completed"),
                lambda: store.get("ghost"),
            ]
            for write in writes:
                with pytest.raises(NotFoundError):
                    write()

    def test_filters_and_pages_give_the_newest_first(self, location: str) -> None:
        with self.open(location) as store:
            start = datetime(2026, 1, 1, tzinfo=UTC)
            for number in range(12):
                fields = {"status": "completed", "correct": number % 3 > 0, "model": f"m{number % 2}"}
                store.begin(make_episode(f"e{number:02}", created_at=start + timedelta(days=number // 2), **fields))
            ids = [f"e{number:02}" for number in reversed(range(12))]
            assert [one.id for one in store.find()] == ids
            assert [one.id for one in store.find(EpisodeFilter(limit=5))] == ids[:5]
            wrong = [one for one in ids if int(one[1:]) % 3 == 0]
            assert [one.id for one in store.find(EpisodeFilter(correct=False))] == wrong
            late = EpisodeFilter(since=start + timedelta(days=4), model="m1")
            assert [one.id for one in store.find(late)] == ["e11", "e09"]
            assert list(store.find(EpisodeFilter(event="overthinking"))) == []

    def test_deleting_takes_all_that_belongs_to_an_episode_and_spares_what_runs(self, location: str) -> None:
        with self.open(location) as store:
            store.begin(make_episode("done", status="completed"))
            store.begin(make_episode("runs"))
            assert store.delete(["done", "runs", "ghost"]) == 1
            assert [one.id for one in store.find()] == ["runs"]
            with pytest.raises(NotFoundError):
                store.get("done")

    # --- values that databases do not like ---

    def test_nan_nul_and_lone_surrogates_are_stored_as_what_every_database_takes(self, location: str) -> None:
        event = IntraStepFailure(
            id="v", step=0, position=0, score=1, threshold=0, detector="d", evidence=Evidence(features={"a": math.nan})
        )
        metadata = {"n": math.nan, "i": -math.inf, "t": "\0", "k\ud800": "\udfff"}
        with self.open(location) as store:
            store.begin(Episode(id="odd", problem=Problem(text="a\0b", metadata=metadata)))
            step = make_step(0, logprobs=[math.nan, -math.inf, None, *[-0.5] * 7])
            store.add("odd", step.model_copy(update={"text": "x\0\ud800"}), event)
            known = store.get("odd")
        assert known.problem.text == "a\ufffdb"
        assert known.problem.metadata == {"n": None, "i": None, "t": "\ufffd", "k\ufffd": "\ufffd"}
        assert known.steps[0].text == "x\ufffd\ufffd"
        assert known.steps[0].logprobs[:4] == [None, None, None, -0.5]
        assert math.isnan(known.events[0].evidence.features["a"])

    def test_a_very_large_step_comes_back(self, location: str) -> None:
        text = "0123456789" * (self.large // 10)
        with self.open(location) as store:
            store.begin(make_episode("e"))
            store.add("e", make_step(1, text=text))
            store.finish("e", status="completed")
        with self.open(location) as store:
            assert store.get("e").steps[1].text == text

    def test_a_clock_that_goes_back_loses_nothing(self, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
        class Clock(datetime):
            back = timedelta(0)

            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) - cls.back

        for module in ("store", "writer", "operations", "notes", "annotations"):
            monkeypatch.setattr(f"nr_agent.store.{module}.datetime", Clock, raising=False)
        with self.open(location) as store:
            store.begin(make_episode("before"))
            Clock.back = timedelta(days=400)
            store.add("before", make_step(2, text="later"))
            store.begin(make_episode("after"))
            store.finish("after", status="completed")
            with self.open(location) as second:
                assert {one.id: one.status for one in second.find()} == {"before": "running", "after": "completed"}
            assert store.get("before").steps[2].text == "later"
            store.finish("before", status="completed")
            assert len(list(store.find(EpisodeFilter(status="completed")))) == 2
        ids = [new_id() for _ in range(1000)]
        assert ids == sorted(set(ids))

    # --- many at once ---

    def test_threads_that_write_at_once_lose_nothing(self, location: str) -> None:
        failures: list[BaseException] = []
        with self.open(location) as store:

            def work(name: str) -> None:
                try:
                    for number in range(10):
                        whole = make_episode(f"{name}-{number}")
                        store.begin(whole.model_copy(update={"steps": []}))
                        for step in whole.steps:
                            store.add(whole.id, step)
                        store.finish(whole.id, status="completed")
                        assert len(store.get(whole.id).steps) == STEPS
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            assert len(list(store.find(EpisodeFilter(status="completed")))) == 80

    def test_processes_that_write_at_once_lose_nothing(self, location: str) -> None:
        # There is no store yet: they race for making it, too.
        started = [self._start(location, f"p{number}", self.episodes) for number in range(self.processes)]
        ends = [process.communicate(timeout=PATIENCE) for process in started]
        assert [process.returncode for process in started] == [0] * self.processes, ends[0][1]
        told = [line for out, _ in ends for line in _lines(out)]
        self._check(location, told)
        with self.open(location) as store:
            done = [one.id for one in store.find(EpisodeFilter(status="completed"))]
        assert len(done) == len(set(done)) == self.processes * self.episodes

    # --- killed ---

    @pytest.mark.parametrize("last", range(1, STEPS + 4))
    def test_killed_at_any_stage_an_episode_is_there_as_far_as_it_was_acknowledged(
        self, location: str, last: int
    ) -> None:
        process = self._start(location, "e", 1, last)
        out, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == (0 if last > STEPS + 3 else -signal.SIGKILL), error
        self._check(location, _lines(out))
        # Whoever was cut off tries again, and nothing is there twice.
        process = self._start(location, "e", 1)
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
        self._check(location, [["finished", "e-0"]])

    @pytest.mark.parametrize("after", [3, 40, 177])
    def test_killed_from_outside_while_it_writes_nothing_acknowledged_is_lost(self, location: str, after: int) -> None:
        process = self._start(location, "k", 1000)
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(after)]
        process.kill()
        out, _ = process.communicate(timeout=PATIENCE)
        self._check(location, told + _lines(out))

    # --- beneath the tests ---

    def _start(self, location: str, first: str, count: int, last: int = 0) -> subprocess.Popen[bytes]:
        store = (self.opener, json.dumps(dict(self.options)))
        return subprocess.Popen(  # noqa: S603 - this suite's own program
            [sys.executable, "-c", _WRITE, location, first, str(count), str(last), *store],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path.cwd(),
        )

    def _check(self, location: str, told: list[list[str]]) -> None:
        """Nothing that was acknowledged is lost, nothing is torn, and nothing is there twice."""
        acknowledged = {
            kind: {name for what, name in told if what == kind} for kind in ("begun", "flushed", "finished")
        }
        with self.open(location) as store:
            found = {one.id: one for one in store.find()}
            assert len(list(store.find())) == len(found)
            known = {name: store.get(name) for name in found}
        assert acknowledged["begun"] | acknowledged["flushed"] | acknowledged["finished"] <= found.keys()
        for name, episode in known.items():
            whole = make_episode(name)
            counts = Counter(step.index for step in episode.steps)
            assert set(counts.values()) <= {1}
            # In order and without a gap: what was queued first was written first.
            assert episode.steps == whole.steps[: len(episode.steps)]
            if name in acknowledged["flushed"] | acknowledged["finished"] or episode.status == "completed":
                assert episode.steps == whole.steps
                assert (episode.events, episode.interventions) == (whole.events, whole.interventions)
            if name in acknowledged["finished"]:
                assert (episode.status, episode.answer, episode.correct) == ("completed", "47", True)
            assert episode.status in ("completed", "abandoned")


def _lines(out: bytes) -> list[list[str]]:
    # The last line may be torn: the process was killed.
    return [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith(b"\n")]
