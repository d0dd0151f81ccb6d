"""Steps as their tokens: cut, joined and scored as if each were alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_agent.detection.classifier import StepClassifier, train_classifier
from nr_agent.detection.features import FEATURE_FAMILIES, StepSignal
from nr_agent.detection.metrics import auroc
from nr_agent.detection.spectrum import WINDOW
from nr_agent.detection.views import Tokens, View, join


def signal(tokens, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return StepSignal(
        values=torch.randn(tokens, channels, generator=generator),
        push=torch.randn(tokens, channels, generator=generator),
        logprobs=-torch.rand(tokens, generator=generator),
        entropies=torch.rand(tokens, generator=generator),
        history=torch.zeros(WINDOW - 1),
        signs=torch.ones(channels),
    )


lengths = st.lists(st.integers(0, 7), min_size=1, max_size=12)


@given(lengths, st.data())
@settings(deadline=None)
def test_steps_can_be_taken_out_in_any_order_and_joined_again(sizes, data):
    steps = [torch.randn(size, 2) for size in sizes]
    whole = Tokens.of(steps)
    index = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=10))
    chosen = whole[torch.tensor(index, dtype=torch.long)]
    assert chosen.lengths.tolist() == [sizes[i] for i in index]
    expected = [steps[i] for i in index]
    assert torch.equal(chosen.values, torch.cat(expected) if expected else torch.zeros(0, 2))
    both = join([whole, chosen])
    assert len(both) == len(sizes) + len(index)
    assert torch.equal(both.values, torch.cat([whole.values, chosen.values]))


@given(lengths)
@settings(deadline=None)
@torch.no_grad()
def test_the_odds_of_tokens_add_up_to_those_of_their_step_alone_or_among_others(sizes):
    torch.manual_seed(0)
    classifier = StepClassifier(2)
    steps = [torch.randn(size, 2) for size in sizes]
    together = classifier.score(Tokens.of(steps))
    for step, score in zip(steps, together.tolist(), strict=True):
        alone = float(classifier.score(Tokens.of([step]))[0])
        assert score == pytest.approx(alone, abs=1e-6)
        odds = float(classifier.each(step).exp().sum())
        expected = odds / (1 + odds)
        assert score == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("unit", ["step", "token"])
@pytest.mark.parametrize("families", [(family,) for family in FEATURE_FAMILIES] + [FEATURE_FAMILIES])
def test_a_view_has_as_many_names_as_features_and_all_are_numbers(unit, families):
    view = View(families, unit)
    shortest, long = signal(0), signal(40)
    long.logprobs[3] = math.nan
    long.entropies[3] = math.nan
    seen = view.see([shortest, long])
    values = seen.values if isinstance(seen, Tokens) else seen
    assert values.shape[1] == len(view.names(["a", "b", "c"]))
    assert torch.isfinite(values).all()
    assert len(seen) == 2


def test_one_token_among_many_is_found_where_statistics_drown_it():
    """A step fails if two signals are high at the same token; over the step, either is high somewhere anyway."""
    generator = torch.Generator().manual_seed(3)
    steps, labels = [], []
    for _ in range(1500):
        values = (torch.rand(24, 2, generator=generator) < 0.12).float()
        labels.append(float((values.sum(1) == 2).any()))
        steps.append(values + 0.1 * torch.randn(24, 2, generator=generator))
    truth = torch.tensor(labels)
    split = {"train": slice(0, 1000), "held": slice(1000, 1200), "test": slice(1200, 1500)}
    quality = {}
    for unit in ("token", "step"):
        seen = {
            name: Tokens.of(steps[part])
            if unit == "token"
            else torch.stack([torch.cat([s.mean(0), s.max(0).values]) for s in steps[part]])
            for name, part in split.items()
        }
        trained = train_classifier(seen["train"], truth[split["train"]], (seen["held"], truth[split["held"]]))
        quality[unit] = auroc(trained.score(seen["test"]), truth[split["test"]])
    assert quality["token"] > 0.95
    assert quality["token"] > quality["step"] + 0.1
