import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_agent.detection.classifier import conformal_threshold, train_classifier
from nr_agent.detection.features import FEATURE_FAMILIES, StepSignal, feature_names, step_features
from nr_agent.detection.margins import TraceDraws, middle
from nr_agent.detection.metrics import auroc, average_precision
from nr_agent.detection.spectrum import NAMES, WINDOW, spectral_entropy, spectral_features


def test_a_pure_tone_has_one_frequency_and_noise_has_many():
    t = torch.arange(4 * WINDOW).float()
    tone = spectral_features(torch.sin(2 * math.pi * t / 8))
    noise = spectral_features(torch.randn(4 * WINDOW, generator=torch.Generator().manual_seed(0)))
    names = dict(zip(NAMES, range(len(NAMES)), strict=True))
    assert tone[:, names["dominant_ratio"]].min() > 0.95
    assert noise[:, names["dominant_ratio"]].max() < 0.7
    assert tone[:, names["entropy"]].max() < noise[:, names["entropy"]].min()


def test_a_flat_signal_has_no_power_and_breaks_nothing():
    features = spectral_features(torch.full((WINDOW + 3,), 5.0))
    assert torch.isfinite(features).all()
    assert features[:, NAMES.index("entropy")].abs().max() < 1e-5


def test_spectral_entropy_of_white_is_the_logarithm_of_the_bins():
    assert spectral_entropy(torch.ones(1, 16)).item() == pytest.approx(4.0)


@given(st.integers(0, 40), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_features_are_as_many_as_their_names_and_finite(tokens, channels):
    step = StepSignal(
        values=torch.randn(tokens, channels),
        push=torch.randn(tokens, channels),
        logprobs=torch.full((tokens,), math.nan),
        entropies=torch.full((tokens,), math.nan),
        history=torch.zeros(WINDOW - 1),
        signs=torch.ones(channels),
    )
    features = step_features(step, FEATURE_FAMILIES)
    assert len(features) == len(feature_names(FEATURE_FAMILIES, ["c"] * channels))
    assert torch.isfinite(features).all()


def test_forced_tokens_do_not_count_as_confidence():
    logprobs = torch.tensor([-0.1, math.nan, -0.2])
    step = StepSignal(torch.zeros(3, 1), torch.zeros(3, 1), logprobs, torch.zeros(3), torch.zeros(31), torch.ones(1))
    lowest, mean, last = step_features(step, ["confidence"])[:3].tolist()
    assert (lowest, mean, last) == pytest.approx((-0.2, -0.15, -0.2))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_in_order(pairs):
    scores = torch.tensor([float(score) for score, _ in pairs])
    labels = torch.tensor([float(label) for _, label in pairs])
    good = [s for s, label in pairs if label]
    bad = [s for s, label in pairs if not label]
    if not good or not bad:
        assert math.isnan(auroc(scores, labels))
        return
    expected = sum((g > b) + 0.5 * (g == b) for g in good for b in bad) / (len(good) * len(bad))
    assert auroc(scores, labels) == pytest.approx(expected)


def test_intervals_over_traces_are_those_of_a_bootstrap_and_know_that_steps_belong_together():
    generator = torch.Generator().manual_seed(3)
    labels = (torch.rand(120, generator=generator) < 0.3).float()
    traces = torch.arange(120) // 4
    scores = (labels + 1.2 * torch.randn(120, generator=generator)).mul(4).round()  # with ties
    drawn = TraceDraws(labels, traces, draws=40)
    whole = torch.randint(30, (40, 30), generator=torch.Generator().manual_seed(0))
    for each, found in zip(whole, drawn.auroc(scores), strict=True):
        steps = torch.cat([torch.arange(4) + 4 * trace for trace in each])
        assert float(found) == pytest.approx(auroc(scores[steps], labels[steps]))
    alone, doubled = TraceDraws(labels, torch.arange(120)), TraceDraws(labels.repeat(4), torch.arange(120).repeat(4))
    assert middle(doubled.auroc(scores.repeat(4))) == middle(alone.auroc(scores))
    assert middle(drawn.auroc(scores) - drawn.auroc(scores)) == [0.0, 0.0]
    assert all(map(math.isnan, middle(TraceDraws(torch.ones(5), torch.arange(5)).auroc(torch.rand(5)))))


def test_average_precision_of_a_perfect_order_is_one():
    assert average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 1.0, 0.0])) == 1
    assert average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0.0, 0.0, 1.0])) == pytest.approx(1 / 3)


def test_the_conformal_rule_keeps_its_promise():
    """Over many draws, a new good trace is disturbed at most as often as promised (here 10%, up to luck)."""
    generator = torch.Generator().manual_seed(0)
    disturbed = 0
    for _ in range(2000):
        draws = torch.rand(40, generator=generator).tolist()
        disturbed += draws[-1] > conformal_threshold(draws[:-1], 0.1)
    assert 0.05 < disturbed / 2000 < 0.12


def test_too_few_traces_promise_nothing():
    assert conformal_threshold([0.5] * 5, 0.05) == math.inf


def test_a_classifier_learns_what_can_be_learned_and_not_what_cannot():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1200, 6, generator=generator)
    labels = (features[:, 0] * features[:, 1] > 0.3).float()
    trained = train_classifier(features[:800], labels[:800], (features[800:1000], labels[800:1000]))
    assert auroc(trained.score(features[1000:]), labels[1000:]) > 0.85
    shuffled = labels[:800][torch.randperm(800, generator=generator)]
    fooled = train_classifier(features[:800], shuffled, (features[800:1000], labels[800:1000]))
    assert auroc(fooled.score(features[1000:]), labels[1000:]) < 0.65
