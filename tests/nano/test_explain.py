"""An explanation says what the watch saw when the step was thought, from nothing but the stored tokens."""

import json

import pytest
import torch
from typer.testing import CliRunner

from nr_agent import create_reasoner
from nr_agent.cli.main import app
from nr_agent.detection.explain import explain_step, line_before
from nr_agent.episode import Episode, Problem, Step
from nr_agent.errors import DetectorMismatchError, NotFoundError
from nr_agent.models.registry import load_engine
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.sites import find_sites
from nr_agent.neurons.writes import head_pushes
from nr_agent.store import EpisodeStore
from nr_agent.tasks import FAMILIES, draw


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("explained") / "episodes.db"


@pytest.fixture(scope="module")
def thought(engine, detector, place):
    """Twelve problems thought under control, as the store has them."""
    with EpisodeStore(place) as store:
        reasoner = create_reasoner(engine, detector=detector, store=store)
        ids = []
        for number in range(12):
            problem = draw(list(FAMILIES)[number % len(FAMILIES)], 1_250_000 + number)
            config = {"configurable": {"nr_agent": {"seed": number}}}
            done = reasoner.invoke({"messages": [{"role": "user", "content": problem.text}]}, config)
            ids.append(done["reasoning"]["episode_id"])
        return [store.get(one) for one in ids]


def test_scores_and_channels_are_those_of_the_time_of_thinking(thought, engine, detector):
    compared = 0
    for episode in thought:
        before = next((one.step for one in episode.interventions if one.kind == "branch"), 10**9)
        for step in [one for one in episode.steps if one.readings and one.kind == "think" and one.index <= before]:
            told = explain_step(engine, detector, episode, step.index)
            stored = {reading.level: reading.score for reading in step.readings}
            assert {level.level: level.score for level in told.levels} == pytest.approx(stored, abs=2e-3)
            compared += 1
    assert compared > 40


def test_an_event_and_its_explanation_name_the_same_channels_and_what_they_write(thought, engine, detector):
    episode, event = next((one, event) for one in thought for event in one.events if event.level == "instance")
    told = explain_step(engine, detector, episode, event.step)
    assert event.id in [one.id for one in told.events]
    level = next(one for one in told.levels if one.level == event.level)
    assert level.pattern == event.evidence.pattern
    assert [one.channel for one in level.channels] == [one.channel for one in event.evidence.channels]
    for shown, raised in zip(level.channels, event.evidence.channels, strict=True):
        assert shown.peak.z == pytest.approx(raised.z, abs=0.02)
        assert shown.peak.position == raised.position - 1
        if shown.channel.startswith("FFN"):
            assert shown.writes == raised.writes
        assert shown.writes


def test_tokens_that_moved_a_channel_are_those_of_its_largest_readings(thought, engine, detector):
    episode = thought[0]
    step = [one for one in episode.kept if one.kind == "think"][-1]
    ids = [token for one in line_before(episode, step) for token in one.ids]
    for level in explain_step(engine, detector, episode, step.index).levels:
        for channel in level.channels:
            sizes = [abs(moment.z) for moment in channel.moved_by]
            assert sizes == sorted(sizes, reverse=True)
            assert sizes[0] >= abs(channel.peak.z) - 0.01
            for moment in channel.moved_by:
                assert moment.token == engine.codec.decode([ids[moment.position]])


def test_a_head_pushes_what_its_slice_adds_to_the_logits(engine):
    ids, channel = engine.codec.encode("12+35=47\n\n"), Channel("head", 1, 2)
    got = head_pushes(engine.model, [(channel, 3)], ids)[0]
    site = next(one for one in find_sites(engine.model) if (one.kind, one.layer) == ("head", 1))
    seen = {}
    handle = site.module.register_forward_pre_hook(lambda _, given: seen.update(x=given[0][0, 3]))
    with torch.no_grad():
        engine.model(torch.tensor([ids]))
        handle.remove()
        alone = torch.zeros_like(seen["x"])
        alone[2 * site.width : 3 * site.width] = seen["x"][2 * site.width : 3 * site.width]
        expected = engine.model.lm_head(site.module(alone) * engine.model.model.norm.weight)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def step(index, start, length, *, branch="main", discarded=False, kind="think"):
    provenance = [("prompt" if kind == "prompt" else "model", length)]
    ids = [index] * length
    return Step(index=index, kind=kind, branch=branch, start=start, ids=ids, provenance=provenance, discarded=discarded)


def lines(*steps):
    episode = Episode(id="e", problem=Problem(text="?"), steps=list(steps))
    return lambda index: [one.index for one in line_before(episode, next(s for s in steps if s.index == index))]


def test_a_line_leaves_out_what_was_taken_back_and_the_forks_beside_it():
    line = lines(
        step(0, 0, 4, kind="prompt"),
        step(1, 4, 3),
        step(2, 7, 3, discarded=True),  # taken back and thought again, as long as before
        step(3, 10, 2, discarded=True),
        step(4, 7, 3),
        step(5, 10, 2, branch="fork 1"),
        step(7, 10, 2, branch="fork 2", discarded=True),
        step(9, 12, 1, branch="fork 1"),
    )
    assert line(3) == [0, 1, 2, 3]
    assert line(4) == [0, 1, 4]
    assert line(7) == [0, 1, 4, 7]
    assert line(9) == [0, 1, 4, 5, 9]


def test_a_line_with_a_hole_is_an_error_that_says_where(engine):
    with pytest.raises(NotFoundError, match="before position 7"):
        lines(step(0, 0, 4, kind="prompt"), step(2, 7, 3))(2)


def test_unknown_steps_the_prompt_and_other_models_are_refused(thought, engine, detector):
    with pytest.raises(NotFoundError, match="has no step 999"):
        explain_step(engine, detector, thought[0], 999)
    with pytest.raises(NotFoundError, match="it is the prompt"):
        explain_step(engine, detector, thought[0], 0)
    other = thought[0].model_copy(update={"fingerprint": "another"})
    with pytest.raises(DetectorMismatchError, match="thought by nano"):
        explain_step(engine, detector, other, 1)


def command(*arguments):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_the_command_shows_a_table_or_json(thought, place):
    index = next(one.index for one in thought[0].kept if one.kind == "think")
    shown = command(thought[0].id, "--step", index, "--store", place)
    assert shown.exit_code == 0, shown.output
    for word in ("intra_step: score", "inter_step", "instance", "FFN", "writes toward", "moved most by", "features:"):
        assert word in shown.output
    told = json.loads(command(thought[0].id, "--step", index, "--store", place, "--json").stdout)
    assert told["episode"] == thought[0].id
    assert [level["level"] for level in told["levels"]] == ["intra_step", "inter_step", "instance"]


def test_the_command_names_what_it_does_not_find(thought, place, tmp_path):
    for arguments, kind in (
        (("no-such-episode", "--step", 1), "NotFoundError"),
        ((thought[0].id, "--step", 999), "NotFoundError"),
        ((thought[0].id, "--step", 1, "--detector", tmp_path), "DetectorError"),
        ((thought[0].id, "--step", 1, "--model", tmp_path), "ModelError"),
    ):
        failed = command(*arguments, "--store", place)
        assert failed.exit_code == 1
        assert type(failed.exception).__name__ == kind
        assert failed.exception.hint


def test_a_model_that_did_not_think_the_episode_cannot_explain_it(thought, detector):
    other = load_engine("nano")
    other.fingerprint = "retrained"
    try:
        with pytest.raises(DetectorMismatchError, match="another model"):
            explain_step(other, detector, thought[0], 1)
    finally:
        other.shutdown()
