"""Sampler, cache and masks by themselves."""

import pytest
import torch
from tiny_families import FAMILIES, REFUSED, build

from nr_agent.engine.cache import SlotCache, attention_mask
from nr_agent.engine.forward import Runner
from nr_agent.engine.protocol import Sampling
from nr_agent.engine.sampler import confidence, draw, uniform
from nr_agent.errors import ConfigurationError, ModelError


def test_draws_follow_the_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(4000, 1)
    drawn = draw(logits, [Sampling(temperature=1.0, top_p=1.0)] * 4000, [(11, position) for position in range(4000)])
    expected = 4000 * logits[0].softmax(-1)
    chi_square = ((torch.bincount(drawn, minlength=4) - expected).square() / expected).sum()
    assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


def test_a_draw_depends_on_seed_and_position_alone():
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    how = [Sampling(temperature=1.0)] * 6
    keys = [(5, position) for position in range(6)]
    together = draw(logits, how, keys)
    alone = [draw(logits[i : i + 1], how[:1], keys[i : i + 1]).item() for i in range(6)]
    assert together.tolist() == alone
    assert len({uniform(seed, position) for seed in range(50) for position in range(50)}) == 2500


def test_the_nucleus_keeps_the_token_that_crosses_and_no_other():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(500, 1)
    keys = [(1, position) for position in range(500)]
    assert set(draw(logits, [Sampling(temperature=1.0, top_p=0.6)] * 500, keys).tolist()) == {0, 1}
    assert set(draw(logits, [Sampling(temperature=1.0, top_p=1.0, top_k=3)] * 500, keys).tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("vocabulary", "flat"), [(40, 1.0), (1000, 0.3), (1000, 6.0), (5000, 3.0)])
def test_a_draw_is_that_of_the_whole_vocabulary_sorted(vocabulary, flat):
    """Peaked and flat rows in one batch, many tokens equally likely: the few that are looked at first must not show."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = (torch.randn(24, vocabulary, generator=generator) * flat * 2).round() / 2
    logits[::3] = 8 * torch.randn(8, vocabulary, generator=generator)
    hows = [
        Sampling(temperature=(0.6, 1.0)[row % 2], top_p=(1.0, 0.95, 0.5)[row % 3], top_k=(0, 0, 1, 40, 300)[row % 5])
        for row in range(24)
    ]
    for position in range(20):
        keys = [(row, position) for row in range(24)]
        assert draw(logits, hows, keys).tolist() == [
            drawn_by_sorting(*row) for row in zip(logits, hows, keys, strict=True)
        ]


def drawn_by_sorting(logits, how, key):
    likely = (logits / how.temperature).softmax(-1)
    ordered, tokens = likely.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(len(logits))
    kept = tokens[((before < how.top_p) | (rank == 0)) & (rank < (how.top_k or len(logits)))].sort().values
    total = likely[kept].double().cumsum(-1)
    return int(kept[min(int(torch.searchsorted(total, uniform(*key) * total[-1], right=True)), len(kept) - 1)])


@pytest.mark.parametrize("vocabulary", [40, 1000])
@pytest.mark.parametrize(
    "how",
    [
        Sampling(temperature=0),
        Sampling(temperature=1.0, top_p=1.0),
        Sampling(temperature=1.0, top_p=0.5),
        Sampling(temperature=0.6, top_p=1.0, top_k=5),
    ],
)
def test_a_row_of_no_numbers_gives_some_token_of_the_vocabulary_and_leaves_the_others_alone(vocabulary, how):
    """Whoever looks its probability up must find one, be it NaN."""
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(4))
    keys = [(row, 7) for row in range(3)]
    sound = draw(logits, [how] * 3, keys)
    logits[1] = torch.nan
    drawn = draw(logits, [how] * 3, keys)
    assert 0 <= int(drawn[1]) < vocabulary
    assert drawn[[0, 2]].tolist() == sound[[0, 2]].tolist()
    assert confidence(logits, drawn)[0].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_piece_that_is_avoided_is_not_completed(temperature):
    logits = torch.tensor([[3.0, 2.0, 1.0]]).repeat(4, 1)
    how = Sampling(temperature=temperature, top_p=1.0, top_k=2, avoid=((1, 2, 0), (0,) * 9))
    written = [[1, 2], [5, 1, 2], [2, 1], []]
    drawn = [draw(logits, [how] * 4, [(seed, 0)] * 4, written).tolist() for seed in range(50)]
    assert all(row[0] != 0 and row[1] != 0 for row in drawn)
    assert any(row[2] == 0 for row in drawn) and any(row[3] == 0 for row in drawn)


def test_a_piece_of_one_is_never_written_and_an_empty_one_is_refused():
    drawn = draw(torch.tensor([[3.0, 2.0]]), [Sampling(temperature=0, avoid=((0,),))], [(0, 0)], [[]])
    assert drawn.tolist() == [1]
    with pytest.raises(ConfigurationError, match="empty"):
        Sampling(avoid=((),))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_suppressed_token_is_never_drawn(temperature):
    logits = torch.tensor([[5.0, 1.0, 0.0]]).repeat(200, 1)
    how = [Sampling(temperature=temperature, top_p=1.0, suppress=(0,))] * 200
    assert 0 not in draw(logits, how, [(2, position) for position in range(200)]).tolist()


def test_confidence_is_that_of_the_unscaled_distribution():
    logp, entropy = confidence(torch.tensor([[0.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 0]))
    assert logp.tolist() == pytest.approx([-0.6931, 0.0], abs=1e-3)
    assert entropy.tolist() == pytest.approx([0.6931, 0.0], abs=1e-3)


def test_growing_keeps_what_was_written_and_a_copy_is_a_copy():
    cache = SlotCache(1, slots=1, capacity=4)
    written = torch.randn(1, 2, 3, 5)
    cache.begin([0], torch.tensor([[0, 1, 2]]), 3)
    cache.update(written, written, 0)
    cache.copy(0, 5, 3)
    later = torch.randn(2, 2, 1, 5)
    cache.begin([5, 0], torch.tensor([[3], [9]]), 10)
    keys, _ = cache.update(later, later, 0)
    assert torch.equal(keys[0, :, :3], written[0])
    assert torch.equal(keys[1, :, :3], written[0])
    assert torch.equal(keys[0, :, 3], later[0, :, 0])
    assert torch.equal(keys[1, :, 9], later[1, :, 0])


def test_masks_see_the_past_and_no_further_back_than_the_window():
    positions = torch.tensor([[4, 5]])
    assert attention_mask(positions, 7)[0, 0].int().tolist() == [[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0]]
    assert attention_mask(positions, 7, window=3)[0, 0].int().tolist() == [[0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0]]
    additive = attention_mask(positions, 7, additive=torch.float32)
    assert torch.equal(additive == 0, attention_mask(positions, 7))


def test_outputs_that_are_kept_by_their_number_are_those_that_are_kept_by_their_place():
    """By their number they are where the last layers are on another device than the ids."""
    runner = Runner(build("qwen3", 100, **FAMILIES["qwen3"]))
    rows, found = [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]], []
    for picks in (True, False):
        runner.picks = picks
        found.append(runner.run([0, 1, 2], [0, 0, 0], rows, [0, 2]))
    assert found[0].shape == (2, 100)
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_cannot_be_run_is_refused_with_the_reason(family):
    settings, reason = REFUSED[family]
    with pytest.raises(ModelError, match=reason) as caught:
        Runner(build(family, 100, **settings))
    assert caught.value.hint
