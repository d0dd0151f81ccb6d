"""The figures of a card, each by itself."""

import math
import random
import xml.etree.ElementTree as ET

import pytest
import torch

from nr_agent.detection.card import Part
from nr_agent.detection.intervals import rate_interval, wilson
from nr_agent.detection.labels import slip
from nr_agent.detection.metrics import auroc, expected_calibration_error, fpr_at_recall, reliability
from nr_agent.detection.probes import bag_of_tokens, train_linear
from nr_agent.detection.quality import at_threshold, false_alarms, first_failure, lead, quiet_maxima
from nr_agent.detection.reliability import reliability_svg
from nr_agent.detection.transfer import spoil
from nr_agent.detection.views import Tokens


def test_the_false_positive_rate_is_at_the_threshold_that_finds_enough():
    scores = torch.tensor([0.9, 0.8, 0.7, 0.2, 0.85, 0.3, 0.1, 0.05])
    labels = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])
    assert fpr_at_recall(scores, labels, 0.75) == 0.25
    assert fpr_at_recall(scores, labels, 1.0) == 0.5
    assert math.isnan(fpr_at_recall(scores, torch.zeros(8)))


def test_honest_scores_have_no_calibration_error_and_boasting_ones_have():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20_000, generator=generator)
    labels = (torch.rand(20_000, generator=generator) < scores).float()
    assert expected_calibration_error(reliability(scores, labels)) < 0.02
    assert expected_calibration_error(reliability(scores**0.2, labels)) > 0.2
    assert sum(one.n for one in reliability(scores, labels)) == 20_000


def test_intervals_hold_what_they_are_of_and_narrow_with_more():
    assert wilson(0, 50)[0] == 0 < wilson(0, 50)[1] < 0.08
    assert rate_interval([0] * 30, [100] * 30) == (0.0, 0.001)
    few, many = rate_interval([1, 0, 2, 0] * 5, [100] * 20), rate_interval([1, 0, 2, 0] * 50, [100] * 200)
    assert few[0] < many[0] < 0.0075 < many[1] < few[1]


def part(*traces):
    """A split from `(label, tokens)` steps a trace."""
    rows = [(t, i, *step) for t, steps in enumerate(traces) for i, step in enumerate(steps)]
    return Part(
        torch.zeros(len(rows), 1),
        Tokens.of([torch.zeros(row[3], 1) for row in rows]),
        torch.tensor([float(row[2]) for row in rows]),
        torch.tensor([row[0] for row in rows]),
        torch.tensor([[float(row[1]), float(row[3]), 0.0] for row in rows]),
    )


PART = part([(0, 10), (1, 20), (0, 30), (0, 40)], [(0, 50), (0, 50)])


SCORES = torch.tensor([0.1, 0.4, 0.9, 0.2, 0.8, 0.3])


def test_a_late_alarm_is_a_false_one_at_its_step_and_late_for_its_trace():
    assert false_alarms(SCORES, PART, 0.5) | {"per_trace_interval": 0, "per_1000_tokens_interval": 0} == {
        "alarms": 2,
        "tokens": 200,
        "per_1000_tokens": 10.0,
        "per_1000_tokens_interval": 0,
        "per_trace": 1.0,
        "per_trace_interval": 0,
    }
    assert lead(SCORES, PART, 0.5) == {
        "failing_traces": 1,
        "found": 1,
        "delay_steps": 1,
        "delay_tokens": 30,
        "ahead_steps": 1,
        "ahead_tokens": 40,
    }
    assert lead(SCORES, PART, 0.95)["found"] == 0
    assert lead(SCORES, PART, 0.95)["delay_steps"] is None


def test_first_error_counts_exact_places_and_silent_sound_traces():
    assert first_failure(SCORES, PART, 0.5) == {"error": 0.0, "correct": 0.0, "f1": 0.0}
    assert first_failure(torch.tensor([0.1, 0.9, 0.9, 0.2, 0.1, 0.3]), PART, 0.5)["f1"] == 1.0


def test_only_traces_without_the_failure_calibrate_but_for_overthinking():
    assert quiet_maxima("intra_step", SCORES, PART) == pytest.approx([0.8])
    assert quiet_maxima("instance", SCORES, PART) == pytest.approx([0.9, 0.8])
    row = at_threshold("intra_step", SCORES, PART, 0.5)
    assert (row["recall"], row["false_alarm_traces"], row["good_traces"]) == (0.0, 1.0, 1)
    assert row["false_alarm_traces_interval"][0] < 1


def test_a_linear_probe_finds_a_direction_and_nothing_in_noise():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(900, 40, generator=generator)
    labels = (features[:, :3].sum(1) + 0.3 * torch.randn(900, generator=generator) > 0).float()
    probe = train_linear(features[:500], labels[:500], (features[500:700], labels[500:700]))
    assert auroc(probe.score(features[700:]), labels[700:]) > 0.95
    noise = train_linear(features[:500], labels[:500].flip(0), (features[500:700], labels[500:700]))
    assert auroc(noise.score(features[700:]), labels[700:]) < 0.7


def test_a_bag_of_tokens_knows_counts_and_neighbours_but_not_the_place():
    assert torch.equal(bag_of_tokens([5, 6, 7]), bag_of_tokens([5, 6, 7]))
    assert not torch.equal(bag_of_tokens([5, 6, 7]), bag_of_tokens([7, 6, 5]))
    assert bag_of_tokens([9]).count_nonzero() == 1


@pytest.mark.parametrize("text", ["12+35=47\n\n", "So 6-9=-3 and -3+3=0."])
def test_a_spoiled_step_holds_a_slip_and_differs_in_one_number(text):
    for seed in range(20):
        wrong = spoil(text, random.Random(seed))
        assert slip(wrong) == "calculation"
        assert slip(text) is None
    assert spoil("So the answer is 5.", random.Random(0)) is None


def test_the_plot_is_an_svg_with_a_dot_for_each_bin():
    bins = [{"score": 0.1, "share": 0.2, "n": 40}, {"score": 0.9, "share": 0.7, "n": 4}]
    drawn = ET.fromstring(reliability_svg({"intra_step": bins, "<other>": []}))  # noqa: S314 - our own
    circles = [node for node in drawn.iter() if node.tag.endswith("circle")]
    assert len(circles) == 2
    assert float(circles[0].get("cy")) > float(circles[1].get("cy"))
    assert any(node.text == "<other>" for node in drawn.iter())
