"""The sliding spectrum is the Fourier transform of its window, however the values come."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_agent.detection.features import StepSignal, share_windows, step_features, tail
from nr_agent.detection.spectrum import NAMES, WINDOW, SlidingSpectrum, spectral_features


def by_fft(signal):
    """The features of every window, each transformed by itself."""
    windows = signal.double().unfold(-1, WINDOW, 1)
    power = torch.fft.rfft(windows).abs().square()[..., 1:]
    share = power / power.sum(-1, keepdim=True).clamp(min=1e-12)
    bins = share.shape[-1]
    entropy = -(share * share.clamp(min=1e-12).log2()).sum(-1)
    high, low = share[..., bins // 2 :].sum(-1), share[..., : bins // 4].sum(-1)
    variation = windows.diff(dim=-1).square().mean(-1)
    return torch.stack([high, low, share.amax(-1), entropy, variation], -1)


def signals(rows, tokens, seed=0):
    """Noise, a tone, a spike of a thousand deviations, a flat line: one a row, over and over."""
    t = torch.arange(tokens, dtype=torch.float64)
    noise = torch.randn(rows, tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    made = noise.clone()
    for row in range(rows):
        if row % 4 == 1:
            made[row] = torch.sin(t * 0.7) + 0.01 * noise[row]
        elif row % 4 == 2:
            made[row, tokens // 3 : tokens // 3 + 1] = 1000.0
        elif row % 4 == 3:
            made[row, tokens // 2 :] = 3.0
    return made


def test_ten_thousand_tokens_one_by_one_stay_within_1e_5_of_the_transform():
    values = signals(6, 10_000)
    sliding = SlidingSpectrum(torch.zeros(6, 0))
    got = torch.cat([sliding.push(values[:, at : at + 1]) for at in range(values.shape[1])], 1)
    expected = by_fft(torch.cat([torch.zeros(6, WINDOW - 1, dtype=torch.float64), values], 1))
    scale = expected.abs().clamp(min=1)
    assert ((got - expected).abs() / scale).max() < 1e-5


def test_without_anchors_rounding_would_add_up_and_with_them_it_does_not():
    values = signals(1, 4000) * 1e7
    values[0, 2000:] *= 1e-14
    expected = by_fft(torch.cat([torch.zeros(1, WINDOW - 1, dtype=torch.float64), values], 1))[0, -1000:]
    drifted = SlidingSpectrum(torch.zeros(1, 0), anchor_every=10**9).push(values)[0, -1000:]
    anchored = SlidingSpectrum(torch.zeros(1, 0)).push(values)[0, -1000:]
    assert (anchored - expected).abs().max() < 1e-5 < (drifted - expected).abs().max()


@given(st.lists(st.integers(0, 70), min_size=1, max_size=8), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_pieces_of_any_size_give_what_the_whole_gives(sizes, seed):
    values = signals(3, sum(sizes), seed)
    sliding = SlidingSpectrum(torch.zeros(3, 0), anchor_every=48)
    got = torch.cat([sliding.push(piece) for piece in values.split(sizes, 1)], 1)
    whole = SlidingSpectrum(torch.zeros(3, 0)).push(values)
    torch.testing.assert_close(got, whole, atol=1e-9, rtol=1e-9)


@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=1, max_size=5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_rows_of_different_lengths_do_not_disturb_each_other(rounds, seed):
    generator = torch.Generator().manual_seed(seed)
    together = SlidingSpectrum(torch.zeros(3, 0), anchor_every=40)
    alone = [SlidingSpectrum(torch.zeros(1, 0)) for _ in range(3)]
    for lengths in rounds:
        values = torch.randn(3, max(lengths), generator=generator, dtype=torch.float64)
        got = together.push(values, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            own = alone[row].push(values[row : row + 1, :length])[0]
            torch.testing.assert_close(got[row, :length], own, atol=1e-9, rtol=1e-9)


def test_a_selected_row_goes_on_by_itself():
    values = signals(4, 100)
    sliding = SlidingSpectrum(torch.zeros(4, 0))
    sliding.push(values[:, :60])
    fork = sliding.select(torch.tensor([2]))
    fork.push(torch.full((1, 5), 9.0))
    again = sliding.select(torch.tensor([2, 0]))
    expected = SlidingSpectrum(torch.zeros(4, 0)).push(values)[[2, 0], 60:]
    torch.testing.assert_close(again.push(values[[2, 0], 60:]), expected)


def test_steps_one_after_another_see_what_the_whole_trace_shows():
    """The watch keeps the end of the signal between steps: cutting a trace into steps changes no window."""
    trace = torch.randn(200, 1, generator=torch.Generator().manual_seed(3))
    expected = spectral_features(torch.cat([torch.zeros(WINDOW - 1), trace[:, 0]]))
    history, at = torch.zeros(WINDOW - 1), 0
    for length in (40, 1, 99, 60):
        values = trace[at : at + length]
        step = StepSignal(values, values, torch.zeros(length), torch.zeros(length), history, torch.ones(1))
        seen = step_features(step, ["spectral"])
        torch.testing.assert_close(seen[: len(NAMES)], expected[at + length - 1])
        torch.testing.assert_close(seen[len(NAMES) :], expected[at : at + length].max(0).values)
        history, at = tail(history, step.signal), at + length


def test_windows_of_several_groups_computed_at_once_are_those_of_each_by_itself():
    generator = torch.Generator().manual_seed(4)
    steps, alone = [], []
    for channels in (3, 1, 8):
        values = torch.randn(21, channels, generator=generator)
        read = (values, values, torch.zeros(21), torch.zeros(21), torch.randn(WINDOW - 1, generator=generator))
        steps.append(StepSignal(*read, torch.ones(channels)))
        alone.append(step_features(StepSignal(*read, torch.ones(channels)), ["spectral"]))
    share_windows(steps)
    for step, expected in zip(steps, alone, strict=True):
        assert step.windows is not None
        torch.testing.assert_close(step_features(step, ["spectral"]), expected)


def test_groups_without_a_token_have_no_windows():
    nothing = torch.zeros(0, 2)
    step = StepSignal(nothing, nothing, torch.zeros(0), torch.zeros(0), torch.zeros(WINDOW - 1), torch.ones(2))
    share_windows([step])
    assert not step_features(step, ["spectral"]).any()
    share_windows([])
