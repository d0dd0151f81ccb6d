"""Traces of a model that ends its turn while it thinks, as those do that were never taught to close a thinking."""

from nr_agent.answers import extract_answer
from nr_agent.detection.traces import sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Problem
from nr_agent.tokens import END_THINK


def test_the_last_words_of_a_turn_are_a_step_and_hold_the_answer(qwen):
    problems = [Problem(text=f"How many are {number} and {number}?") for number in range(24)]
    sampling = Sampling(temperature=1.0, top_p=1.0)
    traces = sample_traces(qwen, problems, sampling=sampling, seed=3, max_tokens=1500)
    close = qwen.codec.control(END_THINK)
    ended = [one for one in traces if one.closed and one.ids[-1] in qwen.codec.end_ids and not one.answer_tokens]
    assert len(ended) >= 3
    for traced in ended:
        assert close not in traced.ids[traced.steps[0].start :]
        last = traced.steps[-1]
        assert last.end == len(traced.ids) == last.start + len(last.logprobs)
        assert last.text == qwen.codec.decode(traced.ids[last.start : -1])
        assert traced.answer == last.trial == extract_answer("".join(step.text for step in traced.steps))
    # One that closes its thinking is asked for its answer, as ever; what closes it is no step, but it may end one.
    closed = [one for one in traces if one.closed and one.answer_tokens]
    assert len(closed) >= 3
    for traced in closed:
        spans = [traced.ids[step.start : step.end] for step in traced.steps]
        assert all(close not in span for span in spans[:-1]) and close not in spans[-1][:-1] and spans[-1] != [close]
        assert not traced.steps[-1].text.endswith("</think>")
