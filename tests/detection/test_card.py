"""The card tells what there is to tell, counts as it says, and puts every rival beside the detector."""

import copy
import json
import math
import random
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from nr_agent.detection.classifier import conformal_threshold, fewest_good, why_silent
from nr_agent.detection.collect import as_segment
from nr_agent.detection.detector import NeuronDetector
from nr_agent.detection.fit import FitSettings, fit, fit_traces
from nr_agent.detection.labels import StepLabels, label_trace
from nr_agent.detection.sampled import traces_key
from nr_agent.detection.sources import LIMITS, OWN_SOURCES
from nr_agent.detection.splits import fittable, split_of
from nr_agent.detection.trace_files import write_traces
from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.engine.protocol import Sampling
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.episode import Problem
from nr_agent.errors import DetectorError, DetectorMismatchError
from nr_agent.models.registry import find_model
from nr_agent.training.pretrain import build_model

# A whole fit, on traces made by hand and a model that knows nothing: every part of the card is there.


@pytest.fixture(scope="module")
def engine():
    tokenizer = AutoTokenizer.from_pretrained(find_model("nano"))
    torch.manual_seed(0)
    loaded = TorchEngine(build_model("tiny", tokenizer), tokenizer, name="tiny", fingerprint="tiny")
    yield loaded
    loaded.shutdown()


def made(engine, number, family, wrong=0.3, again=0.5):
    """Sums in a row, some wrong, one said twice, then the answer again and again."""
    rng = random.Random(f"{family} {number}")
    texts = []
    for _ in range(rng.randint(2, 4)):
        a, b = rng.randint(1, 99), rng.randint(1, 99)
        texts.append(f"{a}+{b}={a + b + (rng.random() < wrong)}")
    if rng.random() < again:
        texts.append(texts[0])
    before = len(texts)
    texts += ["So the answer is 7.", "Let me check.", "So the answer is still 7."][: rng.randint(1, 3)]
    ids = engine.codec.encode(f"{family} {number}?\n\n")
    steps = []
    for place, text in enumerate(texts):
        written = engine.codec.encode(text + "\n\n")
        draws = [-rng.random() for _ in written], [rng.random() for _ in written]
        trial = "7" if place >= before else None
        steps.append(TracedStep(len(ids), len(ids) + len(written), text + "\n\n", *draws, trial))
        ids = ids + written
    problem = Problem(text=f"{family} {number}", task=family, seed=number, reference="7")
    return Traced(problem, number, ids, steps, answer="7", closed=True)


@pytest.fixture(scope="module")
def fitted(engine, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted")
    traces = [made(engine, number, family) for number in range(70) for family in ("chain_sum", "products")]
    return out, fit_on(engine, traces, out), traces


def fit_on(engine, traces, out, log=lambda _: None):
    """Fit on traces that are there already."""
    settings, problems = FitSettings(), [traced.problem for traced in traces]
    sampling = Sampling(temperature=settings.temperature)
    key = traces_key(engine, problems, sampling=sampling, seed=settings.seed, max_tokens=settings.max_tokens)
    write_traces(out / "traces.jsonl", traces, key)
    return fit(engine, problems, out, settings, log=log)


def test_a_level_at_which_the_model_never_fails_is_left_out_and_the_card_says_so(engine, tmp_path):
    traces = [made(engine, number, "chain_sum", again=0) for number in range(90)]
    told = []
    detector = fit_on(engine, traces, tmp_path, told.append)
    card = json.loads((tmp_path / "card.json").read_text())
    assert "inter_step" not in card["levels"]
    assert "0 of the" in card["left_out"]["inter_step"]
    assert any("inter_step is left out" in line for line in told)
    assert "Left out" in (tmp_path / "card.md").read_text()
    loaded = NeuronDetector.load(tmp_path, engine)
    assert [level.settings.level for level in loaded.levels] == [level.settings.level for level in detector.levels]
    assert {group.level for group in loaded.manifest.mon.groups} == set(card["levels"])


def test_steps_of_traces_that_were_cut_teach_nothing_of_overthinking_and_their_share_is_told(engine, tmp_path):
    traces = [replace(made(engine, number, "products"), closed=number % 10 > 0) for number in range(90)]
    told = []
    fit_on(engine, traces, tmp_path, told.append)
    assert "10.0% of the traces were cut at 768 tokens, or where the context ended" in told
    levels = json.loads((tmp_path / "card.json").read_text())["levels"]
    tested = [traced for traced in traces if split_of(traced.problem.text, 0) == "test"]
    assert levels["intra_step"]["n"] == sum(len(traced.steps) for traced in tested)
    assert levels["instance"]["n"] == sum(len(traced.steps) for traced in tested if traced.closed)
    assert levels["instance"]["n"] < levels["intra_step"]["n"]


def test_a_handful_of_failing_or_of_sound_steps_is_not_enough_to_learn_from():
    def steps(failing, sound):
        return [StepLabels(True, None, None, None)] * failing + [StepLabels(False, None, None, None)] * sound

    splits = ["train", "held", "calibration", "test"]
    others = [steps(1, 1), steps(0, 1), steps(1, 1)]
    assert fittable([steps(5, 5), *others], splits)[0] == ["intra_step"]
    for failing, sound in ((4, 90), (90, 4)):
        said = f"{failing} of the 94 steps of the train problems fail, where 5 that fail and 5 that do not are needed"
        with pytest.raises(DetectorError, match=said):
            fittable([steps(failing, sound), *others], splits)
    with pytest.raises(DetectorError, match="0 of the 2 steps of the test problems fail"):
        fittable([steps(5, 5), *others[:2], steps(0, 2)], splits)


def test_a_model_that_never_fails_gives_no_detector(engine, tmp_path):
    traces = [made(engine, number, "chain_sum", wrong=0, again=0) for number in range(40)]
    traces = [replace(traced, steps=[step for step in traced.steps if step.trial is None]) for traced in traces]
    with pytest.raises(DetectorError, match="0 of the"):
        fit_on(engine, traces, tmp_path)
    assert not (tmp_path / "detector.json").exists()


def test_the_card_has_every_figure_and_every_control(fitted):
    out, _, traces = fitted
    card = json.loads((out / "card.json").read_text(), parse_constant=pytest.fail)
    assert set(card["levels"]) == {"intra_step", "inter_step", "instance"}
    tested = sum(len(t.steps) for t in traces if split_of(t.problem.text, 0) == "test")
    for row in card["levels"].values():
        assert row["n"] == tested
        assert {"auroc", "average_precision", "recall", "false_alarm_traces", "fpr_at_95_recall", "ece"} <= set(row)
        assert set(row["controls"]) == {
            "random_channels",
            "shuffled_labels",
            "position_and_length",
            "confidence",
            "text_only",
            "last_layer_probe",
            "step_statistics_probe",
        }
        assert all({"auroc", "recall"} <= set(control) for control in row["controls"].values())
        for control in row["controls"].values():
            low, high = control["ahead_interval"]
            assert low <= row["auroc"] - control["auroc"] <= high
        low, high = row["false_alarm_traces_interval"]
        assert low <= row["false_alarm_traces"] <= high
        assert set(row["transfer"]) == set(row["transfer"]["products"]) == {"chain_sum", "products"}
        assert sum(one["n"] for one in row["reliability"]) == tested
    assert set(card["injected"]) >= {"natural to injected", "injected to natural"}
    assert card["microseconds_per_token"] > 0


def test_where_the_text_gives_it_away_the_card_shows_that(fitted):
    """The answer is announced in these traces: overthinking can be read off the page, and the control says so."""
    controls = json.loads((fitted[0] / "card.json").read_text())["levels"]["instance"]["controls"]
    assert controls["text_only"]["auroc"] > 0.9
    assert controls["shuffled_labels"]["auroc"] < controls["text_only"]["auroc"] - 0.1


def test_the_card_is_written_for_people_too(fitted):
    page = (fitted[0] / "card.md").read_text()
    card = json.loads((fitted[0] / "card.json").read_text())
    for level, row in card["levels"].items():
        known = "-" if row["threshold"] is None else f"{row['threshold']:.3f}"
        assert f"| {level} | 0.05 | {known} |" in page
        assert (row["silent"] is None) == (row["threshold"] is not None)
        assert f"- {level}, by {OWN_SOURCES[level].replace('_', ' ')}: " in page
    for words in ("FPR at 95% recall", "text only", "put in by hand", "a wrong operand of a right equation", "F1"):
        assert words in page
    assert "nan" not in page
    ET.fromstring((fitted[0] / "reliability.svg").read_text())  # noqa: S314 - our own


def test_a_level_that_can_never_speak_says_so_and_how_many_good_traces_it_needs(engine, tmp_path):
    traces = [made(engine, number, "chain_sum", wrong=0.35, again=0) for number in range(50)]
    told = []
    labelled = [[replace(label, inter_step=None, instance=None) for label in label_trace(traced)] for traced in traces]
    detector = fit_traces(
        engine,
        traces,
        labelled,
        tmp_path,
        label_sources={"intra_step": "calculator"},
        source="solutions",
        log=told.append,
    )
    row = json.loads((tmp_path / "card.json").read_text())["levels"]["intra_step"]
    good = row["calibrated_on"]
    assert 0 < good < 19
    assert detector.levels[0].settings.threshold is None
    said = f"intra_step never speaks at alpha 0.05: {good} good traces to calibrate on, 19 needed"
    assert said in told
    assert row["silent"] in said
    page = (tmp_path / "card.md").read_text()
    assert f"- {said}." in page
    assert "| intra_step | 0.05 | - |" in page
    # Labels are called what they are, and nothing is said of levels that were not fitted.
    assert f"- intra_step, by calculator: {LIMITS['calculator']}." in page
    assert detector.manifest.training["labels"] == {"intra_step": "calculator"}
    for words in ("by equations", "by repetition", "by trial answers", "its own"):
        assert words not in page


def test_labels_without_a_source_are_refused_before_anything_is_ranked(engine, tmp_path):
    traces = [made(engine, number, "chain_sum") for number in range(60)]
    labelled, told = [label_trace(traced) for traced in traces], []
    with pytest.raises(DetectorError, match="labels of inter_step, instance") as failed:
        fit_traces(engine, traces, labelled, tmp_path, label_sources={"intra_step": "judge"}, log=told.append)
    assert "rollouts" in failed.value.hint
    assert "ranking channels" not in told


@pytest.mark.parametrize("alpha", [0.001, 0.02, 0.05, 0.15, 0.3, 0.5])
def test_a_threshold_needs_as_many_good_traces_as_are_said(alpha):
    fewest = fewest_good(alpha)
    assert conformal_threshold([0.5] * fewest, alpha) == 0.5
    assert conformal_threshold([0.5] * (fewest - 1), alpha) == math.inf
    assert f"{fewest - 1} good traces to calibrate on, {fewest} needed" in why_silent(alpha, fewest - 1)
    assert fewest_good(0) == math.inf
    assert "needed" not in why_silent(alpha, fewest)


def test_policies_may_ask_for_more_or_fewer_alarms_and_get_the_next_lower_share(fitted):
    _, detector, _ = fitted
    own = {level.settings.level: level.settings for level in detector.levels}
    points = dict(own["intra_step"].points)
    assert list(points) == sorted(points)
    assert list(points.values()) == sorted(points.values(), reverse=True)
    share = max(points)
    bolder = {level.settings.level: level.settings for level in detector.at({"intra_step": share + 0.05}).levels}
    assert bolder["intra_step"].alpha == share
    assert bolder["intra_step"].threshold == points[share]
    assert bolder["instance"] == own["instance"]
    several = own["intra_step"].model_copy(update={"points": ((0.1, 0.9), (0.2, 0.7), (0.4, 0.5))})
    asked = [several.at(share) for share in (0.1, 0.3, 0.4, 0.9)]
    assert [(one.alpha, one.threshold) for one in asked] == [(0.1, 0.9), (0.2, 0.7), (0.4, 0.5), (0.4, 0.5)]
    with pytest.raises(DetectorError, match=r"alarms in 0\.001") as refused:
        detector.at({"intra_step": 0.001})
    assert "shares from 0.01 on" in refused.value.hint


def test_a_level_that_was_fitted_on_too_little_for_the_share_asked_stays_silent(fitted, caplog):
    _, detector, _ = fitted
    manifest = detector.manifest
    few = [
        one.model_copy(update={"points": ((0.5, 0.9),), "threshold": None}) if one.level == "intra_step" else one
        for one in manifest.levels
    ]
    young = copy.copy(detector)
    young.manifest = manifest.model_copy(update={"levels": few})
    asked = {level.settings.level: level.settings for level in young.at({"intra_step": 0.2}).levels}
    assert asked["intra_step"].threshold is None
    assert "stays silent about intra_step" in caplog.text
    assert "fit it on more problems" in caplog.text
    caplog.clear()
    assert young.at({"intra_step": 0.6}).manifest.levels[0].threshold == 0.9
    assert not caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": "other"}, r"fitted on tiny \(fingerprint other\)"),
        ({"tokenizer_hash": "0123456789abcdef01"}, r"another vocabulary \(0123456789abcdef\)"),
        ({"window": 48}, "spectra over 48 tokens"),
    ],
)
def test_a_detector_of_another_model_tokenizer_or_window_is_refused(fitted, engine, tmp_path, change, said):
    out = fitted[0]
    shutil.copy(out / "detector.safetensors", tmp_path)
    manifest = json.loads((out / "detector.json").read_text())
    (tmp_path / "detector.json").write_text(json.dumps(manifest))
    assert NeuronDetector.load(tmp_path, engine).id == manifest["id"]
    (tmp_path / "detector.json").write_text(json.dumps(manifest | change))
    with pytest.raises(DetectorMismatchError, match=said) as failed:
        NeuronDetector.load(tmp_path, engine)
    assert "nr-agent fit --model tiny" in failed.value.hint


def test_readings_of_another_detectors_channels_are_refused(fitted):
    _, detector, traces = fitted
    step, few = traces[0].steps[0], torch.zeros(len(traces[0].ids), 3)
    with pytest.raises(DetectorMismatchError, match="3 channels were read"):
        detector.observe("").look(as_segment(step, few, traces[0].ids), step=0, text="")
