"""What a schedule's table says: numbers of the run's own arrays, and of formulas that nobody here wrote."""

import numpy as np
import pytest
from scipy.optimize import brentq

from acqdesign.plot import read_run, report
from acqdesign.plot.images import psf_numbers
from acqdesign.plot.schedule import map_plots, schedule_scores, train_point_spread

from ._folders import arrays, folder


def with_map():
    """Arrays of a run with bounds over two B1, four T1 and three T2; one pair has T2 above T1."""
    rng = np.random.default_rng(3)
    maps = rng.uniform(1, 9, (2, 2, 4, 3))
    maps[:, :, 0, 2] = np.nan
    axes = {"map.b1": np.array([0.8, 1.0]), "map.t1_s": np.geomspace(0.1, 2, 4), "map.t2_s": np.geomspace(0.02, 0.2, 3)}
    return arrays() | axes | {"map": maps[0], "start.map": maps[1]}


def width_of(signal):
    (width, _), _ = psf_numbers(train_point_spread(signal)[:, None])
    return width


@pytest.mark.parametrize("echoes", [16, 33])
def test_a_train_of_equal_echoes_spreads_a_point_as_the_dirichlet_kernel(echoes):
    half = brentq(lambda x: np.sin(np.pi * x) - 0.5 * echoes * np.sin(np.pi * x / echoes), 0.3, 0.9)
    if echoes % 2:
        assert width_of(np.ones(echoes)) == pytest.approx(2 * half, rel=1e-3)
    else:  # of an even number the outermost echo has no other half
        assert width_of(np.ones(echoes)) == pytest.approx(2 * half, rel=2e-2)


def test_a_faster_decay_spreads_a_point_further_as_a_lorentzian_does():
    """Of `exp(-n a)` the spread is `1 / (a + 2πi x / N)`, whose half is at `x = √3 a N / 2π`, where `a N` is large."""
    echoes, rate = 257, 0.06
    width = width_of(np.exp(-rate * np.arange(echoes)))
    assert width == pytest.approx(np.sqrt(3) * rate * echoes / np.pi, rel=1e-2)
    assert width > width_of(np.exp(-rate / 2 * np.arange(echoes)))


def test_the_table_holds_bounds_robustness_spread_and_power(tmp_path):
    held = with_map()
    rows = {
        text: pair for text, *pair, _, _ in schedule_scores({"relative_power": 2, "initial_relative_power": 3}, held)
    }
    assert rows["wm: σ(T2) / T2 [%]"] == [4.0, 2.0]
    middles = [np.nanmedian(np.sqrt(held[name][0])) for name in ("start.map", "map")]
    np.testing.assert_allclose(rows["the same over T1 100 to 2000 ms, T2 20 to 200 ms, at B1 0.8: median"], middles)
    worst = [np.nanmax(np.sqrt(held[name][0] / held[name][1]).clip(1)) for name in ("start.map", "map")]
    np.testing.assert_allclose(rows["how many times larger at B1 0.8 to 1 than at 1: worst"], worst)
    assert rows["gm: point spread of the train, full width at half maximum [voxels]"][1] == width_of(held["signals"][1])
    assert rows["power, in 180° pulses"] == [3, 2.0]
    page = report(read_run(folder(tmp_path / "run", held)))
    assert all(text in page for text in rows if "power" not in text)
    assert {"map-0", "map-1"} == set(map_plots(held))


def test_what_has_no_number_is_left_out():
    """A bound that is infinite, a spread that never falls to half, an old run."""
    held = arrays() | {"bounds": np.array([4.0, np.inf])}
    texts = [row[0] for row in schedule_scores({}, held)]
    assert "wm: σ(T2) / T2 [%]" in texts
    assert "gm: σ(T2) / T2 [%]" not in texts
    assert schedule_scores({}, {}) == []
    assert map_plots({}) == {}
