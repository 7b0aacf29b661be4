"""Figures of bounds, power and times say what they show, with units; nothing hangs on colour alone."""

import numpy as np
import pytest

from acqdesign.plot import plot_bound_map, plot_bounds, plot_fingerprints, plot_power, plot_times
from acqdesign.plot.bounds import round_ticks

from ._drawn import drawn

T1, T2, FIELDS = np.geomspace(0.4, 4, 7), np.geomspace(0.03, 0.3, 6), np.array([0.8, 1.2])


def test_bars_are_roots_of_bounds_with_the_ratio_of_variances(tmp_path):
    figure = plot_bounds(np.array([4.0, 9.0]), names=["wm", "gm"], start=np.array([16.0, 18.0]), label="σ / T2 [%]")
    axes = figure.axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [4, np.sqrt(18), 2, 3])
    assert {text.get_text() for text in axes.texts} == {"2\n(÷ 4.00)", "3\n(÷ 2.00)", "4", "4.24"}
    assert axes.get_ylabel() == "σ / T2 [%]"
    drawn(figure, tmp_path)


def test_maps_are_in_milliseconds_with_gains_as_lines_too(tmp_path):
    """Columns are transmit fields, T1 goes up; where there is no bound nothing is drawn."""
    bounds = np.broadcast_to(1 + T1[:, None] * T2, (2, 7, 6)).copy()
    bounds[:, T1[:, None] < 2 * T2] = np.nan
    start = bounds * np.array([1.5, 3.0])[:, None, None] * np.linspace(0.5, 1.5, 6)
    figure = plot_bound_map(T1, T2, FIELDS, bounds, start, tissues={"wm": (0.83, 0.075)}, label="σ [%]")
    learned, other, gain, gain_other, *bars = figure.axes
    np.testing.assert_allclose(learned.collections[0].get_array(), np.sqrt(bounds[0]))
    np.testing.assert_allclose(gain.collections[0].get_array(), (start / bounds)[0])
    assert other.get_title() == "B1 1.2, learned"
    assert (learned.get_ylabel(), gain.get_xlabel()) == ("T1 [ms]", "T2 [ms]")
    assert [bar.get_ylabel() for bar in bars] == ["σ [%]", "variance, start / learned"]
    np.testing.assert_allclose(learned.lines[0].get_xydata()[0], [75, 830])
    assert {text.get_text() for text in gain_other.texts} <= {"1.5", "2", "3", "4"}
    assert gain_other.texts
    drawn(figure, tmp_path)


@pytest.mark.parametrize("low", [0.013, 1.54, 470.0])
@pytest.mark.parametrize("ratio", [1.3, 2.5, 4.0, 20.0, 100.0, 900.0])
def test_ticks_are_round_few_and_inside(low, ratio):
    ticks = np.array(round_ticks(low, ratio * low))
    assert 3 <= len(ticks) <= 7
    assert ticks.min() >= low
    assert ticks.max() <= ratio * low
    assert all(len(f"{tick / 10 ** np.floor(np.log10(tick)):g}") <= 3 for tick in ticks)


def test_power_adds_up_to_its_limit(tmp_path):
    figure = plot_power(np.full(9, np.pi / 3), start=np.full(9, np.pi / 6), limit=np.pi / 3)
    _, total = figure.axes
    before, after, limit = total.lines
    np.testing.assert_allclose(after.get_ydata()[-1], 1.0)
    np.testing.assert_allclose(limit.get_ydata(), 1.0)
    assert len({line.get_linestyle() for line in (before, after, limit)}) == 3
    drawn(figure, tmp_path)


def test_signals_differ_in_marker_and_times_are_in_milliseconds(tmp_path):
    signals = plot_fingerprints(np.ones((3, 40)) * [[1], [2], [3]], names=["wm", "gm", "csf"])
    assert len({line.get_marker() for line in signals.axes[0].lines}) == 3
    times = plot_times(np.array([0.01, 0.014]))
    np.testing.assert_allclose(times.axes[0].lines[0].get_ydata(), [10, 14])
    assert times.axes[0].get_ylabel() == "TR [ms]"
    assert "mean 12 ms, sum 0.024 s" in times.axes[0].get_title()
    drawn(times, tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_bounds(np.ones(1), names=["a", "b"]), "bounds: got an array"),
        (lambda: plot_power(np.ones((2, 2))), "flips: got an array"),
        (lambda: plot_fingerprints(np.ones((2, 3)), names=["a"]), "signals: got an array"),
        (lambda: plot_times(np.ones((2, 3))), "tr_s: got an array"),
        (lambda: plot_bound_map(T1, T2, FIELDS, np.ones((2, 7, 5)), np.ones((2, 7, 6))), "bounds: got"),
    ],
)
def test_wrong_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
