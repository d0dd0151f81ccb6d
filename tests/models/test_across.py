"""Traces sampled by several processes are those of one."""

from nr_agent.detection.traces import sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.models.across import sample_across, sampler
from nr_agent.models.registry import load_engine
from nr_agent.tasks import FAMILIES, draw


def test_several_processes_sample_what_one_does_and_tell_how_far_they_are():
    problems = [draw(family, seed) for seed in range(6) for family in FAMILIES]
    told: list[int] = []
    sampling = Sampling(temperature=0.6)
    across = sample_across("nano", problems, sampling=sampling, seed=5, max_tokens=60, progress=told.append)
    engine = load_engine("nano")
    try:
        alone = sample_traces(engine, problems, sampling=sampling, seed=5, max_tokens=60)
        chosen = sampler(engine, "nano")
        few, many = (chosen(some, sampling=sampling, seed=5, max_tokens=60) for some in (problems[:3], problems))
    finally:
        engine.shutdown()
    assert [traced.ids for traced in few] == [traced.ids for traced in alone[:3]]
    assert [traced.ids for traced in many] == [traced.ids for traced in across]
    assert [traced.ids for traced in across] == [traced.ids for traced in alone]
    assert [[step.trial for step in traced.steps] for traced in across] == [
        [step.trial for step in traced.steps] for traced in alone
    ]
    assert told == sorted(told) and told[-1] == len(problems)
