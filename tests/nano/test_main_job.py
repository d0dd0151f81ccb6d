"""Problems go in, watched and controlled episodes come out, and the store holds all of it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from nr_agent import create_reasoner
from nr_agent.engine.protocol import Sampling, StopSpec
from nr_agent.errors import DetectorMismatchError
from nr_agent.models.registry import load_engine
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.store import EpisodeStore
from nr_agent.tasks import FAMILIES, draw

N = 50


@pytest.fixture(scope="module")
def solved(engine, detector, tmp_path_factory):
    """Fifty problems through the controlled reasoner, ten at a time, with what was shown on the stream."""
    store = EpisodeStore(tmp_path_factory.mktemp("store") / "episodes.db")
    reasoner = create_reasoner(engine, detector=detector, store=store)
    shown, reports = {}, []

    def solve(number):
        problem = draw(list(FAMILIES)[number % len(FAMILIES)], 1_200_000 + number)
        config = {"configurable": {"nr_agent": {"seed": number, "reference": problem.reference, "task": problem.task, "problem_seed": problem.seed}}}  # fmt: skip  # noqa: E501
        for part in reasoner.stream(
            {"messages": [{"role": "user", "content": problem.text}]}, config, stream_mode="custom", version="v2"
        ):
            event = part["data"]
            if event["type"] == "nr.step":
                texts = shown.setdefault(event["episode_id"], {})
                texts[event["index"]] = "".join(piece["text"] for piece in event["parts"])
            elif event["type"] == "nr.stop":
                reports.append(event["report"])

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(solve, range(N)))
    yield store, shown, reports
    store.close()


def test_fifty_problems_run_without_an_exception_and_are_stored_whole(solved):
    store, _, reports = solved
    summaries = list(store.find())
    assert len(reports) == len(summaries) == N
    assert {summary.status for summary in summaries} == {"completed"}


def test_stored_ids_decode_to_what_was_shown(solved, engine):
    store, shown, reports = solved
    for report in reports:
        episode = store.get(report["episode_id"])
        texts = {step.index: engine.codec.decode(step.ids) for step in episode.steps if step.kind != "prompt"}
        assert texts == shown[episode.id]
        assert all(step.text == engine.codec.decode(step.ids) for step in episode.steps)


def test_the_final_sequence_has_no_gap(solved):
    store, _, reports = solved
    for report in reports:
        position = 0
        for step in store.get(report["episode_id"]).kept:
            assert step.start == position
            assert sum(length for _, length in step.provenance) == len(step.ids)
            position += len(step.ids)


def test_something_was_seen_and_something_was_done(solved, detector):
    store, _, reports = solved
    episodes = [store.get(report["episode_id"]) for report in reports]
    events = [event for episode in episodes for event in episode.events]
    interventions = [item for episode in episodes for item in episode.interventions]
    assert events
    assert interventions
    addresses = {str(channel) for channel in detector.channels}
    for event in events:
        assert event.score > event.threshold
        assert event.evidence.channels
        assert {item.channel for item in event.evidence.channels} <= addresses
    ids = {event.id for event in events}
    assert all(item.event_id in ids for item in interventions)


def test_a_correction_token_is_stored_as_inserted_and_never_as_the_models(solved, engine):
    store, _, reports = solved
    control = {engine.codec.control("<|recheck|>"), engine.codec.control("<|branch|>")}
    seen = 0
    for report in reports:
        for step in store.get(report["episode_id"]).steps:
            flat = [kind for kind, length in step.provenance for _ in range(length)]
            kinds = {kind for token, kind in zip(step.ids, flat, strict=True) if token in control}
            seen += bool(kinds)
            assert kinds <= {"inserted"}
    assert seen


def test_scores_seen_while_thinking_are_the_scores_of_the_finished_text(engine, detector):
    """The detector's path online equals a plain forward pass over the tokens afterwards."""
    import torch

    engine.attach(detector.plan)
    problem = draw("gcd", 1_210_000)
    ref = engine.open(engine.codec.render([{"role": "user", "content": problem.text}]), seed=3)
    stop = StopSpec(engine.codec.end_ids | {engine.codec.control("</think>")}, ("\n\n",), 128)
    observer, online, segments = detector.observe("x"), [], []
    for _ in range(6):
        segment = engine.extend(ref, stop=stop, sampling=Sampling())
        ref = segment.ref
        segments.append(segment)
        online.append(observer.look(segment, step=1, text="").scores)
    ids = engine.tokens(ref)
    tap = ChannelPlan(detector.channels).install(engine.model)
    with torch.inference_mode():
        engine.model(input_ids=torch.tensor([ids]), use_cache=False)
    values = tap.take(len(ids)).clone()
    tap.remove()
    again = detector.observe("x")
    for segment, scores in zip(segments, online, strict=True):
        segment.readings.values = values[segment.readings.positions]
        offline = again.look(segment, step=1, text="").scores
        assert offline == pytest.approx(scores, abs=1e-3)


def test_a_detector_can_be_loaded_while_another_one_watches(engine, detector):
    from nr_agent.models.registry import load_detector

    engine.attach(detector.plan)
    ref = engine.open(engine.codec.render([{"role": "user", "content": "Solve for x: 3*x = 9"}]))
    ref = engine.extend(ref, stop=StopSpec(max_new=5)).ref
    assert load_detector("nano", engine).id == detector.id
    assert len(engine.extend(ref, stop=StopSpec(max_new=5)).readings) == 5


def test_a_detector_of_another_model_is_refused(detector, tmp_path):
    from transformers import AutoTokenizer

    from nr_agent.models.registry import find_model
    from nr_agent.training.pretrain import build_model, save_model

    tokenizer = AutoTokenizer.from_pretrained(find_model("nano"))
    save_model(build_model("tiny", tokenizer), tokenizer, tmp_path / "other")
    other = load_engine(str(tmp_path / "other"))
    with pytest.raises(DetectorMismatchError, match="nr-agent fit"):
        create_reasoner(other, detector=detector)
    other.shutdown()
