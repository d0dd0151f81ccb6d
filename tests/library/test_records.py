import itertools
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nr_agent.episode import Step, measure_usage, runs
from nr_agent.events import FailureEvent, InstanceFailure, IntraStepFailure
from nr_agent.ids import new_id

PROVENANCES = st.lists(st.sampled_from(["prompt", "model", "inserted", "template"]), max_size=40)


@given(PROVENANCES)
def test_run_length_coding_loses_nothing(provenances):
    coded = runs(provenances)
    assert [kind for kind, length in coded for _ in range(length)] == provenances
    assert all(a[0] != b[0] for a, b in itertools.pairwise(coded))


def step(index, provenance, kind="think", discarded=False):
    n = sum(length for _, length in provenance)
    return Step(index=index, kind=kind, start=0, ids=[1] * n, provenance=provenance, discarded=discarded)


def test_every_token_is_counted_once():
    usage = measure_usage(
        [
            step(0, [("prompt", 5), ("template", 3)], kind="prompt"),
            step(1, [("model", 7)]),
            step(2, [("inserted", 1), ("model", 4)]),
            step(3, [("model", 6)], discarded=True),
            step(4, [("inserted", 2), ("model", 3)], kind="answer"),
        ]
    )
    assert (usage.prompt, usage.thinking, usage.inserted, usage.discarded, usage.answer) == (8, 11, 3, 6, 3)
    assert usage.output == 23
    assert usage.total == 31


def test_an_event_survives_a_trip_through_plain_json():
    event = IntraStepFailure(id="x", kind="derivation", step=3, position=40, score=0.9, threshold=0.7, detector="d")
    again = FailureEvent.from_state(json.loads(json.dumps(event.to_state())))
    assert again == event
    assert isinstance(again, IntraStepFailure)


def test_a_kind_of_another_level_is_refused():
    with pytest.raises(ValidationError):
        InstanceFailure(id="x", kind="calculation", step=0, position=0, score=0.5, threshold=0.5, detector="d")


def test_ids_are_unique_and_increase_over_threads():
    made: list[str] = []

    def make() -> None:
        made.extend(new_id() for _ in range(500))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = [new_id() for _ in range(200)]
    assert len(set(made)) == 2000
    assert own == sorted(own)
